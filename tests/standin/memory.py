"""What each rank holds of its GPU, and how that runs out: the memory law applied to the fake GPUs as a start goes on.

Sizes come from `advisor.memory.law` with the constants of a drawn world; what is free comes from the fake GPU, so that
co-tenants and leaks count.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from advisor.domain.units import from_gib, gib
from advisor.memory.law import available_kv_gib, kv_pool_tokens, memory_budget
from advisor.memory.terms import MemoryLoad, MemorySettings, MemoryTerms
from advisor.twin.constants import TwinConstants
from tests.standin.fake_gpus import FakeGpus
from tests.standin.settings import Settings

_LAST_FREE_GIB = 0.25
"""Free when an allocation fails: what fits was taken before it, piece by piece."""
_HAIR_GIB = 1e-6


@dataclass(frozen=True)
class Stage:
    """A component as the memory report names it: for people, in lists, and what may help."""

    friendly: str
    value: str
    advice: str = ""


_SHARD = (
    "reduce max_num_tokens and/or shard the model weights across GPUs by enabling pipeline and/or tensor parallelism"
)
STAGES = {
    "model": Stage("Model", "model", _SHARD),
    "sampler": Stage("Sampler", "sampler", "reduce max_seq_len and/or max_attention_window_size"),
    "init_kv": Stage("", "_no_capture_init_kv_cache", "reduce max_num_tokens"),
    "spec": Stage(
        "Speculative decoding resources", "spec_resource_manager", "reduce max_seq_len and/or max_batch_size"
    ),
    "drafter": Stage("Drafter", "drafter", "reduce max_seq_len and/or max_draft_len"),
    "init_extra": Stage(
        "Additional executor resources (temporary for KV cache size estimation)",
        "_no_capture_init_extra_resources",
        "reduce max_num_tokens",
    ),
    "model_extra": Stage("Model resources created during usage", "model_extra", "reduce max_num_tokens"),
    "kv_cache": Stage("KV cache", "kv_cache", "reduce free_gpu_memory_fraction"),
    "executor_extra": Stage("Additional executor resources", "executor_extra", "reduce max_num_tokens"),
}
"""In the order of creation; the first KV cache is named per release."""


class OutOfMemory(Exception):
    """An allocation on one rank's GPU failed; GiB as a CUDA out-of-memory message gives them."""

    def __init__(self, rank: RankMemory, stage: str, tried_gib: float, free_gib: float) -> None:
        super().__init__(stage)
        self.rank, self.stage, self.tried_gib, self.free_gib = rank, stage, tried_gib, free_gib
        self.total_gib, self.mine_gib, self.torch_gib = rank.total_gib, rank.mine_gib, rank.torch_gib

    def __str__(self) -> str:
        return (
            f"CUDA out of memory. Tried to allocate {_amount(self.tried_gib)}. GPU {self.rank.number} has a total "
            f"capacity of {self.total_gib:.2f} GiB of which {_amount(self.free_gib)} is free. Including non-PyTorch "
            f"memory, this process has {_amount(self.mine_gib)} memory in use. Of the allocated memory "
            f"{_amount(self.torch_gib)} is allocated by PyTorch, and {_amount(0.0)} is reserved by PyTorch but "
            "unallocated. If reserved but unallocated memory is large try setting "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
            "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
        )


def _amount(gibibytes: float) -> str:
    """As PyTorch writes a size."""
    return f"{gibibytes:.2f} GiB" if gibibytes >= 1.0 else f"{gibibytes * 1024:.2f} MiB"


@dataclass
class RankMemory:
    """One worker's share of one GPU."""

    gpus: FakeGpus
    number: int
    gpu: int
    pid: int
    held: dict[str, float] = field(default_factory=dict)
    created: list[tuple[str, float, float]] = field(default_factory=list)
    """Stages that succeeded, with the GiB free before and after."""

    @property
    def total_gib(self) -> float:
        return gib(self.gpus.number(self.gpu, "total_bytes") - self.gpus.number(self.gpu, "reserved_bytes"))

    @property
    def free_gib(self) -> float:
        return gib(self.gpus.free_bytes(self.gpu))

    @property
    def mine_gib(self) -> float:
        return sum(self.held.values())

    @property
    def torch_gib(self) -> float:
        """What the caching allocator would hold: neither the KV pool nor CUDA's own."""
        return sum(self.held.get(name, 0.0) for name in ("weights", "activations", "load"))

    def take(self, component: str, size_gib: float, stage: str) -> None:
        """Allocate; what cannot be had whole is taken as far as it goes.

        Raises:
            OutOfMemory: tried and free differ by what is missing.
        """
        with self._locked():
            free = self.free_gib
            short = size_gib - free
            if short > _HAIR_GIB:
                left = min(max(free, 0.0), _LAST_FREE_GIB)
                self._hold(component, max(free, 0.0) - left)
                raise OutOfMemory(self, stage, short + left, left)
            self._hold(component, size_gib)

    def drop(self, *components: str) -> None:
        """Give back."""
        for component in components:
            self.held.pop(component, None)
        self._write()

    def _hold(self, component: str, size_gib: float) -> None:
        self.held[component] = self.held.get(component, 0.0) + max(0.0, size_gib)
        self._write()

    def _write(self) -> None:
        self.gpus.hold(self.gpu, round(from_gib(self.mine_gib)), self.pid)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two processes that allocate at once see each other."""
        with (self.gpus.folder(self.gpu) / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class Sizes:
    """GiB of one rank by component, from the law; all but the KV pool are fixed before the start."""

    weights: float
    runtime: float
    temporary_kv: float
    graphs: float
    activations: float
    profiling: float
    """In place of the activations while profiling: more where the graph is compiled."""
    regrown: float
    captured_fragments: float
    """Of the second capture, like `regrown`."""
    fragments: float


class Law:
    """The memory law for one launch's settings."""

    def __init__(self, terms: MemoryTerms, settings: Settings, constants: TwinConstants) -> None:
        self.terms, self.constants, self.settings = terms, constants, settings
        self._settings = MemorySettings(
            max_batch_size=settings.max_batch_size,
            max_num_tokens=settings.max_num_tokens,
            kv_fraction=settings.kv_fraction,
            n_graphs=len(settings.graph_sizes),
            largest_graph=max(settings.graph_sizes, default=0),
            tokens_per_block=settings.tokens_per_block,
        )
        budget = memory_budget(terms, self._settings, constants)
        graphs = float(budget.graphs_gib)
        regrown = constants.recapture_share * graphs
        fragments = float(budget.fragmentation_gib) - regrown
        self.sizes = Sizes(
            weights=float(budget.weights_gib),
            runtime=float(budget.runtime_gib + budget.comm_gib),
            temporary_kv=gib(terms.kv_bytes_per_token) * settings.max_num_tokens,
            graphs=graphs,
            activations=float(budget.activations_gib),
            profiling=float(budget.profiling_gib),
            regrown=regrown,
            captured_fragments=constants.capture_fragmentation_share * fragments,
            fragments=fragments,
        )

    @property
    def estimated_kv_bytes(self) -> float:
        """KV bytes of a token as the engine estimates them, which is too little where KV heads are replicated."""
        return self.terms.kv_bytes_per_token / self.terms.kv_overpromise

    def logits_gib(self, rows: int) -> float:
        """Sampling buffers of `rows` requests."""
        load = MemoryLoad(requests=rows, request_tokens=1)
        return float(memory_budget(self.terms, self._settings, self.constants, load).logits_gib)


@dataclass(frozen=True)
class Profile:
    """What the profiling pass of one rank found, GiB; the budget formula of the log holds among these."""

    weights: float
    activations: float
    outside_torch: float
    outside_after_load: float
    temporary_kv: float
    total: float
    fraction: float

    @property
    def peak(self) -> float:
        return self.weights + self.activations + self.outside_torch

    @property
    def available_kv(self) -> float:
        return available_kv_gib(self.total, self.peak, self.temporary_kv, self.fraction)


def asked_tokens(profiles: list[Profile], law: Law) -> int:
    """Tokens that every rank asks its KV pool for: the least of what the ranks estimate, and the stated limits."""
    s = law.settings
    limits = [int(from_gib(each.available_kv) / law.estimated_kv_bytes + 1e-6) for each in profiles]
    if s.kv_max_bytes:
        limits.append(int(s.kv_max_bytes / law.estimated_kv_bytes))
    if s.kv_max_tokens is not None:
        limits.append(s.kv_max_tokens)
    return max(0, min(limits))


def pool_tokens(asked: int, ranks: list[RankMemory], law: Law) -> int:
    """Tokens of the pool: what was asked for, within the fraction of what is free now, in whole blocks."""
    usable = law.settings.kv_fraction * (1.0 - law.constants.kv_block_reserve)
    fitting = min(int(from_gib(usable * rank.free_gib) / law.terms.kv_bytes_per_token) for rank in ranks)
    pool_gib = gib(min(asked, fitting) * law.terms.kv_bytes_per_token)
    return int(kv_pool_tokens(pool_gib, law.terms.kv_bytes_per_token, law.settings.tokens_per_block))


class LoadMemory:
    """What serving takes beyond the start: sampling buffers of the most rows seen, and fragmentation."""

    def __init__(
        self, law: Law, ranks: list[RankMemory], *, each_its_own: bool, forced: Mapping[str, Any] | None = None
    ) -> None:
        self.law, self.ranks, self.each_its_own, self.forced = law, ranks, each_its_own, forced
        self.most_rows = [0] * len(ranks)

    def check(self, queue: int, rows: int) -> None:
        """A step with `rows` requests of one scheduler: its own rank's under attention DP, else every rank's.

        Raises:
            OutOfMemory: at stage `serve`.
        """
        for number in (queue,) if self.each_its_own else range(len(self.ranks)):
            if rows > self.most_rows[number]:
                rank, sizes = self.ranks[number], self.law.sizes
                need = self.law.logits_gib(rows) + sizes.fragments - sizes.captured_fragments
                more = need - rank.held.get("load", 0.0)
                if self.forced and rows >= self.forced.get("rows", 1):
                    more = rank.free_gib + self.forced.get("short_gib", 0.5)
                rank.take("load", more, "serve")
                self.most_rows[number] = rows
