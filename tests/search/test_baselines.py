"""Named baselines: what each is, for whom it is, and that none vanishes without a word."""

from __future__ import annotations

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.search.baselines import BASELINE_NAMES, Baseline, baseline_named, baselines
from advisor.store.catalog import curated, gpu_facts, model_facts

DEFAULT = ServingConfig(
    max_batch_size=2048, max_num_tokens=8192, cuda_graph_max_batch_size=128, kv_cache_free_gpu_memory_fraction=0.9
)
MAVERICK = Deployment(
    model="nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8",
    quantization="fp8",
    gpu="b200_sxm",
    gpus=8,
    tp=8,
    ep=8,
    attention_dp=True,
    stream_interval=4,
)
GUIDE_WORKLOAD = Workload(isl=1024, osl=2048, concurrency=1024)


def known(deployment: Deployment, workload: Workload) -> tuple[Baseline, ...]:
    facts, gpu = model_facts(deployment.model), gpu_facts(deployment.gpu)
    return baselines(deployment, facts, gpu, workload, DEFAULT, curated())


def named(name: str, deployment: Deployment, workload: Workload) -> Baseline:
    return baseline_named(name, known(deployment, workload))


@pytest.mark.parametrize(
    ("model", "quantization", "gpu", "tp", "ep"),
    [
        ("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8", "fp8", "b200_sxm", 8, 8),
        ("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8", "fp8", "h100_sxm", 8, 8),
        ("meta-llama/Llama-3.1-8B-Instruct", "bf16", "h100_sxm", 1, 1),
        ("nvidia/Llama-3.3-70B-Instruct-FP8", "fp8", "h200_sxm", 4, 1),
        ("openai/gpt-oss-120b", "mxfp4", "b200_sxm", 8, 8),
        ("Qwen/Qwen3-8B", "bf16", "h100_sxm", 1, 1),
    ],
)
@pytest.mark.parametrize("shape", ["1k1k", "1k8k", "4k1k", "8k1k", "1k1k_r5", "3000to4096-100_c7"])
def test_every_baseline_is_there_with_its_reason(
    model: str, quantization: str, gpu: str, tp: int, ep: int, shape: str
) -> None:
    fields = {"model": model, "quantization": quantization, "gpu": gpu, "gpus": tp, "tp": tp, "ep": ep}
    found = known(Deployment.model_validate(fields), parse_workload(shape))
    assert tuple(baseline.name for baseline in found) == BASELINE_NAMES
    assert all(len(baseline.why) > 10 for baseline in found)


def test_default_is_the_engines() -> None:
    assert named("default", MAVERICK, GUIDE_WORKLOAD).config == DEFAULT


def test_guide_for_its_own_deployment_changes_no_option() -> None:
    guide = named("guide", MAVERICK, GUIDE_WORKLOAD)
    assert guide.config == ServingConfig(
        max_batch_size=1024, max_num_tokens=8192, cuda_graph_max_batch_size=1024, kv_cache_free_gpu_memory_fraction=0.9
    )
    assert "llama4/README.md" in guide.why


def test_guide_states_the_options_in_which_it_differs_from_the_study() -> None:
    guide = named("guide", changed(MAVERICK, attention_dp=False, stream_interval=1), GUIDE_WORKLOAD)
    assert guide.config is not None
    assert guide.config.options == {"enable_attention_dp": True, "stream_interval": 4}


def test_guide_covers_longer_prompts_than_it_was_written_for_and_says_so() -> None:
    llama = Deployment(model="nvidia/Llama-3.3-70B-Instruct-FP8", quantization="fp8", gpu="h200_sxm", gpus=1, tp=1)
    guide = named("guide", llama, parse_workload("4k1k"))
    assert guide.config is not None
    assert guide.config.max_num_tokens == 4096
    assert "raised from 2,048" in guide.why
    chunked = named("guide", changed(llama, chunked_prefill=True), parse_workload("4k1k"))
    assert chunked.config is not None
    assert chunked.config.max_num_tokens == 2048
    assert "raised" not in chunked.why


def test_model_without_recipe_or_publication_says_so() -> None:
    qwen = Deployment(model="Qwen/Qwen3-8B", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)
    for name, words in (("guide", "no recipe"), ("curated", "no published configuration")):
        baseline = named(name, qwen, parse_workload("1k1k"))
        assert baseline.config is None
        assert words in baseline.why


def test_curated_is_the_readmes_later_revision_for_the_guides_workload() -> None:
    found = named("curated", MAVERICK, GUIDE_WORKLOAD)
    assert found.config is not None
    assert (found.config.max_batch_size, found.config.cuda_graph_max_batch_size) == (512, 512)
    assert (found.config.max_num_tokens, found.config.kv_cache_free_gpu_memory_fraction) == (8192, 0.9)  # not stated
    assert found.config.options == {"stream_interval": 2}
    assert "README: max throughput" in found.why
    assert "0.0 octaves" in found.why


def test_curated_says_how_far_it_is() -> None:
    found = named("curated", changed(MAVERICK, gpu="h200_sxm"), parse_workload("4k1k_c1024"))
    assert "GPU B200 instead of H200" in found.why
    assert "ISL 1024 instead of 4096" in found.why


def test_what_cannot_fit_is_no_bench_baseline() -> None:
    alone = changed(MAVERICK, gpus=1, tp=1, ep=1)
    bench = named("trtllm-bench", alone, GUIDE_WORKLOAD)
    assert bench.config is None
    assert "refuses" in bench.why


def test_unknown_name_is_helped() -> None:
    with pytest.raises(BadInput, match="Did you mean 'guide'"):
        baseline_named("guid", known(MAVERICK, GUIDE_WORKLOAD))
