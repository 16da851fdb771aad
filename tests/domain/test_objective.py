"""Objectives and limits as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.domain.measurement import LatencySummary, Metrics
from advisor.domain.objective import Objective, Slo, parse_objective, parse_slo


def flat(value: float) -> LatencySummary:
    return LatencySummary(mean=value, p50=value, p90=value, p95=value, p99=value)


METRICS = Metrics(
    output_tok_per_s=800.0, output_tok_per_s_per_gpu=100.0, output_tok_per_s_per_user=25.0, request_per_s=2.0,
    ttft_ms=flat(500.0), tpot_ms=None, itl_ms=None, e2e_ms=flat(2000.0), n_requests=10, duration_s=5.0,
)  # fmt: skip


def test_limits_read_back() -> None:
    slo = parse_slo("ttft:p95<2s, tpot:mean<20ms")
    assert slo.text == "ttft:p95<2000ms,tpot:mean<20ms"
    assert parse_slo(slo.text) == slo
    assert parse_slo("") == Slo()


def test_excess_is_in_units_of_the_limit_and_undefined_latencies_keep_it() -> None:
    ttft, tpot = parse_slo("ttft:p99<400ms,tpot:mean<1ms").limits
    assert ttft.excess(METRICS) == pytest.approx(0.25)
    assert tpot.excess(METRICS) == 0.0
    assert not parse_slo("ttft:p99<400ms").met(METRICS)
    assert parse_slo("ttft:p99<500ms").met(METRICS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft<2s", "not a limit"),
        ("tttf:p95<2s", "Did you mean 'ttft'"),
        ("ttft:p96<2s", "p95"),
        ("ttft:p95<0s", "not a duration"),
        ("ttft:p95<2s,ttft:p95<3s", "more than once"),
    ],
)
def test_bad_limits(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_slo(text)


def test_objectives() -> None:
    assert parse_objective("output_tok_per_s").value(METRICS) == 800.0
    latency = parse_objective("e2e:p95")
    assert (latency.direction, latency.value(METRICS)) == ("minimize", 2000.0)
    assert parse_objective("tpot:mean").value(METRICS) is None
    with pytest.raises(BadInput, match="Did you mean 'output_tok_per_s'"):
        parse_objective("output_tok_s")


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.sampled_from(["output_tok_per_s", "ttft:p95"]))
def test_gain_above_one_is_better_and_inverts(a: float, b: float, name: str) -> None:
    objective = Objective(metric=name)
    better = a > b if objective.direction == "maximize" else a < b
    assert (objective.gain(a, b) > 1) == better or math.isclose(a, b)
    assert objective.gain(a, b) * objective.gain(b, a) == pytest.approx(1)
