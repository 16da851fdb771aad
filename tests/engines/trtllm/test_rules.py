"""Static rules: exactly at the limit and one beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.engines.trtllm.dialects import Dialect, dialect
from advisor.engines.trtllm.rules import adjustments, graph_sizes, validate
from tests.engines.trtllm.builders import EVERY_RELEASE, GUIDE, MAVERICK, config, configs, deployments

SPOKEN = dialect("1.2.0")
LONG = Workload(isl=8192, osl=1024)


def rules(
    spoken: Dialect, deployment: Deployment, asked: ServingConfig, workloads: list[Workload], max_seq_len: int
) -> list[tuple[str, str]]:
    return [(found.rule, found.severity) for found in validate(spoken, deployment, asked, workloads, max_seq_len)]


def test_prompt_of_exactly_max_num_tokens_is_served_and_one_more_is_not() -> None:
    assert rules(SPOKEN, MAVERICK, GUIDE, [LONG], 9216) == []
    longer = Workload(isl=8193, osl=1024)
    assert rules(SPOKEN, MAVERICK, GUIDE, [LONG, longer], 9217) == [("max_num_tokens_below_isl", "error")]
    chunked = config(options={"enable_chunked_prefill": True})
    assert rules(SPOKEN, MAVERICK, chunked, [longer], 9217) == []


def test_excess_is_measured_in_the_limit() -> None:
    (found,) = validate(SPOKEN, MAVERICK, config(max_num_tokens=2048), [LONG], 9216)
    assert found.excess == pytest.approx(3.0)


def test_request_longer_than_max_seq_len_is_refused() -> None:
    assert rules(SPOKEN, MAVERICK, GUIDE, [LONG], 9215) == [("max_seq_len_below_request", "error")]


def test_batch_above_the_token_budget_only_warns() -> None:
    assert rules(SPOKEN, MAVERICK, config(max_batch_size=8192), [LONG], 9216) == []
    assert rules(SPOKEN, MAVERICK, config(max_batch_size=8193), [LONG], 9216) == [
        ("max_batch_size_above_max_num_tokens", "warning")
    ]


def test_moe_backend_follows_the_release() -> None:
    triton = changed(MAVERICK, moe_backend="TRITON")
    assert rules(dialect("1.0.0"), triton, GUIDE, [LONG], 9216) == [("moe_backend", "error")]
    assert rules(dialect("1.1.0"), triton, GUIDE, [LONG], 9216) == []


def test_what_a_release_has_no_word_for_is_a_violation_before_it_is_an_error() -> None:
    assert rules(dialect("0.21.0"), MAVERICK, GUIDE, [LONG], 9216) == [("not_in_release", "error")]
    assert rules(dialect("0.21.0"), changed(MAVERICK, stream_interval=1), GUIDE, [LONG], 9216) == []


def test_release_whose_moe_backends_are_not_known_takes_any_word() -> None:
    triton = changed(MAVERICK, moe_backend="TRITON", stream_interval=1)
    assert rules(dialect("0.21.0"), triton, GUIDE, [LONG], 9216) == []


def test_kv_dtype_that_cannot_be_had_is_a_violation_before_it_is_an_error() -> None:
    assert rules(SPOKEN, changed(MAVERICK, kv_cache_dtype="bf16"), GUIDE, [LONG], 9216) == [("kv_cache_dtype", "error")]


def test_silent_changes_are_said() -> None:
    said = " ".join(adjustments(SPOKEN, MAVERICK, config(max_batch_size=512)))
    assert "graphs above 512" in said
    assert "8 ranks x 512 = 4,096" in said
    eager = adjustments(SPOKEN, changed(MAVERICK, attention_dp=False), config(cuda_graph_max_batch_size=128))
    assert eager == ("Decode batches above 128 run without a CUDA graph.",)
    assert adjustments(SPOKEN, changed(MAVERICK, attention_dp=False), GUIDE) == ()


@given(release=st.sampled_from(EVERY_RELEASE), deployment=deployments, asked=configs)
def test_captured_sizes_respect_the_runtime_filter(release: str, deployment: Deployment, asked: ServingConfig) -> None:
    sizes = graph_sizes(dialect(release), deployment, asked)
    cap = min(asked.max_batch_size, asked.max_num_tokens)
    largest = min(cap, asked.cuda_graph_max_batch_size)
    assert list(sizes) == sorted(set(sizes))
    assert all(0 < size <= largest for size in sizes)
    if largest and deployment.graph_padding:
        assert sizes[-1] == largest
