"""Constants of the memory law that no table states; the twin's constants extend them.

`assumed` = nobody measured it for this purpose; `measured` = met published KV capacities (benchmarks/twin_accuracy.py).
`MEMORY_ERROR` says how wrong each may be, as one relative standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from advisor.domain.deployment import HOPPER

MemoryFraction = Literal["of_free", "of_total"]
"""What an engine's memory fraction is a fraction of: what is free after profiling, or the whole GPU."""


@dataclass(frozen=True)
class MemoryConstants:
    """Nominal values; GiB of one GPU where the name says so."""

    # Multipliers on AIConfigurator's terms, which meet 72 measured KV capacities with 0.66 % mean error.
    weights_factor: float = 1.0
    activations_factor: float = 1.0
    runtime_factor: float = 1.0
    # Assumed: AIConfigurator's runtime term (3.5 GiB) was set on servers with the default graph ladder (19 sizes, up to
    # 128); that much of it is graphs, which the law counts on their own.
    graphs_in_runtime_gib: float = 0.322
    # Assumed: graph pool = base + per captured size + per row of the largest captured batch.
    graph_base_gib: float = 0.08
    graph_per_size_gib: float = 0.006
    graph_per_row_gib: float = 0.001
    # Assumed: share of the graph pool that the second capture cannot place where the first one was.
    recapture_share: float = 0.3
    # Assumed: copies of rows x vocabulary x 4 B that sampling holds (float32 logits, probabilities, sort space).
    logits_copies: float = 2.5
    # Assumed: what the allocator cannot give back: a base and a share of the activation peak; half by capture time.
    fragmentation_base_gib: float = 0.35
    fragmentation_per_activation: float = 0.35
    capture_fragmentation_share: float = 0.5
    # Measured: the block allocator keeps this share of the KV pool (without it the same 72 points err by 1.39 %).
    kv_block_reserve: float = 0.015
    # Multiplier on what compiling the graph takes, as `EngineMemory` has it.
    compiling_factor: float = 1.0
    # Multipliers on what PyTorch keeps cached under load, as `EngineMemory` has it.
    cached_activations_factor: float = 1.0
    cached_logits_factor: float = 1.0
    cached_attention_factor: float = 1.0


@dataclass(frozen=True)
class EngineMemory:
    """Where an engine's memory differs from the tables', which are about TensorRT-LLM; None = as the tables say.

    `seen_gib` is what it sees of one GPU, by system key, where that was read; of others it sees `capacity_share`.
    Of the activations the share `activations_kept` are buffers that stay. Beside them sampling takes
    `sampled_logits_copies` of a full batch's logits in float32, and compiling the graph, in a start that does,
    `compiling_gib`; `compiled_gib` beside that stays as long as that server lives. `fragmentation_base_factor` is on
    the base of what a server cannot give back.
    On a GPU of `split_gpus`, which are beginnings of system keys, attention works in `attention_splits` parts where a
    step has no more tokens than the largest graph, with partial results in float32 of each.
    PyTorch's allocator keeps blocks under load beyond what the server needs: `cached_per_activation` of the activation
    peak, `cached_logits_copies` of those logits, and what those partial results took; 0 where nobody measured it.
    """

    fraction: MemoryFraction = "of_free"
    capacity_share: float = 1.0
    seen_gib: Mapping[str, float] = field(default_factory=dict)
    runtime_gib: float | None = None
    activations_factor: float = 1.0
    activations_kept: float = 0.0
    sampled_logits_copies: float = 0.0
    compiling_gib: float = 0.0
    compiled_gib: float = 0.0
    fragmentation_base_factor: float = 1.0
    cached_per_activation: float = 0.0
    cached_logits_copies: float = 0.0
    attention_splits: int = 0
    split_gpus: tuple[str, ...] = ()


TRTLLM_MEMORY = EngineMemory()
# Measured: vLLM 0.24.0 with Llama-3.1-8B, 95 starts on H100s and H200s (1,024 to 32,768 tokens a step, batches of 96
# to 1,024), and one of 65,536 tokens. What torch sees of a GPU each of them told. What profiling found beside the
# weights is 0.26 + 0.15 A + max(0.85 A, 1.5 copies of a full batch's logits, 0.885 where the graph is compiled), and
# 0.055 more where it is, within 0.023 GiB, A being 1.225 x the tables' activations.
# Under load the 73 launches that differ took 1.65 x the base of fragmentation (0.58 GiB, 0.23 of it beyond what is
# assumed elsewhere), and cached 9 % of the activations, 1.7 copies of logits less what a step needs of them, and the
# partial results of attention but for a full batch's logits, within 0.44 GiB (0.15 rms; least squares: 1.51, 0.09, 1.85
# and 1.03 times those results; the H200s alone 1.54, 0.09, 1.80 and 1.04; the 13 on H100s cannot tell them apart).
VLLM_MEMORY = EngineMemory(
    fraction="of_total",
    capacity_share=0.9898,  # as of the H100; of the H200 0.9915
    seen_gib={"h100_sxm": 79.179, "h200_sxm": 139.801},
    runtime_gib=0.26,
    activations_factor=1.225,
    activations_kept=0.15,
    sampled_logits_copies=1.5,
    compiling_gib=0.885,
    compiled_gib=0.055,
    fragmentation_base_factor=1.65,
    cached_per_activation=0.09,
    cached_logits_copies=1.7,
    # `flash_attn_max_num_splits_for_cuda_graph`, of FlashAttention 3, which is Hopper's.
    attention_splits=32,
    split_gpus=HOPPER,
)


MEMORY_ERROR: dict[str, float] = {
    "weights_factor": 0.01,
    "activations_factor": 0.20,
    "runtime_factor": 0.12,
    "graph_base_gib": 0.30,
    "graph_per_size_gib": 0.40,
    "graph_per_row_gib": 0.40,
    "recapture_share": 0.40,
    "logits_copies": 0.30,
    "fragmentation_base_gib": 0.40,
    "fragmentation_per_activation": 0.40,
    "kv_block_reserve": 0.30,
    "compiling_factor": 0.20,  # assumed: one model's
}

CACHED_ERROR: dict[str, float] = {
    "cached_activations_factor": 0.40,
    "cached_logits_factor": 0.40,
    "cached_attention_factor": 0.40,
}
"""The same of what is only cached: no margin knows of it."""
