"""Layouts that cannot be, attention DP's per-rank sizes, and limits of context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment, ModelFacts, divisors
from advisor.domain.errors import BadInput
from advisor.domain.strict import parse
from advisor.domain.workload import Workload, parse_workload

FACTS = ModelFacts(
    name="toy", architecture="Toy", layers=4, hidden_size=64, num_heads=40, num_kv_heads=8, head_dim=8, vocab_size=100,
    max_position=8192, num_experts=128, experts_per_token=1,
)  # fmt: skip


def deployment(**fields: object) -> Deployment:
    return parse(
        Deployment, {"model": "toy", "quantization": "fp8", "gpu": "h100_sxm", "gpus": 8, "tp": 8, **fields}, "test"
    )


@given(st.integers(1, 64), st.integers(1, 4096), st.booleans())
def test_under_attention_dp_the_system_batch_is_per_rank_times_tp(tp: int, batch: int, attention_dp: bool) -> None:
    fixed = deployment(gpus=tp, tp=tp, attention_dp=attention_dp)
    assert fixed.system_batch(batch) == (batch * tp if attention_dp else batch)


@given(st.integers(1, 500))
def test_divisors(n: int) -> None:
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpus": 4}, "8 ranks, but 4 GPUs"),
        ({"ep": 3}, "does not divide tp 8; use one of \\[1, 2, 4, 8\\]"),
        ({"atention_dp": True}, "Did you mean 'attention_dp'"),
        ({"quantization": "fp9"}, "quantization"),
    ],
)
def test_impossible_deployments(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        deployment(**fields)


def test_a_layout_must_fit_the_model() -> None:
    with pytest.raises(BadInput, match="does not divide the 40 attention heads"):
        deployment(gpus=16, tp=16).check_model(FACTS)
    with pytest.raises(BadInput, match="pipeline stages"):
        deployment(gpus=40, tp=8, pp=5).check_model(FACTS)
    deployment(ep=8).check_model(FACTS)


def test_a_workload_must_fit_the_context() -> None:
    with pytest.raises(BadInput, match="context of toy ends at 8,192"):
        deployment().check_workload(parse_workload("8k1k"), FACTS)
    with pytest.raises(BadInput, match="max_seq_len is fixed at 2,048"):
        deployment(max_seq_len=2048).check_workload(parse_workload("2k1k"), FACTS)
    deployment().check_workload(parse_workload("4k1k"), FACTS)


def test_max_seq_len_is_the_longest_request_in_whole_blocks() -> None:
    several = [parse_workload("1k1k"), Workload(isl=3000, osl=700)]
    assert deployment().seq_len(several) == 3712  # 3,700 rounded up to 32
    assert deployment(max_seq_len=9000).seq_len(several) == 9000


def test_options_override_fixed_fields_for_one_trial() -> None:
    fixed = deployment(attention_dp=False)
    trial = fixed.with_options({"enable_attention_dp": True, "enable_chunked_prefill": True, "unknown_key": 1})
    assert (trial.attention_dp, trial.chunked_prefill) == (True, True)
    assert fixed.with_options({}) is fixed


def test_kv_dtype_follows_the_checkpoint_unless_fixed() -> None:
    assert deployment().kv_dtype == "fp8"
    assert deployment(quantization="bf16").kv_dtype == "bf16"
    assert deployment(quantization="bf16", kv_cache_dtype="fp8").kv_dtype == "fp8"
