"""What looks wrong for a workload: each finding against the scheduler's own arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.app.suspicions import replayed, suspicions
from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import Workload
from advisor.engines.explained import Finding
from advisor.twin.graphs import captured_sizes, replayed_size

ONE_GPU = Deployment(model="any", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)


def found(
    deployment: Deployment = ONE_GPU,
    batch: int = 64,
    tokens: int = 8192,
    graphs: int = 64,
    isl: int = 1024,
    concurrency: int = 64,
    kv_tokens: int | None = None,
) -> dict[str, Finding]:
    config = ServingConfig(
        max_batch_size=batch,
        max_num_tokens=tokens,
        cuda_graph_max_batch_size=graphs,
        kv_cache_free_gpu_memory_fraction=0.9,
    )
    sizes = captured_sizes(graphs, padding=True, rule="ceil", max_batch_size=batch, max_num_tokens=tokens)
    workload = Workload(isl=isl, osl=1024, concurrency=concurrency)
    return {each.about: each for each in suspicions(deployment, config, workload, sizes, kv_tokens, {})}


def test_settings_that_match_the_load_look_right() -> None:
    assert found() == {}


def test_a_batch_against_the_load() -> None:
    assert "64 requests are in flight, so 32 wait" in found(batch=32, graphs=32)["max_batch_size"].message
    assert found(concurrency=63)["max_batch_size"].severity == "note"
    ranks = Deployment(model="any", quantization="bf16", gpu="h100_sxm", gpus=8, tp=8, attention_dp=True)
    assert "max_batch_size" not in found(ranks, concurrency=512), "64 on each of 8 ranks"


@given(beside=st.integers(-1, 70), running=st.integers(2, 64))
def test_a_prompt_that_fits_only_beside_few_decodes(beside: int, running: int) -> None:
    about = found(batch=running, graphs=running, concurrency=running, isl=1024, tokens=1024 + beside)
    fits_beside_all_others = beside >= running - 1
    refused = beside < 0  # the release's own rule says that
    assert ("max_num_tokens" in about) == (not refused and not fits_beside_all_others)


def test_the_pool_against_the_batch() -> None:
    about = "kv_cache_free_gpu_memory_fraction"
    assert about not in found(kv_tokens=64 * 2048)
    assert "holds 63 requests of 2,048" in found(kv_tokens=64 * 2048 - 1)[about].message
    assert about not in found(kv_tokens=2047), "not even one is an error, which the memory law tells"


def test_graphs_against_what_runs() -> None:
    about = "cuda_graph_max_batch_size"
    assert "off" in found(graphs=0)[about].message
    assert "batches of 33 to 64" in found(graphs=32)[about].message
    assert found(batch=256, graphs=256)[about].severity == "note"


@given(graphs=st.integers(1, 2048), batch=st.integers(1, 2048))
def test_the_size_that_is_replayed_is_the_schedulers(graphs: int, batch: int) -> None:
    sizes = captured_sizes(graphs, padding=True, rule="ceil", max_batch_size=2048, max_num_tokens=8192)
    if batch <= max(sizes):
        assert replayed(batch, sizes) == replayed_size(batch, sizes, padding=True)
