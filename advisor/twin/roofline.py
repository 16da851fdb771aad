"""Step tables estimated from architecture numbers and a GPU's data sheet, for models without measured kernel data.

Every operation takes max(bytes / bandwidth, FLOPs / peak) plus a launch cost per kernel; collectives add their link
time. The efficiencies below are fitted, as medians, against all packaged measured tables (`benchmarks/twin_accuracy.py`
prints how far off they are); expect errors of tens of percent and use the result for orders of magnitude and rankings
only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import ModelFacts
from advisor.domain.units import gib
from advisor.memory.terms import MemoryTerms, kv_bytes_per_token, kv_overpromise
from advisor.twin.layout import Layout, QuantModes, TableKey
from advisor.twin.step_tables import StepTables

Array = NDArray[np.float64]

MEMORY_EFFICIENCY = 0.75
FLOPS_EFFICIENCY = 0.60
ATTENTION_EFFICIENCY = 0.45
EXPERT_IMBALANCE = 2.0  # the busiest rank's share of expert work over the mean, when compute bound
KERNEL_MS = 0.004
ATTENTION_KERNEL_MS = 0.009
PREFILL_ATTENTION_KERNEL_MS = 0.03
COLLECTIVE_MS = 0.012
KERNELS_PER_LAYER = 6

TOKENS = np.array([2**i for i in range(17)], dtype=np.float64)
BATCHES = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048], dtype=np.float64)
KV_LENS = np.array([16, 512, 2048, 8192, 32768, 131072], dtype=np.float64)
CHUNKS = np.array([16, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768], dtype=np.float64)
PASTS = np.array([0, 1024, 4096, 16384, 65536], dtype=np.float64)

_VALUE_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_static": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
_FOUR_BIT_BYTES = 0.53125  # MXFP4: 4 bits and one shared scale byte per 32


@dataclass(frozen=True)
class GpuSpec:
    """Data-sheet numbers of one GPU system; rates are dense, links one direction."""

    title: str
    memory_bytes: int
    memory_gb_per_s: float
    bf16_tflops: float
    fp8_tflops: float | None
    fp4_tflops: float | None
    link_gb_per_s: float
    sm_version: int
    runtime_gib: float
    comm_gib: dict[str, float]
    """By number of GPUs, written as text because it comes from JSON."""

    def tflops(self, quant: str) -> float:
        """Peak rate of matrix products whose operands have this quant mode; weight-only modes compute in bf16."""
        if quant in ("nvfp4", "w4a8_mxfp4_mxfp8") and self.fp4_tflops:
            return self.fp4_tflops
        if quant.startswith("fp8") and self.fp8_tflops:
            return self.fp8_tflops
        return self.bf16_tflops

    def comm(self, n_gpus: int) -> float:
        """GiB that communicators take on one of `n_gpus`."""
        return self.comm_gib[str(max(n for n in map(int, self.comm_gib) if n <= n_gpus))]


def roofline_tables(key: TableKey, facts: ModelFacts, gpu: GpuSpec) -> StepTables:
    """Estimated tables of one deployment, marked `roofline`."""
    layout, quant = key.layout, key.quant
    model = _Sizes(facts, layout, quant)
    tokens, batches = _linear_ms(model, gpu, TOKENS), _linear_ms(model, gpu, BATCHES)
    kv_per_token = rank_kv_bytes(facts, layout, quant)
    read = BATCHES[:, None] * KV_LENS[None, :] * kv_per_token
    chunk, past = CHUNKS[:, None], PASTS[None, :]
    flops = 4.0 * facts.layers * facts.num_heads / layout.tp * facts.head_dim * chunk * (past + chunk / 2.0)
    flops_ms = 1e-9 * flops / (gpu.tflops(quant.fmha) * ATTENTION_EFFICIENCY)
    return StepTables(
        key=key,
        data_source="roofline",
        memory=_memory_terms(facts, gpu, layout, model, kv_per_token),
        tokens=TOKENS,
        batches=BATCHES,
        kv_lens=KV_LENS,
        chunks=CHUNKS,
        pasts=PASTS,
        ctx_dense_ms=tokens,
        ctx_moe_ms=_moe_ms(model, gpu, TOKENS),
        ctx_attention_ms=facts.layers * PREFILL_ATTENTION_KERNEL_MS
        + np.maximum(flops_ms, _read_ms(gpu, (past + chunk) * kv_per_token)),
        gen_dense_ms=batches,
        gen_moe_ms=_moe_ms(model, gpu, BATCHES),
        gen_attention_ms=facts.layers * ATTENTION_KERNEL_MS + _read_ms(gpu, read),
        logits_ms=_matmul_ms(gpu, quant.gemm, model.head, BATCHES, value_bytes=2.0) + KERNEL_MS,
    )


def rank_kv_bytes(facts: ModelFacts, layout: Layout, quant: QuantModes) -> float:
    """KV-cache bytes of one token on one rank."""
    mla = (facts.kv_lora_rank or 0) + (facts.qk_rope_head_dim or 0) if facts.is_mla else None
    return kv_bytes_per_token(
        layers=facts.layers,
        kv_heads=facts.num_kv_heads,
        head_dim=facts.head_dim,
        tp=layout.tp,
        value_bytes=_VALUE_BYTES.get(quant.kvcache, 2.0),
        mla_width=mla,
    )


class _Sizes:
    """Parameters of one rank: `dense` and `head` are read by every step, experts only where tokens go."""

    def __init__(self, facts: ModelFacts, layout: Layout, quant: QuantModes) -> None:
        h, self.facts, self.layout, self.quant = facts.hidden_size, facts, layout, quant
        self.moe_layers = (facts.moe_layers or facts.layers) if facts.is_moe else 0
        self.expert = 3.0 * h * (facts.moe_intermediate_size or facts.intermediate_size or 4 * h)
        ffn = 3.0 * h * (facts.intermediate_size or 4 * h)
        shared = self.moe_layers * (facts.shared_experts or 0) * self.expert
        self.dense = (
            facts.layers * _attention_params(facts) + (facts.layers - self.moe_layers) * ffn + shared
        ) / layout.tp
        self.head = float(h * facts.vocab_size) / layout.tp
        self.experts_here = (facts.num_experts or 0) / layout.moe_ep

    def weights_gib(self) -> float:
        """Weights of one GPU; embeddings and the LM head stay in bf16."""
        experts = self.moe_layers * self.experts_here * self.expert / self.layout.moe_tp
        return gib(
            self.dense * weight_bytes(self.quant.gemm) + experts * weight_bytes(self.quant.moe) + 4.0 * self.head
        )


def weight_bytes(quant: str) -> float:
    """Bytes of one weight, with its scales."""
    return _VALUE_BYTES.get(quant, _FOUR_BIT_BYTES)


def _attention_params(facts: ModelFacts) -> float:
    h, heads, width = facts.hidden_size, facts.num_heads, facts.head_dim
    if not facts.is_mla:
        return float(h * width * (2 * heads + 2 * facts.num_kv_heads))
    rope, kv_rank, q_rank = facts.qk_rope_head_dim or 0, facts.kv_lora_rank or 0, facts.q_lora_rank or 0
    q = h * q_rank + q_rank * heads * (width + rope) if q_rank else h * heads * (width + rope)
    return float(q + h * (kv_rank + rope) + kv_rank * heads * 2 * width + heads * width * h)


def _read_ms(gpu: GpuSpec, n_bytes: Array | float) -> Array:
    return np.asarray(1e-6 * np.asarray(n_bytes) / (gpu.memory_gb_per_s * MEMORY_EFFICIENCY))


def _matmul_ms(gpu: GpuSpec, quant: str, params: float, rows: Array, value_bytes: float) -> Array:
    compute = 2e-9 * params * rows / (gpu.tflops(quant) * FLOPS_EFFICIENCY)
    return np.maximum(compute, _read_ms(gpu, params * value_bytes))


def _collective_ms(gpu: GpuSpec, n_gpus: int, n_bytes: Array) -> Array:
    if n_gpus == 1:
        return np.zeros_like(n_bytes)
    return COLLECTIVE_MS + 1e-6 * 2.0 * (n_gpus - 1) / n_gpus * n_bytes / gpu.link_gb_per_s


def _linear_ms(model: _Sizes, gpu: GpuSpec, rows: Array) -> Array:
    layers, quant = model.facts.layers, model.quant.gemm
    matmul = _matmul_ms(gpu, quant, model.dense, rows, weight_bytes(quant))
    n_reduces = 2.0 * layers - model.moe_layers  # the experts' own is counted with them
    reduce_ms = n_reduces * _collective_ms(gpu, model.layout.tp, rows * model.facts.hidden_size * 2.0)
    return np.asarray(matmul + reduce_ms + layers * KERNELS_PER_LAYER * KERNEL_MS)


def _moe_ms(model: _Sizes, gpu: GpuSpec, rows: Array) -> Array:
    """Experts: all ranks' tokens, `experts_per_token` each; a rank reads the experts that are hit."""
    if not model.moe_layers:
        return np.zeros_like(rows)
    facts, layout, quant = model.facts, model.layout, model.quant.moe
    n_experts = float(facts.num_experts or 1)
    routed = rows * layout.attention_dp * (facts.experts_per_token or 1)
    hit = model.experts_here * (1.0 - (1.0 - 1.0 / n_experts) ** routed)
    share = model.expert / layout.moe_tp
    compute = 2e-9 * EXPERT_IMBALANCE * share * routed / layout.moe_ep / (gpu.tflops(quant) * FLOPS_EFFICIENCY)
    per_layer = np.maximum(compute, _read_ms(gpu, hit * share * weight_bytes(quant))) + 4 * KERNEL_MS
    dispatch = _collective_ms(gpu, layout.n_gpus, rows * layout.attention_dp * facts.hidden_size * 2.0)
    return np.asarray(model.moe_layers * (per_layer + dispatch))


_ACTIVATION_DENSE = {1: 11.0, 2: 6.5}
_ACTIVATION_MOE = {1: 22.0, 2: 13.0}


def _memory_terms(facts: ModelFacts, gpu: GpuSpec, layout: Layout, model: _Sizes, kv_per_token: float) -> MemoryTerms:
    """AIConfigurator's activation rule: 2 x tokens x heads x head_dim x c; more where tokens visit several experts."""
    width = facts.num_heads * facts.head_dim
    spread = (facts.experts_per_token or 1) > 1
    c = _ACTIVATION_MOE.get(layout.tp, 10.0) if spread else _ACTIVATION_DENSE.get(layout.tp, 5.0)
    per_token = 2.0 * width * c
    if spread:
        routed = (facts.num_experts or 0) * (facts.experts_per_token or 1)
        per_token += facts.hidden_size * layout.attention_dp * routed / layout.moe_ep / 128.0 * 4.0
    return MemoryTerms(
        weights_gib=model.weights_gib(),
        activations_floor_gib=70.0 / 1024.0,
        activations_gib_per_token=gib(per_token),
        runtime_gib=gpu.runtime_gib,
        comm_gib=gpu.comm(layout.n_gpus),
        kv_bytes_per_token=kv_per_token,
        capacity_gib=gib(gpu.memory_bytes),
        vocab_size=facts.vocab_size,
        kv_overpromise=1.0
        if facts.is_mla
        else kv_overpromise(kv_heads=facts.num_kv_heads, head_dim=facts.head_dim, tp=layout.tp),
    )
