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
vLLM's fraction is of the whole GPU, and it profiles once, before any graph is captured:
3. profiling: W + R + C + P, where P is A, logits of a full batch included, or more if this start compiles its graph
   (`step_peaks`).   4. pool = f x M - (W + R + C + P).
5. graphs are captured beside the pool, while P is free again.   6. under load A comes back, or partial results of
   attention that are larger and that no profiling saw; what compiling took never. Graphs and fragmentation must fit
   into (1 - f) x M + P - A. The next start finds the graph compiled: P is A then. A pool that is given in bytes ignores
   f. Full graphs end at `max_batch_size`.
What a driver counts as used is more than what must fit: PyTorch's allocator keeps blocks that nobody needs any more,
`cached`, and gives them back before it fails. So it is in no margin, only in the reading that is expected.
Sources: TensorRT-LLM `_torch/pyexecutor/{_util,resource_manager,py_executor_creator}.py` for the order and the budget,
AIConfigurator for W, R, C, A; vLLM `v1/worker/gpu_worker.py` (`determine_available_memory`,
`compile_or_warm_up_model`) and `v1/attention/backends/flash_attn.py` (`max_num_splits`). Every constant that nobody
measured is named in `MemoryConstants`.

Settings may be arrays of one shape: a whole grid is one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.domain.normal import normal_cdf
from advisor.domain.outcome import Phase
from advisor.domain.units import GIB_BYTES, gib
from advisor.memory.constants import MEMORY_ERROR, MemoryConstants, MemoryFraction
from advisor.memory.terms import FLOAT32_BYTES, MemoryLoad, MemorySettings, MemoryTerms

Array = NDArray[np.float64]


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
_BESIDE_POOL = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0)  # the stages that find the KV pool made


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
    attention_gib: Array
    """What attention's partial results take beyond the activations; no profiling sees them."""
    kv_pool_gib: Array
    kv_tokens: NDArray[np.int64]
    tried_gib: Array
    free_gib: Array
    profiling_gib: Array
    """What profiling sees at its peak in place of the activations: those, or more where it compiles the graph."""
    cacheable_gib: Array
    """What the allocator would keep beyond need, by cause: activations, logits and attention, on a leading axis."""
    pool_is_given: bool = False
    """Whether the KV pool's size was a setting, which no memory that is free or missing moves."""
    fraction: MemoryFraction = "of_free"

    @property
    def margin_gib(self) -> Array:
        """Free minus tried per stage, shape (len(STAGES), ...); negative = out of memory there."""
        return np.asarray(self.free_gib - self.tried_gib)

    @property
    def profiled_gib(self) -> Array:
        """What the engine's log calls activations: vLLM's counts whatever profiling saw beside the weights."""
        beside = self.runtime_gib + self.comm_gib if self.fraction == "of_total" else 0.0
        return np.asarray(self.profiling_gib + beside)

    @property
    def compiling_gib(self) -> Array:
        """What compiling takes beyond the activations while profiling, and gives back."""
        return np.asarray(self.profiling_gib - self.activations_gib)

    @property
    def of_any_start(self) -> MemoryBudget:
        """With the margins of whichever start is tightest: this one, or the next one, which finds the graph compiled.

        What compiling took and gave back is free beside the pool of this start. That one gives it to its own pool.
        """
        if self.pool_is_given:
            return self
        return replace(self, free_gib=self.free_gib - np.multiply.outer(_BESIDE_POOL, self.compiling_gib))

    @property
    def beside_pool_gib(self) -> Array:
        """What the settings take of a server under load, but for the KV pool."""
        return np.asarray(
            self.activations_gib + self.graphs_gib + self.logits_gib + self.attention_gib + self.fragmentation_gib
        )

    @property
    def cached_gib(self) -> Array:
        """What the allocator keeps beyond need under load: it gives back what is needed, so no more than is free."""
        return np.asarray(np.minimum(self.cacheable_gib.sum(axis=0), np.maximum(0.0, self.margin_gib[-1])))

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
    of_total = terms.fraction == "of_total"
    graphs_in_runtime_gib = 0.0 if of_total else c.graphs_in_runtime_gib
    logits_row_gib = gib(FLOAT32_BYTES * terms.vocab_size)
    rows = np.asarray(settings.max_batch_size, np.float64)
    # Warm-up samples a full batch however few requests come.
    full_batch_logits_gib = logits_row_gib * np.minimum(rows, settings.max_num_tokens) + zero
    peaks = step_peaks(terms, settings, full_batch_logits_gib, c)
    activations = peaks.needed + zero
    held = _Held(
        capacity=terms.capacity_gib + zero,
        weights=terms.weights_gib * c.weights_factor + zero,
        runtime=np.maximum(0.0, terms.runtime_gib - graphs_in_runtime_gib) * c.runtime_factor
        + np.where(_compiles(settings), terms.compiled_gib, zero),
        comm=terms.comm_gib + zero,
        activations=activations,
        profiling=peaks.profiled + zero,
        graphs=graphs_gib(settings.n_graphs, np.minimum(settings.largest_graph, settings.max_batch_size), c) + zero,
        fragments=c.fragmentation_base_gib * terms.fragmentation_base_factor
        + c.fragmentation_per_activation * activations,
    )
    budget = _budget_of_total(held, f) if of_total else f * held.free
    pool = np.maximum(0.0, budget if of_total else _pool_of_free(held, f, terms.kv_overpromise))
    first_block = gib(terms.kv_bytes_per_token) * settings.tokens_per_block + zero
    if settings.kv_pool_gib is not None:
        pool = first_block = np.asarray(settings.kv_pool_gib, np.float64) + zero
        budget = held.capacity - held.resident
    reserve = 0.0 if of_total else c.kv_block_reserve
    kv_tokens = kv_pool_tokens(pool * (1.0 - reserve), terms.kv_bytes_per_token, settings.tokens_per_block)

    if load is not None:
        rows = np.minimum(rows, np.minimum(load.requests, np.maximum(1, kv_tokens // np.asarray(load.request_tokens))))
    logits = (0.0 if of_total else c.logits_copies) * logits_row_gib * rows + zero
    regrown = (0.0 if of_total else c.recapture_share) * held.graphs
    temporary = 0.0 if of_total else _temporary_pool(held, f, terms.kv_bytes_per_token, settings.max_num_tokens)
    under_load = logits + regrown + held.fragments + (activations + peaks.attention if of_total else 0.0)
    tried = [
        held.weights,
        zero if of_total else held.graphs,
        held.profiling,
        first_block,
        held.graphs + regrown + c.capture_fragmentation_share * held.fragments,
        under_load,
    ]
    after_pool = held.capacity - held.resident - pool
    captured_before = zero if of_total else held.graphs
    # TensorRT-LLM's caching allocator still holds the warm-up's activations while capturing; vLLM empties its own.
    kept = zero if of_total else activations
    free_at = [
        held.capacity - held.runtime - held.comm,
        held.capacity - held.resident - temporary,
        held.capacity - held.resident - temporary - captured_before,
        budget,
        after_pool - kept,
        after_pool - kept - held.graphs,
    ]
    return MemoryBudget(
        capacity_gib=held.capacity,
        weights_gib=held.weights,
        activations_gib=activations,
        graphs_gib=held.graphs,
        runtime_gib=held.runtime,
        comm_gib=held.comm,
        logits_gib=logits,
        fragmentation_gib=regrown + held.fragments,
        attention_gib=peaks.attention + zero,
        kv_pool_gib=pool,
        kv_tokens=kv_tokens,
        tried_gib=np.stack(tried),
        free_gib=np.stack(free_at),
        profiling_gib=held.profiling,
        cacheable_gib=np.stack(
            [
                c.cached_activations_factor * terms.cached_per_activation * peaks.forward / c.activations_factor + zero,
                c.cached_logits_factor
                * np.maximum(0.0, terms.cached_logits_copies * full_batch_logits_gib - peaks.logits),
                c.cached_attention_factor * peaks.attention_kept + zero,
            ]
        ),
        pool_is_given=settings.kv_pool_gib is not None,
        fraction=terms.fraction,
    )


class _Held(NamedTuple):
    """GiB of one GPU before any pool."""

    capacity: Array
    weights: Array
    runtime: Array
    comm: Array
    activations: Array
    profiling: Array
    graphs: Array
    fragments: Array

    @property
    def resident(self) -> Array:
        return self.weights + self.runtime + self.comm

    @property
    def free(self) -> Array:
        """After profiling, as TensorRT-LLM counts it."""
        return self.capacity - self.resident - self.activations - self.graphs


def _pool_of_free(held: _Held, fraction: Array, overpromise: float) -> Array:
    return np.minimum(fraction * held.free * overpromise, fraction * (held.capacity - held.resident))


def _budget_of_total(held: _Held, fraction: Array) -> Array:
    return fraction * held.capacity - held.resident - held.profiling


def _temporary_pool(held: _Held, fraction: Array, kv_bytes_per_token: float, max_num_tokens: ArrayLike) -> Array:
    """TensorRT-LLM's pool of the profiling pass, which the engine caps as it caps the final one."""
    wanted = gib(kv_bytes_per_token) * np.asarray(max_num_tokens, np.float64)
    return np.minimum(wanted, np.maximum(0.0, fraction * (held.capacity - held.resident)))


def activations_gib(terms: MemoryTerms, max_num_tokens: ArrayLike, constants: MemoryConstants) -> Array:
    """Activation peak of a forward pass over `max_num_tokens` tokens."""
    linear = terms.activations_gib_per_token * np.asarray(max_num_tokens, np.float64)
    return np.asarray(constants.activations_factor * np.maximum(terms.activations_floor_gib, linear))


class StepPeaks(NamedTuple):
    """GiB of one step at its most: `logits` is what sampling needs beyond the `forward` pass, `attention` what partial
    results need beyond both, and `attention_kept` what they leave in the allocator's cache beyond that need.
    """

    forward: Array
    logits: Array
    attention: Array
    attention_kept: Array
    profiled: Array

    @property
    def needed(self) -> Array:
        """Of a server, once its graph is compiled."""
        return np.asarray(self.forward + self.logits)


def step_peaks(
    terms: MemoryTerms, settings: MemorySettings, full_batch_logits_gib: Array, constants: MemoryConstants
) -> StepPeaks:
    """Buffers of a step stay; beside them the forward pass, sampling and compiling the graph take turns.

    So only the largest of the three counts. Compiling is part of a start alone, and of one that has graphs.
    Steps that a graph could hold split their attention, whether or not they replay it. Their partial results take turns
    with the others too; but in the allocator's cache only the block of a full batch's logits is there to serve them.
    """
    forward = activations_gib(terms, settings.max_num_tokens, constants)
    kept = terms.activations_kept * forward
    logits = np.maximum(0.0, terms.sampled_logits_copies * full_batch_logits_gib - (forward - kept))
    rows = np.where(np.asarray(settings.n_graphs) > 0, np.minimum(settings.largest_graph, settings.max_num_tokens), 0)
    splits = terms.attention_split_gib_per_token * rows
    attention = np.maximum(0.0, splits - (forward - kept) - logits)
    compiling = np.where(_compiles(settings), kept + constants.compiling_factor * terms.compiling_gib, 0.0)
    profiled = np.maximum(forward + logits, compiling)
    return StepPeaks(forward, logits, attention, np.maximum(0.0, splits - full_batch_logits_gib - attention), profiled)


def _compiles(settings: MemorySettings) -> NDArray[np.bool_]:
    return np.asarray((np.asarray(settings.n_graphs) > 0) & (not settings.compiled))


def graphs_gib(n_graphs: ArrayLike, largest_graph: ArrayLike, constants: MemoryConstants) -> Array:
    """CUDA-graph pools of `n_graphs` captured sizes, which share one workspace as large as the largest batch needs.

    Args:
        n_graphs: Captured sizes.
        largest_graph: The largest batch that is replayed whole; vLLM's larger graphs are of pieces between attention.
        constants: Of the law.
    """
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


def p_fits(
    terms: MemoryTerms, settings: MemorySettings, constants: MemoryConstants, load: MemoryLoad | None = None
) -> Array:
    """Probability that no stage of any start runs out, given the known error of every constant.

    Constants are shifted by one standard deviation, one at a time; the headroom's changes add up in squares, and the
    headroom is taken as normal around its nominal value.
    """
    nominal = memory_budget(terms, settings, constants, load).of_any_start.headroom_gib
    variance = np.zeros_like(nominal)
    values = {field.name: getattr(constants, field.name) for field in fields(MemoryConstants)}
    for name, sigma in MEMORY_ERROR.items():
        shifted = MemoryConstants(**{**values, name: values[name] * math.exp(sigma)})
        variance += (memory_budget(terms, settings, shifted, load).of_any_start.headroom_gib - nominal) ** 2
    return normal_cdf(nominal / np.sqrt(np.maximum(variance, 1e-12)))
