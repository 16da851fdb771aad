"""A start, phase by phase: memory is taken, lines are printed, time passes; any of it may go wrong."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from advisor.domain.outcome import Phase
from advisor.domain.units import gib
from advisor.twin.constants import STARTUP
from tests.standin import explain
from tests.standin.context import Context
from tests.standin.memory import Law, OutOfMemory, Profile, RankMemory, asked_tokens, pool_tokens

Pause = Callable[[Phase, float], None]
"""Called where time passes: the phase, and the share of its time."""


class StartFailed(Exception):
    """The start is over, and everything about it has been printed; the text is for the record."""


@dataclass(frozen=True)
class Started:
    """What a server that came up really uses."""

    kv_tokens: int
    max_seq_len: int
    graph_sizes: tuple[int, ...]


class Startup:
    """One start of all ranks, in TensorRT-LLM's order (two passes)."""

    def __init__(self, context: Context, law: Law, ranks: list[RankMemory], pause: Pause, window: int) -> None:
        self.settings, self.log, self.faults = context.settings, context.log, context.faults
        self.law, self.ranks, self.pause = law, ranks, pause
        self.release, self.sizes = self.settings.release, law.sizes
        self.window = self.settings.max_seq_len or window

    def run(self) -> Started:
        """Go through all phases.

        Raises:
            StartFailed: any component does not fit, or no sequence does.
        """
        self._load()
        self._first_pass()
        profiles = [self._profile(rank) for rank in self.ranks]
        for rank in self.ranks:
            rank.drop("temporary_kv", "graphs", "activations")
        tokens = self._final_pool(profiles)
        graphs = self._second_capture(tokens)
        return Started(tokens, min(self.window, tokens), graphs)

    # -- phases --------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        log, s, z = self.log, self.settings, self.sizes
        for _ in self.ranks:
            log.version(self.release.version)
        log.cpp("Refreshed the MPI local session")
        self.pause("launch", 1.0)
        for rank in self.ranks:
            log.info(
                f"ATTENTION RUNTIME FEATURES:  AttentionRuntimeFeatures(chunked_prefill={s.chunked_prefill}, "
                f"cache_reuse={s.block_reuse}, has_speculative_draft_tokens=False, chunk_size={s.max_num_tokens})",
                rank.number,
            )
            log.info(f"Use {z.weights:.2f} GB for model weights.", rank.number)
        self.pause("load", 0.5)
        for rank in self.ranks:
            with self._creating(rank, "model"):
                rank.take("runtime", z.runtime, "model")
                rank.take("weights", z.weights, "model")
        bars = [f"Loading weights: {share:3d}%|{'█' * (share // 10):10}| {share}/100" for share in (0, 50, 100)]
        log.raw("\r".join(bars))
        self.pause("load", 0.5)
        for rank in self.ranks:
            log.raw(f"Model init total -- {STARTUP.seconds('load', z.weights, 0):.2f}s")
            if s.max_seq_len is None:
                log.info(f"max_seq_len is not specified, using inferred value {self.window}", rank.number)
            with self._creating(rank, "sampler"):
                log.info("Using Sampler: TorchSampler", rank.number)

    def _first_pass(self) -> None:
        s, kv_bytes = self.settings, self.law.terms.kv_bytes_per_token
        if not s.kv_fraction < 1.0:
            self._fails(
                0, f"AssertionError: Invalid freeMemFraction, freeMemFraction {s.kv_fraction} must be smaller than 1.0"
            )
        for rank in self.ranks:
            room = max(0.0, s.kv_fraction * rank.free_gib)
            size = min(self.sizes.temporary_kv, room)
            blocks = -(-(s.max_num_tokens + 1) // s.tokens_per_block)
            tokens = blocks * s.tokens_per_block if size < room else int(size / gib(kv_bytes))
            self._pool_lines(rank, tokens, tokens)
            with self._creating(rank, "init_kv"):
                rank.take("temporary_kv", size, "init_kv")
            self._pool_allocated(rank, size, tokens)
            for name in ("spec", "drafter"):
                with self._creating(rank, name):
                    pass
            self._limits(rank, min(self.window, tokens))
        self.pause("kv_estimate", 0.4)
        for rank in self.ranks:
            with self._creating(rank, "init_extra"):
                self._autotune(rank)
                self._capture(rank, s.graph_sizes, self.window)
                rank.take("graphs", self.sizes.graphs, "init_extra")
        self.pause("kv_estimate", 0.4)

    def _profile(self, rank: RankMemory) -> Profile:
        """The dummy forward pass, and what it found."""
        s, z = self.settings, self.sizes
        foreign = rank.total_gib - rank.free_gib - rank.mine_gib
        with self._creating(rank, "model_extra"):
            rank.take("activations", z.activations, "model_extra")
        # The law's share of the pool that the block allocator keeps: the engine sees that memory as used, too.
        kept = self.law.constants.kv_block_reserve * (rank.free_gib + rank.held["temporary_kv"])
        profile = Profile(
            weights=z.weights,
            activations=z.activations,
            outside_torch=z.runtime + z.graphs + rank.held["temporary_kv"] + foreign + kept,
            outside_after_load=z.runtime + foreign,
            temporary_kv=rank.held["temporary_kv"],
            total=rank.total_gib,
            fraction=s.kv_fraction,
        )
        for line in _profile_lines(profile, self.law.estimated_kv_bytes):
            self.log.info(line, rank.number)
        return profile

    def _final_pool(self, profiles: list[Profile]) -> int:
        self.pause("kv_estimate", 0.2)
        small = self.faults.get("small_kv")
        asked = asked_tokens(profiles, self.law)
        if small:
            asked = min(asked, small["tokens"])
        for rank, profile in zip(self.ranks, profiles, strict=True):
            if self.release.estimate_in_tokens:
                self.log.info(f"Estimated max tokens in KV cache : {asked}", rank.number)
            else:
                self.log.info(f"Estimated max memory in KV cache : {profile.available_kv:.2f} GiB", rank.number)
        self.pause("kv_allocate", 0.5)
        tokens = pool_tokens(asked, self.ranks, self.law)
        if tokens < 2 * self.settings.tokens_per_block:
            self._fails(0, "AssertionError: Impossible to fit in any sequence in kvCache")
        size = gib(tokens * self.law.terms.kv_bytes_per_token)
        for rank in self.ranks:
            self._pool_lines(rank, asked, tokens)
            with self._creating(rank, "kv_cache"):
                rank.take("kv_pool", size / (1.0 - self.law.constants.kv_block_reserve), "kv_cache")
            self._pool_allocated(rank, size, tokens)
            self._limits(rank, min(self.window, tokens))
        self.pause("kv_allocate", 0.5)
        return tokens

    def _second_capture(self, tokens: int) -> tuple[int, ...]:
        s, z = self.settings, self.sizes
        blocks = tokens // s.tokens_per_block
        fits = tuple(size for size in s.graph_sizes if size <= blocks)
        graphs = fits if self.release.skips_graphs or fits == s.graph_sizes else ()
        self.pause("warm_up", 0.3)
        for rank in self.ranks:
            with self._creating(rank, "executor_extra"):
                self._autotune(rank)
                self._capture(rank, graphs, min(self.window, tokens), of=len(s.graph_sizes))
                short = z.activations - rank.free_gib
                rank.take("activations", min(z.activations, rank.free_gib), "executor_extra")
                pools = z.graphs + z.regrown if graphs else 0.0
                rank.take("graphs", pools + z.captured_fragments + max(0.0, short), "executor_extra")
            cap = rank.torch_gib + rank.free_gib - 32 / 1024
            self.log.info(f"Setting PyTorch memory fraction to {cap / rank.total_gib} ({cap} GiB)", rank.number)
        self.pause("warm_up", 0.7)
        return graphs

    # -- one rank ------------------------------------------------------------------------------------------------

    @contextmanager
    def _creating(self, rank: RankMemory, stage: str) -> Iterator[None]:
        """The creation of a component, as TensorRT-LLM watches over it."""
        before = rank.free_gib
        try:
            forced = self.faults.get("oom", stage=stage)
            if forced:
                rank.take("load", before + forced.get("short_gib", 0.5), stage)
            yield
        except OutOfMemory as error:
            explain.creation_oom(self.log, self.release, error, before)
            raise StartFailed(f"out of memory: {stage}") from None
        rank.created.append((stage, before, rank.free_gib))

    def _fails(self, rank: int, message: str) -> None:
        explain.creation_error(self.log, rank, message, "calculate_max_num_blocks")
        raise StartFailed(message)

    def _pool_lines(self, rank: RankMemory, asked: int, tokens: int) -> None:
        fraction = ctypes.c_float(self.settings.kv_fraction).value
        self.log.warning(
            f"Both free_gpu_memory_fraction and max_tokens are set (to {fraction} and {asked}, respectively). The "
            "smaller value will be used.",
            rank.number,
        )
        if self.window > tokens:
            for line in (
                f"Attention window size {self.window} exceeds upper bound {tokens} for available blocks. Reducing to "
                f"{tokens}.",
                f"Adjusted max_attention_window_vec to [{tokens}]",
                f"Adjusted window size {self.window} to {tokens} in blocks_per_window",
                f"Adjusted max_seq_len to {tokens}",
            ):
                self.log.warning(line, rank.number)

    def _pool_allocated(self, rank: RankMemory, size_gib: float, tokens: int) -> None:
        self.log.cpp(f"Number of tokens per block: {self.settings.tokens_per_block}.")
        self.log.cpp(f"[MemUsageChange] Allocated {size_gib:.2f} GiB for max tokens in paged KV cache ({tokens}).")

    def _limits(self, rank: RankMemory, max_seq_len: int) -> None:
        s = self.settings
        self.log.info(
            f"max_seq_len={max_seq_len}, max_num_requests={s.max_batch_size}, max_num_tokens={s.max_num_tokens}, "
            f"max_batch_size={s.max_batch_size}",
            rank.number,
        )

    def _autotune(self, rank: RankMemory) -> None:
        for line in ("Autotuning process starts ...", "Cache size after warmup is 28", "Autotuning process ends"):
            self.log.info(f"[Autotuner] {line}", rank.number)

    def _capture(self, rank: RankMemory, sizes: tuple[int, ...], max_seq_len: int, of: int | None = None) -> None:
        """One line a captured size; those that the KV pool has no room for are left out without a word."""
        count = len(sizes) if of is None else of
        if count:
            self.log.info(f"Creating CUDA graph instances for {count} batch sizes.", rank.number)
        for size in reversed(sizes):
            self.log.info(self.release.graph_line.format(size=size, max_seq_len=max_seq_len), rank.number)


def _profile_lines(profile: Profile, kv_bytes: float) -> tuple[str, ...]:
    p, during = profile, "in memory usage profiling"
    fraction = ctypes.c_float(p.fraction).value
    return (
        f"Memory used after loading model weights (inside torch) {during}: {p.weights:.2f} GiB",
        f"Memory used after loading model weights (outside torch) {during}: {p.outside_after_load:.2f} GiB",
        f"Memory dynamically allocated during inference (inside torch) {during}: {p.activations:.2f} GiB",
        f"Memory used outside torch (e.g., NCCL and CUDA graphs) {during}: {p.outside_torch:.2f} GiB",
        f"Peak memory during memory usage profiling (torch + non-torch): {p.peak:.2f} GiB, available KV cache memory "
        f"when calculating max tokens: {p.available_kv:.2f} GiB, fraction is set {fraction}, kv size is "
        f"{kv_bytes:.0f}. device total memory {p.total:.2f} GiB, , tmp kv_mem {p.temporary_kv:.2f} GiB",
    )
