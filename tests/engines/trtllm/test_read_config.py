"""Reading a person's own file: the inverse of writing ours, and the spellings found in the wild."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import changed
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import default_config, dialect
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.words import as_mapping
from tests.engines.trtllm.builders import EVERY_RELEASE, MAVERICK, RELEASES, configs, deployments, sayable


def four(config: ServingConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in FOUR_SETTINGS}


@given(release=st.sampled_from(EVERY_RELEASE), deployment=deployments, asked=configs)
def test_what_we_write_reads_back_as_what_we_meant(release: str, deployment: Deployment, asked: ServingConfig) -> None:
    spoken, (deployment, asked) = dialect(release), sayable(release, deployment, asked)
    document = as_mapping(to_yaml(spoken, deployment, asked, 5120))
    argv = to_argv(spoken, deployment, asked, 5120, host="127.0.0.1", port=8000, config_path="a.yml")
    read = config_from_yaml(document, spoken, deployment, argv).config
    assert four(read) == four(asked)
    # the file cannot say "no MoE backend", so the study's stays; nothing else may differ
    meant, got = deployment.with_options(asked.options), deployment.with_options(read.options)
    assert changed(got, kv_cache_dtype="auto") == changed(meant, kv_cache_dtype="auto")
    assert got.kv_dtype == meant.kv_dtype
    extra = {"num_postprocess_workers", "attn_backend"}
    assert {k: v for k, v in read.options.items() if k in extra} == {
        k: v for k, v in asked.options.items() if k in extra
    }


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_blank_is_the_engines_default(release: str) -> None:
    plain = changed(MAVERICK, attention_dp=False, stream_interval=1)
    read = config_from_yaml({}, dialect(release), plain)
    assert read.config == default_config(dialect(release))
    assert read.notes == ()


def test_silence_about_what_the_study_fixes_is_the_engines_default_and_is_said() -> None:
    read = config_from_yaml({"max_batch_size": 64}, dialect("1.2.0"), MAVERICK)
    assert read.config.options == {"enable_attention_dp": False, "stream_interval": 1}
    assert [note for note in read.notes if "enable_attention_dp" in note]


GUIDE_OF_OLD = """
enable_attention_dp: true
stream_interval: 4
cuda_graph_config:
  max_batch_size: 1024
  padding_enabled: true
"""


def test_the_guides_own_yaml_is_valid_in_no_stable_release_but_is_understood() -> None:
    read = config_from_yaml(yaml.safe_load(GUIDE_OF_OLD), dialect("1.2.0"), MAVERICK)
    assert read.config == changed(default_config(dialect("1.2.0")), cuda_graph_max_batch_size=1024)
    assert read.notes == (
        "TensorRT-LLM 1.2.0 does not accept 'cuda_graph_config.padding_enabled'; "
        "write cuda_graph_config.enable_padding. It was read as meant.",
    )


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_the_guides_own_command_is_read_with_its_dangling_backslash(release: str) -> None:
    command = "trtllm-serve m --backend pytorch --max_batch_size 1024 --tp_size 8 --ep_size 8 --trust_remote_code \\"
    read = config_from_yaml(yaml.safe_load(GUIDE_OF_OLD), dialect(release), MAVERICK, command.split())
    assert read.config.max_batch_size == 1024


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        ("kv_cache_free_gpu_mem_fraction: 0.7", "kv_cache_free_gpu_memory_fraction", 0.7),
        ("kv_cache_free_gpu_memory_fraction: 0.7", "kv_cache_free_gpu_memory_fraction", 0.7),
        ("kv_cache_config: {free_gpu_memory_fraction: 0.7}", "kv_cache_free_gpu_memory_fraction", 0.7),
        ("use_cuda_graph: true", "cuda_graph_max_batch_size", 128),
        ("use_cuda_graph: true\ncuda_graph_max_batch_size: 96", "cuda_graph_max_batch_size", 96),
        ("pytorch_backend_config: {cuda_graph_max_batch_size: 96}", "cuda_graph_max_batch_size", 96),
        ("use_cuda_graph: false\ncuda_graph_max_batch_size: 96", "cuda_graph_max_batch_size", 0),
        ("cuda_graph_config: null", "cuda_graph_max_batch_size", 0),
        ("cuda_graph_config: {}", "cuda_graph_max_batch_size", 128),
        ("cuda_graph_config: {max_batch_size: 0}", "cuda_graph_max_batch_size", 128),
        ("cuda_graph_config: {batch_sizes: [1, 2, 384]}", "cuda_graph_max_batch_size", 384),
        ("build_config: {max_batch_size: 77}", "max_batch_size", 77),
        ("max_num_tokens: 3072", "max_num_tokens", 3072),
    ],
)
@pytest.mark.parametrize("release", RELEASES)
def test_spellings_in_the_wild(release: str, text: str, setting: str, value: float) -> None:
    assert getattr(config_from_yaml(yaml.safe_load(text), dialect(release), MAVERICK).config, setting) == value


def test_graphs_stay_off_where_sizes_do_not_switch_them_on() -> None:
    plain = changed(MAVERICK, stream_interval=1)
    read = config_from_yaml({"cuda_graph_max_batch_size": 96}, dialect("0.21.0"), plain)
    assert read.config.cuda_graph_max_batch_size == 0
    assert any("until the file says use_cuda_graph: true" in note for note in read.notes)


def test_sizes_that_1_0_0_ignores_are_taken_with_a_word_and_typed_ones_win() -> None:
    old, document = dialect("1.0.0"), {"max_batch_size": 64}
    read = config_from_yaml(document, old, MAVERICK)
    assert read.config.max_batch_size == 64
    assert any("ignores 'max_batch_size'" in note for note in read.notes)
    argv = ["trtllm-serve", "m", "--max_batch_size", "256"]
    assert config_from_yaml(document, old, MAVERICK, argv).config.max_batch_size == 256
    assert config_from_yaml(document, dialect("1.1.0"), MAVERICK, argv).config.max_batch_size == 64
    assert config_from_yaml({}, dialect("1.1.0"), MAVERICK, ["--max_batch_size=256"]).config.max_batch_size == 256


def test_what_cannot_be_taken_over_is_said() -> None:
    document = yaml.safe_load(
        """
        tensor_parallel_size: 4
        speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 1}
        max_batchsize: 3
        num_postprocess_workers: 4
        kv_cache_config: {tokens_per_blok: 64}
        """
    )
    read = config_from_yaml(document, dialect("1.2.0"), changed(MAVERICK, attention_dp=False, stream_interval=1))
    said = " | ".join(read.notes)
    assert "tensor_parallel_size 4 was not taken over: the study fixes it at 8" in said
    assert "speculative_config was not taken over" in said
    assert "'max_batchsize'. Did you mean 'max_batch_size'?" in said
    assert "'kv_cache_config.tokens_per_blok'" in said
    assert read.config.options == {"num_postprocess_workers": 4}


@pytest.mark.parametrize(
    "text",
    [
        "max_batch_size: many",
        "max_batch_size: 0",
        "kv_cache_config: {free_gpu_memory_fraction: 90}",
        "cuda_graph_config: {batch_sizes: 12}",
        "stream_interval: often",
        "num_postprocess_workers: two",
        "[1, 2]",
    ],
)
def test_what_cannot_be_meant_is_one_paragraph(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        config_from_yaml(yaml.safe_load(text), dialect("1.2.0"), MAVERICK)
    assert "\n" not in str(caught.value)
