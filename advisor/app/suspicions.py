"""What looks wrong with a configuration for one workload: settings that limit each other, or that buy nothing.

What a release refuses is said by its own rules; this is about servers that start.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from advisor.domain.deployment import KV_BLOCK_TOKENS, Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.units import round_up
from advisor.domain.workload import Workload
from advisor.engines.explained import Finding, Severity

GRAPHS = "cuda_graph_max_batch_size"
FRACTION = "kv_cache_free_gpu_memory_fraction"


def suspicions(
    deployment: Deployment,
    config: ServingConfig,
    workload: Workload,
    graph_sizes: Collection[int],
    kv_tokens: int | None,
    names: Mapping[str, str],
) -> Iterator[Finding]:
    """Findings, one rank at a time under attention DP.

    Args:
        deployment: With the configuration's options worked in.
        config: The four settings.
        workload: What is to be served.
        graph_sizes: Batch sizes that get a CUDA graph.
        kv_tokens: KV capacity of one rank, tokens; None where it is not known.
        names: Setting to the key under which the release takes it.
    """

    def found(severity: Severity, setting: str, message: str) -> Finding:
        return Finding(severity=severity, about=names.get(setting, setting), message=f"{workload.name}: {message}")

    batch, tokens = config.max_batch_size, config.max_num_tokens
    load = None if workload.concurrency is None else math.ceil(workload.concurrency / deployment.ranks_with_own_queue)
    each = " on each rank" if deployment.ranks_with_own_queue > 1 else ""
    if load is not None and load > batch:
        yield found("warning", "max_batch_size", f"{load:,} requests are in flight{each}, so {load - batch:,} wait.")
    if load is not None and load < batch:
        message = f"at most {load:,} requests are in flight{each}; room for {batch:,} only takes memory."
        yield found("note", "max_batch_size", message)
    running = batch if load is None else min(batch, load)
    request_tokens = round_up(workload.max_tokens_per_request, KV_BLOCK_TOKENS)
    if kv_tokens is not None and 0 < kv_tokens // request_tokens < running:
        held = kv_tokens // request_tokens
        message = (
            f"the KV pool of {kv_tokens:,} tokens holds {held:,} requests of {request_tokens:,}{each}, not the "
            f"{running:,} that could run: a larger fraction, fewer requests or a smaller KV type would help."
        )
        yield found("warning", FRACTION, message)
        running = held
    beside = tokens - workload.isl  # decodes that leave room for a whole prompt
    if not deployment.chunked_prefill and 0 <= beside < running - 1:
        message = (
            f"a prompt of {workload.isl:,} tokens fits into a step only while at most {beside:,} requests decode, so "
            f"at most {beside + 1:,} run at once. Raise it to {workload.isl + running:,} or more, or turn chunked "
            "prefill on."
        )
        yield found("warning", "max_num_tokens", message)
        return  # what else could run depends on it
    largest = max(graph_sizes, default=0)
    if not largest:
        yield found("warning", GRAPHS, "CUDA graphs are off, so small batches wait for the CPU between kernels.")
    elif largest < running:
        yield found("warning", GRAPHS, f"batches of {largest + 1:,} to {running:,} decode without a CUDA graph.")
    elif unused := [size for size in graph_sizes if size > replayed(running, graph_sizes)]:
        message = f"at most {running:,} requests decode{each}: {len(unused)} larger captured sizes are not replayed."
        yield found("note", GRAPHS, message)


def replayed(batch: int, graph_sizes: Collection[int]) -> int:
    """The captured size at which a batch runs with padding, not above the largest."""
    return min(size for size in graph_sizes if size >= batch)
