"""Names and layouts that people write, and the table they lead to."""

from __future__ import annotations

import pytest

from advisor.twin.layout import Layout, layout_of, quant_modes, table_model


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"),
        ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("nvidia/DeepSeek-R1-NVFP4", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-V3.2", "deepseek-ai/DeepSeek-V3.2"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("someone/else", "someone/else"),
    ],
)
def test_variants_share_the_tables_of_their_architecture(name: str, model: str) -> None:
    assert table_model(name) == model


@pytest.mark.parametrize(
    ("tp", "ep", "attention_dp", "is_moe", "layout"),
    [
        (8, 8, False, True, Layout(8, 1, 1, 8)),
        (8, 8, True, True, Layout(1, 8, 1, 8)),
        (8, 1, False, True, Layout(8, 1, 8, 1)),
        (4, 2, False, True, Layout(4, 1, 2, 2)),
        (4, 1, False, False, Layout(4, 1, 1, 1)),
    ],
)
def test_layouts_keep_every_gpu_busy(tp: int, ep: int, attention_dp: bool, is_moe: bool, layout: Layout) -> None:
    found = layout_of(tp=tp, ep=ep, attention_dp=attention_dp, is_moe=is_moe)
    assert found == layout
    assert found.n_gpus == tp
    assert not is_moe or found.moe_tp * found.moe_ep == tp


@pytest.mark.parametrize(
    ("model", "quantization", "kv_dtype", "system", "modes"),
    [
        ("meta-llama/Meta-Llama-3.1-70B", "fp8", "fp8", "h200_sxm", ("fp8_static", "fp8", "fp8", "fp8")),
        ("Qwen/Qwen3-32B", "fp8", "fp8", "h100_sxm", ("fp8", "fp8", "fp8", "fp8")),
        ("deepseek-ai/DeepSeek-R1", "fp8", "fp8", "h200_sxm", ("fp8_block", "fp8_block", "fp8", "bfloat16")),
        ("deepseek-ai/DeepSeek-R1", "nvfp4", "fp8", "b200_sxm", ("nvfp4", "nvfp4", "fp8", "bfloat16")),
        ("openai/gpt-oss-120b", "mxfp4", "fp8", "h200_sxm", ("bfloat16", "w4a16_mxfp4", "fp8", "bfloat16")),
        ("openai/gpt-oss-120b", "mxfp4", "fp8", "b200_sxm", ("bfloat16", "w4a8_mxfp4_mxfp8", "fp8", "fp8")),
        ("meta-llama/Meta-Llama-3.1-8B", "bf16", "bf16", "h100_sxm", ("bfloat16",) * 4),
        ("meta-llama/Meta-Llama-3.1-8B", "bf16", "fp8", "h100_sxm", ("bfloat16", "bfloat16", "fp8", "fp8")),
    ],
)
def test_quant_mode_names(
    model: str, quantization: str, kv_dtype: str, system: str, modes: tuple[str, str, str, str]
) -> None:
    assert tuple(quant_modes(model, quantization, kv_dtype, system)) == modes
    assert tuple(quant_modes(model, quantization, kv_dtype, system, "vllm")) == (*modes[:3], "bfloat16")
