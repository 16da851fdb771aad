"""What is handed to the server, checked key by key against the facts of each release."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.words import as_mapping
from tests.engines.trtllm.builders import (
    FACTS,
    GUIDE,
    MAVERICK,
    WITH_FACTS,
    WITHOUT_STREAM_INTERVAL,
    config,
    configs,
    deployments,
    sayable,
)

PYTHON_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}


def accepts(fact: dict[str, Any], value: object) -> bool:
    """Would the argument class of the release take this value?"""
    kind, _, optional = fact["type"].partition("|")
    if value is None:
        return bool(optional)
    if isinstance(value, bool) and kind != "bool":
        return False
    return isinstance(value, PYTHON_TYPES[kind]) and ("choices" not in fact or value in fact["choices"])


@given(release=st.sampled_from(WITH_FACTS), deployment=deployments, asked=configs, max_seq_len=st.integers(1, 10**6))
def test_every_entry_is_legal_in_its_release(
    release: str, deployment: Deployment, asked: ServingConfig, max_seq_len: int
) -> None:
    facts, (deployment, asked) = FACTS[release], sayable(release, deployment, asked)
    document = as_mapping(to_yaml(dialect(release), deployment, asked, max_seq_len))
    for top, value in document.items():
        if isinstance(value, dict):
            members = facts["sub_configs"][facts["llm_args"][top]["ref"]]
            assert all(accepts(members[name], inner) for name, inner in value.items())
        elif top == "cuda_graph_config":
            assert value is None
            assert asked.cuda_graph_max_batch_size == 0
        else:
            assert accepts(facts["llm_args"][top], value)


@given(release=st.sampled_from(WITH_FACTS), deployment=deployments, asked=configs)
def test_every_flag_is_known_to_its_release(release: str, deployment: Deployment, asked: ServingConfig) -> None:
    deployment, asked = sayable(release, deployment, asked)
    argv = to_argv(dialect(release), deployment, asked, 5120, host="127.0.0.1", port=8000, config_path="a.yml")
    facts = FACTS[release]["serve_flags"]
    assert argv[:2] == ("trtllm-serve", deployment.model)
    rest = list(argv[2:])
    while rest:
        fact = facts[rest.pop(0)]
        if fact["type"] != "flag":
            value = rest.pop(0)
            assert "choices" not in fact or value in fact["choices"]


@given(release=st.sampled_from(WITH_FACTS), deployment=deployments, asked=configs)
def test_settings_in_both_places_agree(release: str, deployment: Deployment, asked: ServingConfig) -> None:
    spoken, (deployment, asked) = dialect(release), sayable(release, deployment, asked)
    document = as_mapping(to_yaml(spoken, deployment, asked, 5120))
    argv = to_argv(spoken, deployment, asked, 5120, host="127.0.0.1", port=8000, config_path="a.yml")
    words = [word for word in argv[2:] if word != "--trust_remote_code"]
    typed = dict(zip(words[::2], words[1::2], strict=True))
    assert ("--trust_remote_code" in argv) == document.get("trust_remote_code", False) == deployment.trust_remote_code
    assert int(typed["--tp_size"]) == document["tensor_parallel_size"] == deployment.tp
    assert int(typed["--pp_size"]) == document["pipeline_parallel_size"] == deployment.pp
    assert int(typed["--ep_size"]) == document["moe_expert_parallel_size"] == deployment.ep
    assert (
        float(typed["--kv_cache_free_gpu_memory_fraction"]) == document["kv_cache_config"]["free_gpu_memory_fraction"]
    )
    for name, value in (
        ("max_batch_size", asked.max_batch_size),
        ("max_num_tokens", asked.max_num_tokens),
        ("max_seq_len", 5120),
    ):
        assert int(typed[f"--{name}"]) == value
        # where the file is not obeyed, one that held them would mislead whoever reads it
        assert document.get(name) == (value if release in ("1.1.0", "1.2.0", "1.3.0rc", "main") else None)


def test_the_guides_deployment_is_spelled_as_in_the_guide() -> None:
    argv = to_argv(dialect("1.2.0"), MAVERICK, GUIDE, 3072, host="0.0.0.0", port=8001, config_path="./x.yml")
    line = " ".join(argv)
    assert line == (
        "trtllm-serve nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8 --backend pytorch --max_batch_size 1024 "
        "--max_num_tokens 8192 --max_seq_len 3072 --tp_size 8 --pp_size 1 --ep_size 8 "
        "--kv_cache_free_gpu_memory_fraction 0.9 --trust_remote_code --extra_llm_api_options ./x.yml "
        "--host 0.0.0.0 --port 8001"
    )


def test_options_of_the_configuration_override_the_study() -> None:
    asked = config(options={"enable_attention_dp": False, "stream_interval": 9, "enable_chunked_prefill": True})
    document = as_mapping(to_yaml(dialect("1.2.0"), MAVERICK, asked, 3072))
    assert (document["enable_attention_dp"], document["stream_interval"]) == (False, 9)
    assert document["enable_chunked_prefill"] is True


def test_graphs_off_is_null_and_not_zero_which_would_mean_the_default() -> None:
    document = as_mapping(to_yaml(dialect("1.2.0"), MAVERICK, config(cuda_graph_max_batch_size=0), 3072))
    assert document["cuda_graph_config"] is None


def test_bf16_cache_is_auto_for_a_bf16_checkpoint_and_cannot_be_had_for_an_fp8_one() -> None:
    bf16 = changed(MAVERICK, quantization="bf16", kv_cache_dtype="bf16")
    assert as_mapping(to_yaml(dialect("1.2.0"), bf16, GUIDE, 3072))["kv_cache_config"]["dtype"] == "auto"
    with pytest.raises(BadInput, match="bf16 KV cache"):
        to_yaml(dialect("1.2.0"), changed(MAVERICK, kv_cache_dtype="bf16"), GUIDE, 3072)


def test_model_that_would_be_a_flag_is_refused() -> None:
    with pytest.raises(BadInput, match="read as a flag"):
        to_argv(dialect("1.2.0"), changed(MAVERICK, model="--help"), GUIDE, 3072, host="a", port=1, config_path="x.yml")


@pytest.mark.parametrize("release", WITHOUT_STREAM_INTERVAL)
def test_what_a_release_has_no_word_for_is_refused_with_the_way_out(release: str) -> None:
    with pytest.raises(
        BadInput, match=r"has no stream_interval .* Set stream_interval to 1 .* or name a later release"
    ):
        to_yaml(dialect(release), MAVERICK, GUIDE, 3072)
    with pytest.raises(BadInput, match="stream_interval"):
        to_yaml(dialect(release), changed(MAVERICK, stream_interval=1), config(options={"stream_interval": 2}), 3072)
    document = as_mapping(to_yaml(dialect(release), changed(MAVERICK, stream_interval=1), GUIDE, 3072))
    assert "stream_interval" not in document


def test_0_20_nests_what_0_21_has_at_the_top() -> None:
    plain = changed(MAVERICK, stream_interval=1, moe_backend="CUTLASS", kv_cache_dtype="fp8", overlap_scheduler=False)
    old = as_mapping(to_yaml(dialect("0.20.0"), plain, GUIDE, 3072))
    flat = as_mapping(to_yaml(dialect("0.21.0"), plain, GUIDE, 3072))
    nested = old.pop("pytorch_backend_config")
    assert {**old, **nested} == flat
    assert flat["use_cuda_graph"] is True
    assert (flat["cuda_graph_max_batch_size"], flat["cuda_graph_padding_enabled"]) == (1024, True)
    assert (flat["moe_backend"], flat["kv_cache_dtype"]) == ("CUTLASS", "fp8")


def test_spelling_that_was_not_confirmed_says_so() -> None:
    plain = changed(MAVERICK, stream_interval=1, overlap_scheduler=False)
    doubtful = [
        entry.name for entry in to_yaml(dialect("0.20.0"), plain, GUIDE, 3072) if "not confirmed" in (entry.note or "")
    ]
    assert doubtful == ["disable_overlap_scheduler"]


def test_option_that_stands_on_the_command_line_only_is_typed() -> None:
    asked = config(options={"num_postprocess_workers": 4, "attn_backend": "TRTLLM"})
    plain, old = changed(MAVERICK, stream_interval=1), dialect("0.20.0")
    argv = to_argv(old, plain, asked, 3072, host="a", port=1, config_path="x.yml")
    assert argv[-2:] == ("--num_postprocess_workers", "4")
    document = as_mapping(to_yaml(old, plain, asked, 3072))
    assert "num_postprocess_workers" not in document
    assert document["pytorch_backend_config"]["attn_backend"] == "TRTLLM"
