"""Real logs, of vLLM 0.24.0 on an H100 and 0.32.0 on a CPU: what probe and memory law make of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from advisor.app.forecast import Forecaster
from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import parse_workload
from advisor.engines.rule_book import RULES
from advisor.engines.vllm.probe import VllmProbe
from advisor.memory.profiled import memory_report

DATA = Path(__file__).parents[2] / "data"
H100_USABLE_GIB = 79.18
LLAMA = Deployment(
    model="meta-llama/Llama-3.1-8B-Instruct",
    quantization="bf16",
    gpu="h100_sxm",
    gpus=1,
    tp=1,
    engine="vllm",
    engine_version="0.24.0",
    chunked_prefill=True,
    max_seq_len=8192,
)
# log: max_num_seqs, max_num_batched_tokens, graphs, fraction; KV cache and graphs as the log states them, GiB
STARTS = {
    "a_default": ((1024, 8192, 512, 0.92), 56.51, 462_944, 0.98),
    "b_mns256_mbt8192_u90": ((256, 8192, 256, 0.90), 54.93, 449_968, 0.49),
    "d_mns64_mbt2048_u95": ((64, 2048, 64, 0.95), 58.98, 483_168, 0.18),
    "e_mns1024_mbt65536_u95": ((1024, 65536, 64, 0.95), 53.16, 435_488, 0.19),
    "g_mns128_mbt2048_u92": ((128, 2048, 128, 0.92), 56.61, 463_712, 0.29),
}


def probed(log: Path, total_gib: float | None, fraction: float | None = None) -> VllmProbe:
    probe, stream = VllmProbe(total_gib, fraction), RULES.stream()
    data = gzip.decompress(log.read_bytes()) if log.suffix == ".gz" else log.read_bytes()
    for event in (*stream.take(data), *stream.end()):
        probe.take(event)
    return probe


@pytest.mark.parametrize("name", STARTS)
def test_a_recorded_start_tells_memory_and_the_law_expected_it(name: str) -> None:
    settings, kv_gib, kv_tokens, graphs_gib = STARTS[name]
    told = probed(DATA / "engine_logs/vllm-0.24.0-h100" / f"{name}.log.gz", H100_USABLE_GIB).profiled()
    assert (told.weights, told.kv_pool, told.kv_tokens, told.cuda_graphs) == (15.0, kv_gib, kv_tokens, graphs_gib)
    batch, tokens, graphs, fraction = settings
    config = ServingConfig(
        max_batch_size=batch,
        max_num_tokens=tokens,
        cuda_graph_max_batch_size=graphs,
        kv_cache_free_gpu_memory_fraction=fraction,
    )
    budget = Forecaster(LLAMA, [parse_workload("1k1k_c256")]).twin.memory(LLAMA, config)
    assert float(budget.kv_pool_gib) == pytest.approx(kv_gib, abs=0.3)
    assert float(budget.graphs_gib) == pytest.approx(graphs_gib, abs=0.15)
    assert float(budget.headroom_gib) > 0, "it started and served"


def test_the_law_knows_that_the_recorded_crash_dies_under_load_and_not_before() -> None:
    """`c_oom_runtime`: up after 126 s, then 3.50 GiB tried with 2.78 free."""
    config = ServingConfig(
        max_batch_size=1024,
        max_num_tokens=65536,
        cuda_graph_max_batch_size=1024,
        kv_cache_free_gpu_memory_fraction=0.99,
    )
    budget = Forecaster(LLAMA, [parse_workload("4k1k_c512")]).twin.memory(LLAMA, config)
    assert int(budget.failing_stage) == len(budget.margin_gib) - 1
    assert float(budget.kv_pool_gib) == pytest.approx(56.33, abs=0.3)


def test_a_recorded_start_tells_what_is_in_effect() -> None:
    effective = probed(DATA / "engine_logs/vllm-0.24.0-h100/b_mns256_mbt8192_u90.log.gz", None).effective()
    assert effective is not None
    assert (effective.max_batch_size, effective.max_num_tokens, effective.max_seq_len) == (256, 8192, 8192)
    assert effective.kv_tokens == 449_968
    assert (len(effective.cuda_graph_sizes), effective.cuda_graph_sizes[-1]) == (35, 256)


def test_what_lies_between_weights_and_kv_cache_follows_from_the_fraction() -> None:
    """A fraction that equals the default is not among the arguments that vLLM logs."""
    log = DATA / "engine_logs/vllm-0.24.0-h100/a_default.log.gz"
    report = memory_report(probed(log, H100_USABLE_GIB, 0.92).profiled())
    assert report is not None
    assert report.activations == pytest.approx(0.92 * H100_USABLE_GIB - 15.0 - 56.51)
    assert (report.cuda_graphs, report.kv_pool, report.capacity) == (0.98, 56.51, H100_USABLE_GIB)
    assert probed(log, H100_USABLE_GIB).profiled().activations is None


def test_a_cpu_says_its_pool_in_bytes_and_captures_nothing() -> None:
    probe = probed(DATA / "vllm/cpu_0.32.0_start.log", None)
    told, effective = probe.profiled(), probe.effective()
    assert (told.kv_pool, told.kv_tokens, told.total) == (0.0625, 32_768, 8.96)
    assert effective is not None
    assert (effective.max_batch_size, effective.max_seq_len, effective.cuda_graph_sizes) == (8, 512, ())
