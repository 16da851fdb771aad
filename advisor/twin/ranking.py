"""The whole search space at once: memory law and steady state over many configurations of one deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import GRAPH_SIZES, KV_BLOCK_TOKENS, OPTION_FIELDS, Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import Workload
from advisor.memory.law import memory_budget, p_fits
from advisor.memory.terms import MemorySettings
from advisor.twin.graphs import graph_rule
from advisor.twin.predict import KV_POOL_BYTES, OWN_HTTP_PROCESS, PREDICTION_WAVES, Twin, kv_pool_gib, memory_load
from advisor.twin.steady_state import SteadyLoad, SteadySettings, steady_state

Array = NDArray[np.float64]
_KNOWN_OPTIONS = frozenset({*OPTION_FIELDS, GRAPH_SIZES, KV_POOL_BYTES})


@dataclass(frozen=True, eq=False)
class Ranking:
    """Estimates per configuration, shape (n,), in the order given; metrics are NaN where the server could not serve.

    `headroom_gib` is the least memory margin over start-up and load (negative = out of memory), `p_fits` the
    probability that it is not, `kv_tokens` the KV capacity of one rank. Memory is stated where nothing can be served,
    too.
    """

    output_tok_per_s: Array
    ttft_ms: Array
    tpot_ms: Array
    itl_ms: Array
    headroom_gib: Array
    p_fits: Array
    kv_tokens: NDArray[np.int64]

    @property
    def servable(self) -> NDArray[np.bool_]:
        """True where memory suffices and the longest request can be scheduled."""
        return np.isfinite(self.output_tok_per_s)


@dataclass(frozen=True, eq=False)
class Alike:
    """Configurations that the twin tells apart by the four settings alone, as arrays.

    `places` are theirs among all asked, (m,).
    """

    places: NDArray[np.int64]
    deployed: Deployment
    graph_rule: str
    graph_max: Array
    memory: MemorySettings


def grouped(twin: Twin, deployment: Deployment, configs: Sequence[ServingConfig]) -> tuple[Alike, ...]:
    """Any number of configurations, those with equal options together. It does not depend on the twin's constants.

    Options that the twin does not know change nothing for it.
    """
    members: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for place, config in enumerate(configs):
        known = sorted((name, value) for name, value in config.options.items() if name in _KNOWN_OPTIONS)
        members.setdefault(tuple(known), []).append(place)
    return tuple(
        _alike(twin, deployment.with_options(configs[places[0]].options), places, [configs[place] for place in places])
        for places in members.values()
    )


def _alike(twin: Twin, deployed: Deployment, places: list[int], configs: list[ServingConfig]) -> Alike:
    keys = [_graph_key(config) for config in configs]
    unlike = dict(zip(keys, configs, strict=True))
    sizes = {key: twin.graph_sizes(deployed, config) for key, config in unlike.items()}
    graphs = [sizes[key] for key in keys]
    return Alike(
        places=np.array(places),
        deployed=deployed,
        graph_rule=graph_rule(configs[0].options, twin.ladder_rule),
        graph_max=np.array([config.cuda_graph_max_batch_size for config in configs], np.float64),
        memory=MemorySettings(
            max_batch_size=np.array([config.max_batch_size for config in configs], np.float64),
            max_num_tokens=np.array([config.max_num_tokens for config in configs], np.float64),
            kv_fraction=np.array([config.kv_cache_free_gpu_memory_fraction for config in configs]),
            n_graphs=np.array([len(each) for each in graphs]),
            largest_graph=np.array([max(each, default=0) for each in graphs]),
            tokens_per_block=KV_BLOCK_TOKENS,
            kv_pool_gib=kv_pool_gib(deployed),
        ),
    )


def rank(
    twin: Twin,
    deployment: Deployment,
    configs: Sequence[ServingConfig],
    workload: Workload,
    waves: float = PREDICTION_WAVES,
    *,
    as_if_it_fitted: bool = False,
) -> Ranking:
    """Estimate every configuration under one workload.

    Args:
        twin: The model, its tables and constants.
        deployment: As the study fixes it; each configuration's options override it.
        configs: Any number; those with equal options are computed together.
        workload: One workload; ranged lengths count by their means.
        waves: Requests of the benchmark over its concurrency.
        as_if_it_fitted: Estimate speed also where memory would run out.
    """
    return rank_groups(twin, grouped(twin, deployment, configs), workload, waves, as_if_it_fitted=as_if_it_fitted)


def rank_groups(
    twin: Twin,
    groups: Sequence[Alike],
    workload: Workload,
    waves: float = PREDICTION_WAVES,
    *,
    as_if_it_fitted: bool = False,
    with_p_fits: bool = True,
) -> Ranking:
    """The same of configurations that are grouped already, in the order in which they were given.

    `p_fits`, a third of the work, is NaN where it is not wanted.
    """
    n = sum(len(group.places) for group in groups)
    out, kv_tokens = np.full((6, n), np.nan), np.zeros(n, dtype=np.int64)
    for group in groups:
        out[:5, group.places], kv_tokens[group.places] = _rank_alike(twin, group, workload, waves, as_if_it_fitted)
        if with_p_fits:
            terms, load = twin.memory_terms(group.deployed), memory_load(group.deployed, workload)
            out[5, group.places] = p_fits(terms, group.memory, twin.constants, load)
    output_tok_per_s, ttft_ms, tpot_ms, itl_ms, headroom_gib, probability = out
    return Ranking(output_tok_per_s, ttft_ms, tpot_ms, itl_ms, headroom_gib, probability, kv_tokens)


def _rank_alike(
    twin: Twin, group: Alike, workload: Workload, waves: float, as_if_it_fitted: bool
) -> tuple[Array, NDArray[np.int64]]:
    deployed, settings = group.deployed, group.memory
    batch, tokens = np.asarray(settings.max_batch_size), np.asarray(settings.max_num_tokens)
    terms, load = twin.memory_terms(deployed), memory_load(deployed, workload)
    budget = memory_budget(terms, settings, twin.constants, load)
    estimate = steady_state(
        twin.times(deployed),
        SteadySettings(
            max_batch_size=batch,
            max_num_tokens=tokens,
            graph_max=group.graph_max,
            kv_tokens=budget.kv_tokens,
            chunked_prefill=deployed.chunked_prefill,
            graph_padding=deployed.graph_padding,
            ladder_rule=group.graph_rule,
            overlap=deployed.overlap_scheduler,
            n_ranks=deployed.ranks_with_own_queue,
            tokens_per_block=KV_BLOCK_TOKENS,
            stream_interval=deployed.stream_interval,
            own_http_process=deployed.engine in OWN_HTTP_PROCESS,
        ),
        SteadyLoad(
            isl=((workload.isl_min or workload.isl) + workload.isl) / 2,
            osl=((workload.osl_min or workload.osl) + workload.osl) / 2,
            concurrency=workload.concurrency,
            request_rate_per_s=workload.request_rate_per_s,
            ranged=workload.is_ranged,
            n_requests=workload.requests(waves),
        ),
    )
    too_long = (budget.kv_tokens < workload.max_tokens_per_request) | (
        (tokens < workload.isl) & (not deployed.chunked_prefill)
    )
    served = np.where((budget.fits | as_if_it_fitted) & ~too_long, 1.0, np.nan)
    tpot_ms = served * estimate.tpot_ms
    itl_ms = tpot_ms * min(deployed.stream_interval, workload.osl)  # between chunks of so many tokens
    metrics = [served * estimate.output_tok_per_s, served * estimate.ttft_ms, tpot_ms, itl_ms]
    return np.stack([*metrics, budget.headroom_gib]), budget.kv_tokens


def _graph_key(config: ServingConfig) -> tuple[int, int]:
    return config.cuda_graph_max_batch_size, min(config.max_batch_size, config.max_num_tokens)
