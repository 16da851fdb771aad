"""Metrics as arithmetic, against NumPy, and under laws of scaling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.objective import parse_slo
from advisor.metrics.definitions import GAP_POINTS, average, compute, good_requests, spread, summarise


def test_two_requests_by_hand() -> None:
    # Sent at 0 and 100; first tokens at 50 and 200; done at 250 and 600 with 5 and 1 tokens.
    metrics = compute(
        np.array([0.0, 100.0]), np.array([50.0, 200.0]), np.array([250.0, 600.0]), np.array([5, 1]), n_gpus=2
    )
    assert metrics.ttft_ms.mean == 75.0
    assert metrics.tpot_ms is not None and metrics.tpot_ms.mean == 50.0  # (250 - 50) / 4; one-token outputs have none
    assert metrics.e2e_ms.p50 == 375.0
    assert metrics.duration_s == 0.6
    assert metrics.output_tok_per_s == pytest.approx(10.0)
    assert metrics.output_tok_per_s_per_gpu == pytest.approx(5.0)
    assert metrics.output_tok_per_s_per_user == pytest.approx((5 / 0.25 + 1 / 0.5) / 2)
    assert metrics.itl_ms is None and metrics.goodput_request_per_s is None


def test_goodput_counts_requests_that_keep_every_limit() -> None:
    sent, first, done = np.zeros(3), np.array([10.0, 30.0, 10.0]), np.array([100.0, 120.0, 1000.0])
    slo = parse_slo("ttft:p50<20ms,e2e:p99<500ms")
    metrics = compute(sent, first, done, np.array([10, 10, 10]), n_gpus=1, slo=slo)
    assert metrics.goodput_request_per_s == pytest.approx(1.0)  # one of three, in one second


@pytest.mark.parametrize("objective_statistic", ["mean", "p50", "p99"])
def test_a_request_has_one_ttft_so_the_statistic_does_not_matter(objective_statistic: str) -> None:
    sent, first, done = np.zeros(3), np.array([10.0, 30.0, 10.0]), np.array([100.0, 120.0, 1000.0])
    slo = parse_slo(f"ttft:{objective_statistic}<20ms")
    assert compute(sent, first, done, np.array([10, 10, 10]), 1, slo).goodput_request_per_s == pytest.approx(2.0)


def test_a_limit_on_itl_is_held_against_each_request_s_own_gaps() -> None:
    sent, first, done = np.zeros(3), np.full(3, 10.0), np.full(3, 1000.0)
    gaps = [np.array([1.0, 1.0, 1.0, 97.0]), np.array([2.0, 2.0]), np.zeros(0)]  # one chunk has no gap
    tokens = np.array([5, 3, 1])

    def good(text: str) -> list[bool] | None:
        found = good_requests(sent, first, done, tokens, parse_slo(text), gaps)
        return None if found is None else found.tolist()

    assert good("itl:p50<1ms") == [True, False, True]
    assert good("itl:p99<50ms") == [False, True, True]
    assert good("itl:mean<25ms") == [True, True, True]
    assert good_requests(sent, first, done, tokens, parse_slo("itl:p99<50ms")) is None, "gaps were not recorded"
    assert good_requests(sent, first, done, tokens, parse_slo("")) is None


@given(st.integers(1, 30), st.integers(0, 2**32), st.floats(1, 1000), st.floats(1, 3))
def test_goodput_grows_with_the_limits_up_to_all_requests(n: int, seed: int, limit_ms: float, more: float) -> None:
    rng = np.random.default_rng(seed)
    sent = rng.uniform(0, 100, n)
    first = sent + rng.uniform(1, 100, n)
    done, tokens = first + rng.uniform(1, 1000, n), rng.integers(1, 100, n)

    def goodput(factor: float) -> float:
        slo = parse_slo(
            f"ttft:p95<{limit_ms * factor:f}ms,tpot:mean<{limit_ms * factor:f}ms,e2e:p50<{1e3 * factor:f}ms"
        )
        found = compute(sent, first, done, tokens, n_gpus=1, slo=slo).goodput_request_per_s
        assert found is not None
        return found

    assert 0 <= goodput(1) <= goodput(more)
    assert goodput(1e6) == compute(sent, first, done, tokens, n_gpus=1).request_per_s


def test_energy_is_told_per_million_output_tokens() -> None:
    metrics = compute(np.zeros(2), np.ones(2), np.full(2, 10.0), np.array([30, 20]), n_gpus=1, energy_j=5.0)
    assert metrics.energy_j == 5.0
    assert metrics.energy_j_per_million_tok == pytest.approx(100_000.0)


def test_one_token_outputs_have_no_tpot() -> None:
    metrics = compute(np.zeros(2), np.ones(2), np.ones(2), np.array([1, 1]), n_gpus=1)
    assert metrics.tpot_ms is None


def test_nothing_succeeded_is_an_error_and_never_looks_fast() -> None:
    empty = np.zeros(0)
    assert summarise(empty) is None
    with pytest.raises(ValueError, match="no request succeeded"):
        compute(empty, empty, empty, np.zeros(0, dtype=np.int64), n_gpus=1)


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=50))
def test_percentiles_are_numpy_s(values: list[float]) -> None:
    summary = summarise(np.array(values))
    assert summary is not None
    assert [summary.p50, summary.p90, summary.p95, summary.p99] == np.percentile(values, [50, 90, 95, 99]).tolist()


@given(st.integers(1, 30), st.integers(0, 2**32), st.sampled_from([0.5, 2.0, 8.0]))
def test_scaling_time_scales_latency_and_divides_throughput(n: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    sent = rng.uniform(0, 100, n)
    first = sent + rng.uniform(1, 100, n)
    done, tokens = first + rng.uniform(1, 1000, n), rng.integers(1, 100, n)
    one = compute(sent, first, done, tokens, n_gpus=4)
    slow = compute(sent * scale, first * scale, done * scale, tokens, n_gpus=4)
    assert slow.ttft_ms.p95 == pytest.approx(one.ttft_ms.p95 * scale)
    assert slow.output_tok_per_s == pytest.approx(one.output_tok_per_s / scale)
    assert one.output_tok_per_s_per_gpu * 4 == pytest.approx(one.output_tok_per_s)


def test_average_is_the_mean_of_every_metric_and_undefined_where_one_is() -> None:
    one = compute(np.zeros(1), np.array([10.0]), np.array([110.0]), np.array([11]), n_gpus=1)
    two = compute(np.zeros(1), np.array([30.0]), np.array([230.0]), np.array([11]), n_gpus=1)
    mean = average([one, two])
    assert mean.ttft_ms.p99 == 20.0
    assert mean.tpot_ms is not None and mean.tpot_ms.mean == 15.0
    assert mean.output_tok_per_s == pytest.approx((one.output_tok_per_s + two.output_tok_per_s) / 2)
    lone = compute(np.zeros(1), np.ones(1), np.ones(1), np.array([1]), n_gpus=1)
    assert average([one, lone]).tpot_ms is None
    with pytest.raises(ValueError, match="no run"):
        average([])


@given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=5000), st.floats(0.0, 1.0))
def test_what_stands_for_all_values_has_their_shares(values: list[float], share: float) -> None:
    """At most one point more or less of any value than its share of them."""
    kept = spread(np.array(values))
    assert kept.shape == (GAP_POINTS,)
    assert (np.diff(kept) >= 0).all()
    level = np.quantile(values, share)
    assert np.mean(kept <= level) == pytest.approx(np.mean(np.array(values) <= level), abs=1 / GAP_POINTS)
    assert set(kept.tolist()) <= set(values)


def test_nothing_stands_for_nothing() -> None:
    assert spread(np.zeros(0)).size == 0
