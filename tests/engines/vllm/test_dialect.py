"""vLLM's words: the file says what was meant on every release, and what vLLM refuses is refused before a launch."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.engines.spoken import spoken
from advisor.engines.vllm.releases import releases
from advisor.engines.vllm.spoken import vllm_dialect
from advisor.engines.words import as_mapping
from advisor.store import catalog
from advisor.twin.graphs import captured_sizes

LLAMA = Deployment(
    model="meta-llama/Llama-3.1-8B-Instruct",
    quantization="bf16",
    gpu="h100_sxm",
    gpus=1,
    tp=1,
    engine="vllm",
    engine_version="0.24.0",
    chunked_prefill=True,
)
WORKLOAD = parse_workload("1k1k_c64")
RELEASES = [row.release for row in releases()]
configs = st.builds(
    ServingConfig,
    max_batch_size=st.integers(1, 1024),
    max_num_tokens=st.integers(1024, 32768),
    cuda_graph_max_batch_size=st.integers(0, 1024),
    kv_cache_free_gpu_memory_fraction=st.sampled_from([0.5, 0.9, 0.95]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "stream_interval": st.integers(1, 16),
            "enable_block_reuse": st.booleans(),
            "kv_cache_dtype": st.sampled_from(["auto", "fp8", "bf16"]),
            "block_size": st.sampled_from([16, 32]),
            "async_scheduling_is_no_option": st.nothing(),
        },
    ),
)


@given(release=st.sampled_from(RELEASES), config=configs)
def test_a_file_reads_back_as_the_configuration_it_was_written_for(release: str, config: ServingConfig) -> None:
    dialect = vllm_dialect(release)
    document = as_mapping(dialect.entries(LLAMA, config, 2048))
    read = dialect.read(document, LLAMA).config
    assert read.model_dump(exclude={"options"}) == config.model_dump(exclude={"options"})
    assert LLAMA.with_options(read.options) == LLAMA.with_options(config.options)
    assert False not in document.values(), "some releases drop what is false"


def test_the_defaults_are_those_of_the_recorded_launch_and_go_by_the_gpu() -> None:
    """`a_default.log`: one H100, no flags: 1,024 sequences, 8,192 tokens, graphs up to 512, 0.92."""
    default = vllm_dialect("0.24.0").default_config(catalog.gpu_facts("h100_sxm"))
    assert list(default.flat().values()) == [1024, 8192, 512, 0.92]
    assert vllm_dialect("0.24.0").default_config(catalog.gpu_facts("l4")).max_batch_size == 256
    assert vllm_dialect("0.24.0").default_config(catalog.gpu_facts("a100_sxm")).max_num_tokens == 2048
    assert vllm_dialect("0.32.0").default_config(catalog.gpu_facts("b200_sxm")).max_num_tokens == 16384
    assert vllm_dialect("0.32.0+cpu").default_config(catalog.gpu_facts("cpu")).max_batch_size == 128


@pytest.mark.parametrize(("largest", "n_sizes"), [(64, 11), (128, 19), (256, 35), (512, 51), (1024, 83)])
def test_graph_sizes_are_those_that_the_recorded_launches_captured(largest: int, n_sizes: int) -> None:
    sizes = captured_sizes(largest, padding=True, rule="vllm", max_batch_size=64, max_num_tokens=8192)
    assert len(sizes) == n_sizes
    assert sizes[-1] == largest
    assert captured_sizes(512, padding=True, rule="vllm", max_batch_size=64, max_num_tokens=100)[-2:] == (96, 100)


@pytest.mark.parametrize(
    ("deployment", "settings", "rule"),
    [
        (LLAMA, {"max_batch_size": 256, "max_num_tokens": 128}, "max_num_batched_tokens_below_max_num_seqs"),
        (changed(LLAMA, chunked_prefill=False), {"max_num_tokens": 1024}, "max_num_batched_tokens_below_max_model_len"),
        (LLAMA, {"options": {"no_such_option": 1}}, "release"),
        (LLAMA, {"options": {"block_size": "many"}}, "release"),
        (changed(LLAMA, graph_padding=False), {}, "release"),
    ],
)
def test_what_vllm_refuses_is_refused_before_a_launch(
    deployment: Deployment, settings: dict[str, object], rule: str
) -> None:
    dialect = vllm_dialect("0.24.0")
    config = changed(dialect.default_config(catalog.gpu_facts("h100_sxm")), **settings)
    found = dialect.violations(deployment, config, [WORKLOAD], 2048)
    assert [each.rule for each in found if each.severity == "error"] == [rule]


def test_data_parallel_attention_and_experts() -> None:
    moe = changed(LLAMA, model="deepseek-ai/DeepSeek-R1", gpus=8, tp=8, ep=8, attention_dp=True)
    dialect = vllm_dialect("0.24.0")
    document = as_mapping(dialect.entries(moe, dialect.default_config(catalog.gpu_facts("h200_sxm")), 2048))
    assert (document["tensor-parallel-size"], document["data-parallel-size"]) == (1, 8)
    assert document["enable-expert-parallel"] is True
    with pytest.raises(BadInput, match="all ranks or none"):
        dialect.check_deployment(changed(moe, ep=4))


def test_environment_options_do_not_stand_in_the_file() -> None:
    dialect = vllm_dialect("0.32.0")
    config = changed(
        dialect.default_config(catalog.gpu_facts("h100_sxm")), options={"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    )
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in as_mapping(dialect.entries(LLAMA, config, 2048))
    assert dialect.environment(LLAMA, config) == {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


def test_a_version_speaks_the_older_neighbour_and_says_so() -> None:
    assert spoken("vllm", "0.24.0").warning is None
    between = spoken("vllm", "0.27.1")
    assert (between.release, "not one of the known" in str(between.warning)) == ("0.24.0", True)
    assert "newer" in str(spoken("vllm", "0.40.0").warning)
    with pytest.raises(BadInput, match="older than every release"):
        spoken("vllm", "0.6.0")


def test_the_benchmark_sends_what_the_workload_says() -> None:
    argv = vllm_dialect("0.24.0").benchmark_argv(
        LLAMA, parse_workload("3000to4000-700_c64"), host="h", port=1, seed=3, result_filename="r.json"
    )
    said = dict(pairwise(argv))
    assert (said["--random-input-len"], said["--random-output-len"]) == ("3500", "700")
    assert said["--random-range-ratio"] == '{"input": 0.142857, "output": 0.0}'
    assert said["--max-concurrency"] == "64"
    assert said["--temperature"] == "0"  # advisor's own requests are greedy
