"""From what people call a model, a precision and a parallel layout to the key of a step table."""

from __future__ import annotations

import re
from typing import NamedTuple

from advisor.domain.deployment import HOPPER


class Layout(NamedTuple):
    """Parallel sizes in AIConfigurator's terms: `tp * attention_dp == moe_tp * moe_ep`, or moe sizes 1 (dense)."""

    tp: int = 1
    attention_dp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1

    @property
    def n_gpus(self) -> int:
        """GPUs of one pipeline stage."""
        return self.tp * self.attention_dp


class QuantModes(NamedTuple):
    """AIConfigurator's quant-mode names, which decide accuracy (a wrong one costs up to 28 points of TPOT error)."""

    gemm: str
    moe: str
    kvcache: str
    fmha: str


class TableKey(NamedTuple):
    """What one step table is for."""

    model: str
    system: str
    layout: Layout
    quant: QuantModes


def layout_of(*, tp: int, ep: int, attention_dp: bool, is_moe: bool) -> Layout:
    """TensorRT-LLM's sizes as AIConfigurator spells them: its `tp 8` with attention DP is `tp 1, attention_dp 8`."""
    moe_tp, moe_ep = (tp // ep, ep) if is_moe else (1, 1)
    return Layout(1, tp, moe_tp, moe_ep) if attention_dp else Layout(tp, 1, moe_tp, moe_ep)


_SAME_ARCHITECTURE: tuple[tuple[str, str], ...] = (
    (r"llama-3\.[13]-70b|nemotron-70b", "meta-llama/Meta-Llama-3.1-70B"),
    (r"llama-3\.1-8b", "meta-llama/Meta-Llama-3.1-8B"),
    (r"llama-3\.1-405b", "meta-llama/Meta-Llama-3.1-405B"),
    (r"llama-4-maverick", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"),
    (r"llama-4-scout", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
    (r"deepseek-(?:r1|v3(?:\.1)?)(?!\.2|-distill|-lite)", "deepseek-ai/DeepSeek-R1"),
    (r"qwen3-32b", "Qwen/Qwen3-32B"),
    (r"gpt-oss-120b", "openai/gpt-oss-120b"),
    (r"gpt-oss-20b", "openai/gpt-oss-20b"),
)


def table_model(name: str) -> str:
    """The model whose tables and architecture numbers stand for `name`: quantised and instruct variants share them."""
    for pattern, model in _SAME_ARCHITECTURE:
        if re.search(pattern, name, re.IGNORECASE):
            return model
    return name


def quant_modes(model: str, quantization: str, kv_dtype: str, system: str, engine: str = "trtllm") -> QuantModes:
    """The mode names that reproduce published measurements best.

    Args:
        model: As returned by `table_model`.
        quantization: bf16, fp8, fp8_block, nvfp4 or mxfp4.
        kv_dtype: bf16 or fp8.
        system: GPU key; Hopper and Blackwell run gpt-oss differently.
        engine: vLLM computes the attention of prompts in bf16, whatever the cache holds.

    Source: AIConfigurator's names scored against its silicon sample (benchmarks/twin_accuracy.py repeats it).
    """
    modes = _trtllm_modes(model, quantization, kv_dtype, system)
    return modes._replace(fmha="bfloat16") if engine == "vllm" else modes


def _trtllm_modes(model: str, quantization: str, kv_dtype: str, system: str) -> QuantModes:
    kvcache = "fp8" if kv_dtype == "fp8" else "bfloat16"
    if "gpt-oss" in model:
        hopper = system.startswith(HOPPER)
        moe, fmha = ("w4a16_mxfp4", "bfloat16") if hopper else ("w4a8_mxfp4_mxfp8", kvcache)
        return QuantModes("bfloat16", moe, kvcache, fmha)
    if "DeepSeek" in model:
        weights = "nvfp4" if quantization == "nvfp4" else "fp8_block"
        return QuantModes(weights, weights, kvcache, "bfloat16")
    if quantization == "fp8":
        return QuantModes("fp8" if "Qwen3-32B" in model else "fp8_static", "fp8", kvcache, kvcache)
    weights = {"bf16": "bfloat16", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "mxfp4": "w4a16_mxfp4"}[quantization]
    return QuantModes(weights, weights, kvcache, kvcache)
