"""Two published rules that size a server from a few facts, exactly as their authors have them.

They are baselines: what a careful person without a tuner would start from.
"""

from __future__ import annotations

import math

from advisor.domain.deployment import Deployment, ModelFacts
from advisor.domain.strict import StrictModel
from advisor.domain.units import gib, round_up
from advisor.domain.workload import Workload

_MLA_VALUE_DIM = 128  # DeepSeek's qk_nope_head_dim and v_head_dim


class Sizing(StrictModel):
    """Settings that a rule came to, or the reason why it came to none."""

    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    cuda_graph_max_batch_size: int | None = None
    kv_cache_free_gpu_memory_fraction: float | None = None
    why: str


def parameter_count(facts: ModelFacts) -> float:
    """Weights of the whole text model, norms and biases left out (below 0.1 %)."""
    h = facts.hidden_size
    moe_layers = (facts.moe_layers or facts.layers) if facts.is_moe else 0
    dense_ffn = 3.0 * h * (facts.intermediate_size or 0)
    expert_ffn = 3.0 * h * (facts.moe_intermediate_size or facts.intermediate_size or 0)
    routed = (facts.num_experts or 0) * (expert_ffn + h)  # the router has one row an expert
    shared = (facts.shared_experts or 0) * expert_ffn
    ffn = moe_layers * (routed + shared) + (facts.layers - moe_layers) * dense_ffn
    return facts.layers * _attention_parameters(facts) + ffn + 2.0 * h * facts.vocab_size


def _attention_parameters(facts: ModelFacts) -> float:
    h, heads = facts.hidden_size, facts.num_heads
    if not facts.is_mla:
        return float(h * facts.head_dim * 2 * (heads + facts.num_kv_heads))
    nope = value = _MLA_VALUE_DIM
    rope, kv_rank, q_rank = facts.qk_rope_head_dim or 0, facts.kv_lora_rank or 0, facts.q_lora_rank or 0
    query = q_rank * (h + heads * (nope + rope)) if q_rank else h * heads * (nope + rope)
    return float(query + h * (kv_rank + rope) + kv_rank * heads * (nope + value) + heads * value * h)


# --- trtllm-bench -------------------------------------------------------------------------------------------------

BENCH_KV_FRACTION = 0.9  # default of trtllm-bench's --kv_cache_free_gpu_mem_fraction, which it hands to the rule
_BENCH_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5}


def trtllm_bench_sizing(deployment: Deployment, facts: ModelFacts, gpu_memory_bytes: int, workload: Workload) -> Sizing:
    """What `trtllm-bench` sets when no sizes are given.

    It knows neither activations nor CUDA graphs nor attention DP nor latent attention, so it is optimistic by design.
    Source: TensorRT-LLM `tensorrt_llm/bench/build/tuning.py` (`calc_engine_setting`, `finetune_setting`), `build.py`
    (the constants for other quantizations) and `bench/benchmark/utils/general.py` (the room for the longest prompt).
    """
    isl = ((workload.isl_min or workload.isl) + workload.isl) / 2
    osl = ((workload.osl_min or workload.osl) + workload.osl) / 2
    if deployment.quantization not in _BENCH_BYTES:
        max_batch_size, max_num_tokens = 2048, 8192
        why = f"trtllm-bench has no rule for {deployment.quantization} weights and takes the engine's 2048 / 8192"
    else:
        n_gpus = deployment.tp * deployment.pp
        kv_gib_per_token = gib(
            2.0 * facts.layers * max(deployment.tp, facts.num_kv_heads) * facts.head_dim
            * (1.0 if deployment.kv_dtype == "fp8" else 2.0)
        )  # fmt: skip
        weights_gib = gib(parameter_count(facts) * _BENCH_BYTES[deployment.quantization])
        total_gib = gib(gpu_memory_bytes) * n_gpus
        if weights_gib > total_gib:
            return Sizing(why=f"trtllm-bench refuses: weights of {weights_gib:.0f} GiB on GPUs of {total_gib:.0f} GiB")
        n_requests = (total_gib - weights_gib) * BENCH_KV_FRACTION / (kv_gib_per_token * (isl + osl))
        if n_requests < 1:
            return Sizing(why="trtllm-bench refuses: the KV cache would not hold one request; it asks for more GPUs")
        max_batch_size, max_num_tokens = bench_rounding(n_requests, isl, osl, deployment.pp)
        why = f"trtllm-bench's sizing rule: it expects room for {n_requests:,.0f} requests"
    if not deployment.chunked_prefill and workload.isl + max_batch_size > max_num_tokens:
        max_num_tokens = workload.isl + max_batch_size
        why += f"; without chunked prefill it raises max_num_tokens to longest prompt + batch, {max_num_tokens:,}"
    return Sizing(
        max_batch_size=max_batch_size,
        max_num_tokens=max_num_tokens,
        cuda_graph_max_batch_size=max_batch_size,
        kv_cache_free_gpu_memory_fraction=BENCH_KV_FRACTION,
        why=why,
    )


def bench_rounding(n_requests: float, isl: float, osl: float, pp: int) -> tuple[int, int]:
    """(max_batch_size, max_num_tokens) from the requests that the KV cache holds: capped, then rounded up in steps."""
    batch = min(n_requests, 4096) / pp
    tokens = min(batch * (1 + isl / osl), 32768)
    if batch < 256:
        max_batch_size = max(64, 32 * math.ceil(batch / 32))
    else:
        step = 128 if batch < 1024 else 256
        max_batch_size = step * math.ceil(batch / step)
    if tokens < 4096:
        return max_batch_size, max(2048, 256 * math.ceil(tokens / 256))
    step = 512 if tokens < 8192 else 1024
    return max_batch_size, step * math.ceil(tokens / step)


# --- AIConfigurator -----------------------------------------------------------------------------------------------

_AIC_KV_FRACTION = 0.8  # default in its engine templates
_AIC_TOKENS_PER_BLOCK = 32


def aiconfigurator_sizing(deployment: Deployment, workload: Workload) -> Sizing:
    """What AIConfigurator writes for aggregated serving once it has chosen a batch.

    The batch it plans with is taken as the concurrency over the schedulers (0 for a request rate, which its rule
    treats as small). CUDA graphs: a list up to 512 and eight sizes around the batch; here its largest.
    Source: AIConfigurator `src/aiconfigurator/generator/rule_plugin/trtllm.rule` (17676b35, a2d8002e: the same lines)
    and `backend_templates/trtllm/extra_engine_args.1.2.0rc5.yaml.j2`.
    """
    planned = math.ceil((workload.concurrency or 0) / deployment.ranks_with_own_queue)
    max_batch_size = 512 if planned < 512 else 2 * planned
    return Sizing(
        max_batch_size=max_batch_size,
        max_num_tokens=round_up(max_batch_size + workload.isl + 1500, _AIC_TOKENS_PER_BLOCK),
        cuda_graph_max_batch_size=max(512, planned + 8),
        kv_cache_free_gpu_memory_fraction=_AIC_KV_FRACTION,
        why=f"AIConfigurator's rules for a planned batch of {planned:,} per scheduler",
    )
