"""The memory law: GiB of one GPU by component, how large the KV pool becomes, and in which phase a launch dies.

Start-up of TensorRT-LLM's PyTorch backend, as the law follows it (symbols in GiB of one GPU):
    W weights, R runtime (context, workspaces), C communicators, A activation peak of `max_num_tokens` tokens,
    G CUDA-graph pools, T temporary KV pool, f `free_gpu_memory_fraction`, M capacity
1. load: W + R + C.   2. temporary KV pool T, executor, graphs captured once: + T + G.   3. profiling forward: + A.
4. Tear-down. The budget counts everything seen so far but T, so graphs and communicators shrink the pool:
       free = M - (W + R + C + A + G),  pool = f x free
5. KV pool, then graphs are captured again. A and G were paid for in step 4, so what f leaves over, (1 - f) x free, is
   only for what profiling never saw: pool growth of the second capture, allocator fragmentation, and
6. under load, logits and sampling buffers of a full batch.
Sources: TensorRT-LLM `_torch/pyexecutor/{_util,resource_manager,py_executor_creator}.py` for the order and the budget,
AIConfigurator for W, R, C, A. Every constant that nobody measured is named in `MemoryConstants`.

Settings may be arrays of one shape: a whole grid is one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.domain.normal import normal_cdf
from advisor.domain.outcome import Phase
from advisor.domain.units import GIB_BYTES, gib
from advisor.memory.constants import MEMORY_ERROR, MemoryConstants

Array = NDArray[np.float64]
LOGIT_BYTES = 4  # sampling works in float32 whatever the model's type


@dataclass(frozen=True)
class MemoryTerms:
    """What one deployment needs of one GPU before any setting is chosen.

    `kv_overpromise` is the true KV bytes per token over the engine's own estimate: above 1 where KV heads are
    replicated (fewer heads than ranks), because the estimate divides them without rounding up.
    """

    weights_gib: float
    activations_floor_gib: float
    activations_gib_per_token: float
    runtime_gib: float
    comm_gib: float
    kv_bytes_per_token: float
    capacity_gib: float
    vocab_size: int = 0
    kv_overpromise: float = 1.0


@dataclass(frozen=True)
class MemorySettings:
    """What the law reads of a configuration; per rank under attention DP. Numbers or arrays of one shape."""

    max_batch_size: ArrayLike
    max_num_tokens: ArrayLike
    kv_fraction: ArrayLike
    n_graphs: ArrayLike
    """Captured batch sizes."""
    largest_graph: ArrayLike
    """Largest captured batch, 0 without graphs."""
    tokens_per_block: int = 32


@dataclass(frozen=True)
class MemoryLoad:
    """What the benchmark asks of one rank at most: requests in flight, and the KV tokens that each reserves."""

    requests: ArrayLike
    request_tokens: ArrayLike


class Stage(NamedTuple):
    """A point of start-up or service where memory can run out, in the words of a log and of an outcome."""

    phase: Phase
    component: str


STAGES = (
    Stage("load", "Model"),
    Stage("kv_estimate", "Additional executor resources (temporary for KV cache size estimation)"),
    Stage("kv_estimate", "Model resources created during usage"),
    Stage("kv_allocate", "KV cache"),
    Stage("warm_up", "Additional executor resources"),
    Stage("serve", "logits and sampling buffers"),
)
"""In the order they are reached; names are those of TensorRT-LLM's own report (which has none for the last)."""


@dataclass(frozen=True, eq=False)
class MemoryBudget:
    """GiB of one GPU by component, arrays of the settings' shape.

    `tried_gib` and `free_gib` have a leading axis over `STAGES`: the allocation made there, and what was free for it.
    """

    capacity_gib: Array
    weights_gib: Array
    activations_gib: Array
    graphs_gib: Array
    runtime_gib: Array
    comm_gib: Array
    logits_gib: Array
    fragmentation_gib: Array
    kv_pool_gib: Array
    kv_tokens: NDArray[np.int64]
    tried_gib: Array
    free_gib: Array

    @property
    def margin_gib(self) -> Array:
        """Free minus tried per stage, shape (len(STAGES), ...); negative = out of memory there."""
        return np.asarray(self.free_gib - self.tried_gib)

    @property
    def headroom_gib(self) -> Array:
        """Least margin over all stages: negative by what the launch lacks."""
        return np.asarray(self.margin_gib.min(axis=0))

    @property
    def fits(self) -> NDArray[np.bool_]:
        """True where no stage runs out."""
        return np.asarray(self.headroom_gib >= 0.0)

    @property
    def failing_stage(self) -> NDArray[np.int64]:
        """Index into `STAGES` of the first stage that runs out, -1 where none does."""
        out = self.margin_gib < 0.0
        return np.where(out.any(axis=0), out.argmax(axis=0), -1).astype(np.int64)


def memory_budget(
    terms: MemoryTerms, settings: MemorySettings, constants: MemoryConstants, load: MemoryLoad | None = None
) -> MemoryBudget:
    """The law, applied.

    Args:
        terms: What the deployment needs.
        settings: Numbers or arrays of one shape.
        constants: Nominal ones, or those of a drawn world or a calibration.
        load: Bounds the rows sampled at once; None = a full `max_batch_size`.
    """
    c, f = constants, np.asarray(settings.kv_fraction, np.float64)
    zero = 0.0 * (f + np.asarray(settings.max_batch_size) + settings.max_num_tokens + settings.n_graphs)
    capacity = terms.capacity_gib + zero
    weights = terms.weights_gib * c.weights_factor + zero
    runtime = np.maximum(0.0, terms.runtime_gib - c.graphs_in_runtime_gib) * c.runtime_factor + zero
    comm = terms.comm_gib + zero
    activations = activations_gib(terms, settings.max_num_tokens, c) + zero
    graphs = graphs_gib(settings.n_graphs, settings.largest_graph, c) + zero
    held = c.fragmentation_base_gib + c.fragmentation_per_activation * activations
    temporary = gib(terms.kv_bytes_per_token) * np.asarray(settings.max_num_tokens, np.float64)

    resident = weights + runtime + comm
    temporary = np.minimum(temporary, np.maximum(0.0, f * (capacity - resident)))  # the engine caps it the same way
    free = capacity - resident - activations - graphs
    pool = np.maximum(0.0, np.minimum(f * free * terms.kv_overpromise, f * (capacity - resident)))
    kv_tokens = kv_pool_tokens(pool * (1.0 - c.kv_block_reserve), terms.kv_bytes_per_token, settings.tokens_per_block)

    rows = np.asarray(settings.max_batch_size, np.float64)
    if load is not None:
        rows = np.minimum(rows, np.minimum(load.requests, np.maximum(1, kv_tokens // np.asarray(load.request_tokens))))
    logits = c.logits_copies * gib(LOGIT_BYTES * terms.vocab_size) * rows + zero
    regrown = c.recapture_share * graphs
    after_pool = capacity - resident - pool
    one_block = gib(terms.kv_bytes_per_token) * settings.tokens_per_block + zero
    recaptured = graphs + regrown + c.capture_fragmentation_share * held
    tried = [weights, graphs, activations, one_block, recaptured, logits + regrown + held]
    free_at = [
        capacity - runtime - comm,
        capacity - resident - temporary,
        capacity - resident - temporary - graphs,
        f * free,
        after_pool - activations,  # the caching allocator still holds the warm-up's activations while capturing
        after_pool - activations - graphs,
    ]
    return MemoryBudget(
        capacity_gib=capacity,
        weights_gib=weights,
        activations_gib=activations,
        graphs_gib=graphs,
        runtime_gib=runtime,
        comm_gib=comm,
        logits_gib=logits,
        fragmentation_gib=regrown + held,
        kv_pool_gib=pool,
        kv_tokens=kv_tokens,
        tried_gib=np.stack(tried),
        free_gib=np.stack(free_at),
    )


def activations_gib(terms: MemoryTerms, max_num_tokens: ArrayLike, constants: MemoryConstants) -> Array:
    """Activation peak of a forward pass over `max_num_tokens` tokens."""
    linear = terms.activations_gib_per_token * np.asarray(max_num_tokens, np.float64)
    return np.asarray(constants.activations_factor * np.maximum(terms.activations_floor_gib, linear))


def graphs_gib(n_graphs: ArrayLike, largest_graph: ArrayLike, constants: MemoryConstants) -> Array:
    """CUDA-graph pools of `n_graphs` captured sizes, which share one workspace as large as the largest batch needs."""
    n, rows = np.asarray(n_graphs, np.float64), np.asarray(largest_graph, np.float64)
    used = constants.graph_base_gib + constants.graph_per_size_gib * n + constants.graph_per_row_gib * rows
    return np.asarray(np.where(n > 0, used, 0.0))


def available_kv_gib(total_gib: float, peak_gib: float, temporary_kv_gib: float, fraction: float) -> float:
    """TensorRT-LLM's budget in its own log's terms: (total - profiled peak + temporary KV pool) x fraction."""
    return (total_gib - peak_gib + temporary_kv_gib) * fraction


def kv_pool_tokens(pool_gib: ArrayLike, kv_bytes_per_token: float, tokens_per_block: int) -> NDArray[np.int64]:
    """Tokens a KV pool holds: whole tokens first, then rounded up to whole blocks, as the engine does."""
    # A hair above a whole token is that token: the pool came from a float product.
    tokens = np.floor(np.asarray(pool_gib, np.float64) * GIB_BYTES / kv_bytes_per_token + 1e-6)
    return np.asarray(np.ceil(tokens / tokens_per_block) * tokens_per_block).astype(np.int64)


def kv_bytes_per_token(
    *, layers: int, kv_heads: int, head_dim: int, tp: int, value_bytes: float, mla_width: int | None = None
) -> float:
    """KV-cache bytes of one token on one rank.

    Heads are split over `tp` ranks and replicated below one per rank; pass tp = 1 under attention DP. Multi-head latent
    attention stores one vector of `mla_width` (`kv_lora_rank` + `qk_rope_head_dim`) per layer, on every rank.
    """
    if mla_width is not None:
        return layers * mla_width * value_bytes
    return layers * 2 * -(-kv_heads // tp) * head_dim * value_bytes


def kv_overpromise(*, kv_heads: int, head_dim: int, tp: int) -> float:
    """True KV bytes per token over the engine's estimate, which divides heads by `tp` without rounding up."""
    return -(-kv_heads // tp) * head_dim / max(1, head_dim * kv_heads // tp)


def p_fits(
    terms: MemoryTerms, settings: MemorySettings, constants: MemoryConstants, load: MemoryLoad | None = None
) -> Array:
    """Probability that no stage runs out, given the known error of every constant.

    Constants are shifted by one standard deviation, one at a time; the headroom's changes add up in squares, and the
    headroom is taken as normal around its nominal value.
    """
    nominal = memory_budget(terms, settings, constants, load).headroom_gib
    variance = np.zeros_like(nominal)
    values = {field.name: getattr(constants, field.name) for field in fields(MemoryConstants)}
    for name, sigma in MEMORY_ERROR.items():
        shifted = MemoryConstants(**{**values, name: values[name] * math.exp(sigma)})
        variance += (memory_budget(terms, settings, shifted, load).headroom_gib - nominal) ** 2
    return normal_cdf(nominal / np.sqrt(np.maximum(variance, 1e-12)))
