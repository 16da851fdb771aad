"""What the memory law is asked about: a deployment's needs before any setting is chosen, the settings, and the load."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.typing import ArrayLike

from advisor.domain.units import gib
from advisor.memory.constants import EngineMemory, MemoryFraction

FLOAT32_BYTES = 4  # sampling and attention's partial results, whatever the model's type


@dataclass(frozen=True)
class MemoryTerms:
    """What one deployment needs of one GPU before any setting is chosen.

    `attention_split_gib_per_token` is of all parts in which attention works on a step, of one part before `under`.
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
    fraction: MemoryFraction = "of_free"
    activations_kept: float = 0.0
    sampled_logits_copies: float = 0.0
    compiling_gib: float = 0.0
    compiled_gib: float = 0.0
    fragmentation_base_factor: float = 1.0
    cached_per_activation: float = 0.0
    cached_logits_copies: float = 0.0
    attention_split_gib_per_token: float = 0.0

    def under(self, engine: EngineMemory, gpu: str) -> MemoryTerms:
        """These terms of the tables as an engine has them on a GPU, by its system key."""
        return replace(
            self,
            fraction=engine.fraction,
            capacity_gib=engine.seen_gib.get(gpu, self.capacity_gib * engine.capacity_share),
            runtime_gib=self.runtime_gib if engine.runtime_gib is None else engine.runtime_gib,
            activations_gib_per_token=self.activations_gib_per_token * engine.activations_factor,
            activations_kept=engine.activations_kept,
            sampled_logits_copies=engine.sampled_logits_copies,
            compiling_gib=engine.compiling_gib,
            compiled_gib=engine.compiled_gib,
            fragmentation_base_factor=engine.fragmentation_base_factor,
            cached_per_activation=engine.cached_per_activation,
            cached_logits_copies=engine.cached_logits_copies,
            attention_split_gib_per_token=self.attention_split_gib_per_token
            * (engine.attention_splits if gpu.startswith(engine.split_gpus) else 0),
        )


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
    kv_pool_gib: ArrayLike | None = None
    """Size of the pool where it is given outright, whatever the fraction."""
    compiled: bool = False
    """Whether the engine finds its graph compiled; one that it has to compile takes more, which is the safe guess."""


@dataclass(frozen=True)
class MemoryLoad:
    """What the benchmark asks of one rank at most: requests in flight, and the KV tokens that each reserves."""

    requests: ArrayLike
    request_tokens: ArrayLike


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


def attention_split_gib(*, heads: int, head_dim: int) -> float:
    """GiB of one token's partial results in one split of attention on one rank: output and log-sum-exp in float32."""
    return gib(heads * (head_dim + 1) * FLOAT32_BYTES)
