"""Published sizing rules against hand arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.strict import changed
from advisor.domain.units import GIB_BYTES
from advisor.domain.workload import Workload, parse_workload
from advisor.search.sizing import aiconfigurator_sizing, bench_rounding, parameter_count, trtllm_bench_sizing
from advisor.store.catalog import model_facts

LLAMA_8B = model_facts("meta-llama/Meta-Llama-3.1-8B")
ONE_GPU = Deployment(model="meta-llama/Llama-3.1-8B", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)
MAVERICK = Deployment(
    model="nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8",
    quantization="fp8",
    gpu="b200_sxm",
    gpus=8,
    tp=8,
    ep=8,
    attention_dp=True,
)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", 8.03),
        ("meta-llama/Meta-Llama-3.1-70B", 70.55),
        ("meta-llama/Meta-Llama-3.1-405B", 405.85),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107.77),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.71),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-32B", 32.76),
        ("Qwen/Qwen3-235B-A22B", 235.09),
        ("deepseek-ai/DeepSeek-R1", 671.03),
        ("openai/gpt-oss-120b", 116.79),
        ("openai/gpt-oss-20b", 20.91),
        ("mistralai/Mixtral-8x7B-v0.1", 46.70),
    ],
)
def test_parameters_are_those_the_models_publish(model: str, billions: float) -> None:
    facts = model_facts(model)
    if "Llama-4" in model:
        facts = changed(facts, shared_experts=1)  # its published configuration does not state it
    assert parameter_count(facts) / 1e9 == pytest.approx(billions, rel=0.002)


def test_trtllm_bench_by_hand() -> None:
    # 8,029,995,008 weights x 2 B = 14.957 GiB of 80; (80 - 14.957) x 0.9 = 58.539 GiB for the KV cache.
    # A token takes 2 x 32 layers x 8 heads x 128 x 2 B = 131,072 B, a request of 2,048 tokens 0.25 GiB: 234.2 requests.
    # Batch: below 256, up to the next multiple of 32 = 256. Tokens: 234.2 x 2 = 468 -> at least 2,048.
    sized = trtllm_bench_sizing(ONE_GPU, LLAMA_8B, 80 * GIB_BYTES, parse_workload("1k1k"))
    assert (sized.max_batch_size, sized.max_num_tokens) == (256, 2048)
    assert (sized.cuda_graph_max_batch_size, sized.kv_cache_free_gpu_memory_fraction) == (256, 0.9)
    assert "234 requests" in sized.why


def test_trtllm_bench_makes_room_for_the_longest_prompt_without_chunking() -> None:
    # A request of 5,120 tokens takes 0.625 GiB: 93.7 requests -> 96; tokens 93.7 x 5 = 468 -> 2,048, below 4,096 + 96.
    workload = parse_workload("4k1k")
    assert trtllm_bench_sizing(ONE_GPU, LLAMA_8B, 80 * GIB_BYTES, workload).max_num_tokens == 4096 + 96
    chunked = changed(ONE_GPU, chunked_prefill=True)
    assert trtllm_bench_sizing(chunked, LLAMA_8B, 80 * GIB_BYTES, workload).max_num_tokens == 2048


def test_trtllm_bench_halves_the_cache_of_fp8_and_replicates_few_kv_heads() -> None:
    fp8 = changed(ONE_GPU, quantization="fp8")
    wide = changed(ONE_GPU, gpus=16, tp=16)
    facts = LLAMA_8B
    # weights 7.4785 GiB; (80 - 7.4785) x 0.9 / 0.125 = 522.2 -> 128 x 5 = 640
    assert trtllm_bench_sizing(fp8, facts, 80 * GIB_BYTES, parse_workload("1k1k")).max_batch_size == 640
    # 16 kv heads instead of 8: 0.5 GiB a request; (1,280 - 14.957) x 0.9 / 0.5 = 2,277.1 -> 256 x 9 = 2,304
    assert trtllm_bench_sizing(wide, facts, 80 * GIB_BYTES, parse_workload("1k1k")).max_batch_size == 2304


@pytest.mark.parametrize(("memory_gib", "words"), [(14, "weights of 15 GiB"), (15, "not hold one request")])
def test_trtllm_bench_refuses_what_cannot_fit(memory_gib: int, words: str) -> None:
    sized = trtllm_bench_sizing(ONE_GPU, LLAMA_8B, memory_gib * GIB_BYTES, parse_workload("1k1k"))
    assert sized.max_batch_size is None
    assert words in sized.why


def test_trtllm_bench_has_constants_for_other_quantizations() -> None:
    gpt = Deployment(model="openai/gpt-oss-120b", quantization="mxfp4", gpu="h100_sxm", gpus=1, tp=1)
    sized = trtllm_bench_sizing(gpt, model_facts("openai/gpt-oss-120b"), 80 * GIB_BYTES, parse_workload("1k1k"))
    assert (sized.max_batch_size, sized.max_num_tokens) == (2048, 8192)


@pytest.mark.parametrize(
    ("n_requests", "batch", "tokens"),
    [
        (1, 64, 2048),
        (64, 64, 2048),
        (65, 96, 2048),
        (255.5, 256, 2048),
        (256, 256, 2048),
        (257, 384, 2048),
        (1023.5, 1024, 2048),  # 2,047
        (1024.5, 1280, 2304),  # 2,049
        (2047, 2048, 4096),  # 4,094
        (2049, 2304, 4608),  # 4,098
        (4095.5, 4096, 8192),  # 8,191
        (9999, 4096, 8192),  # capped at 4,096 requests
    ],
)
def test_trtllm_bench_rounding_at_its_steps(n_requests: float, batch: int, tokens: int) -> None:
    assert bench_rounding(n_requests, 1000, 1000, 1) == (batch, tokens)


@given(st.floats(1, 1e5), st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from([1, 2, 4]))
def test_trtllm_bench_rounds_up_within_its_caps(n_requests: float, isl: int, osl: int, pp: int) -> None:
    batch, tokens = bench_rounding(n_requests, isl, osl, pp)
    assert min(n_requests, 4096) / pp <= batch <= max(64, 4096)
    assert min(min(n_requests, 4096) / pp * (1 + isl / osl), 32768) <= tokens <= 32768
    assert bench_rounding(2 * n_requests, isl, osl, pp) >= (batch, tokens)


@pytest.mark.parametrize(
    ("attention_dp", "concurrency", "batch", "tokens", "graphs"),
    [
        (True, 1024, 512, 6112, 512),  # 128 planned; 512 + 4,096 + 1,500 = 6,108 -> 32 x 191
        (False, 1024, 2048, 7648, 1032),  # 1,024 planned, doubled; 7,644 -> 32 x 239
        (False, 511, 512, 6112, 519),
        (False, 512, 1024, 6624, 520),
        (True, 1, 512, 6112, 512),
    ],
)
def test_aiconfigurator_by_hand(attention_dp: bool, concurrency: int, batch: int, tokens: int, graphs: int) -> None:
    deployment = changed(MAVERICK, attention_dp=attention_dp)
    sized = aiconfigurator_sizing(deployment, Workload(isl=4096, osl=1024, concurrency=concurrency))
    assert (sized.max_batch_size, sized.max_num_tokens, sized.cuda_graph_max_batch_size) == (batch, tokens, graphs)
    assert sized.kv_cache_free_gpu_memory_fraction == 0.8
