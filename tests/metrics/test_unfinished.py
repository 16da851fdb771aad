"""What may be said of a run before its end, held against its end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advisor.domain.objective import LATENCIES, STATISTICS, Objective, Slo, latency_ms, parse_slo
from advisor.domain.ports import PartialResult
from advisor.metrics.definitions import compute
from advisor.metrics.unfinished import Batches, at_best
from tests.metrics.runs import Array, closed_loop, seen_at

SLO = parse_slo("ttft:p95<900ms,e2e:mean<3s")
LANES, N = 8, 64


def a_run(seed: int) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    sent, done, tokens = closed_loop(rng, LANES, N)
    first = sent + (done - sent) * rng.uniform(0.05, 0.6, N)
    return sent, first, done, tokens


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.0, 1.1))
def test_no_run_ends_better_than_at_its_best(seed: int, share: float) -> None:
    sent, first, done, tokens = a_run(seed)
    whole = compute(sent, first, done, tokens, 2, slo=SLO)
    best = at_best(seen_at(share * float(done.max()), sent, first, done, tokens), 2, SLO)
    for metric in (
        "output_tok_per_s_per_gpu",
        "output_tok_per_s",
        "request_per_s",
        "output_tok_per_s_per_user",
        "goodput",
    ):
        objective = Objective(metric=metric)
        hoped, ended = objective.value(best), objective.value(whole)
        assert hoped is not None and ended is not None
        assert hoped >= ended * (1 - 1e-6)
    for name in LATENCIES:
        for statistic in STATISTICS:
            hoped, ended = latency_ms(best, name, statistic), latency_ms(whole, name, statistic)
            assert (hoped is None) == (ended is None) == (name == "itl")
            if hoped is not None and ended is not None:
                assert hoped <= ended * (1 + 1e-6)


def test_after_the_end_nothing_is_left_to_hope_for() -> None:
    run = a_run(1)
    end = at_best(seen_at(float(run[2].max()), *run), 2, SLO)
    assert end == compute(*run, 2, slo=SLO)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12))
def test_batches_follow_each_other_without_gaps_however_often_one_looks(seed: int, shares: list[float]) -> None:
    sent, first, done, tokens = a_run(seed)
    looks = [seen_at(share * float(done.max()), sent, first, done, tokens) for share in sorted(shares)]
    batches = Batches(LANES, 2, SLO)
    for run in looks:
        batches = batches.seen(run)
    assert batches.closed == Batches(LANES, 2, SLO).seen(looks[-1]).closed, "as if it were the first look"
    order = np.argsort(done)[: LANES * len(batches.closed)]
    assert len(batches.closed) == looks[-1].n_done // LANES
    assert sum(each.tokens for each in batches.closed) == tokens[order].sum()
    if batches.closed:
        assert sum(each.seconds for each in batches.closed) == pytest.approx(done[order[-1]] / 1e3)
        assert sum(each.metrics.request_per_s * each.seconds for each in batches.closed) == pytest.approx(order.size)
        waits = np.mean([each.metrics.ttft_ms.mean for each in batches.closed])
        assert waits == pytest.approx((first - sent)[order].mean())


def test_requests_that_end_at_one_moment_fill_several_batches() -> None:
    zeros, ends, tokens = np.zeros(8), np.full(8, 100.0), np.full(8, 5)
    batches = Batches(4, 1, SLO).seen(PartialResult(0.1, zeros, ends, ends, tokens, tokens))
    assert [each.tokens for each in batches.closed] == [20, 20]
    assert sum(each.seconds for each in batches.closed) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_what_batches_foretell_is_what_a_run_comes_to(noise: float) -> None:
    rng, n_above, ratios = np.random.default_rng(6), 0, []
    for _ in range(40):
        sent, done, tokens = closed_loop(rng, LANES, N, noise=noise)
        first, rate, batches = sent + 0.1 * (done - sent), tokens.sum() / done.max() * 1e3, Batches(LANES, 1, Slo())
        looks = [seen_at(share * float(done.max()), sent, first, done, tokens) for share in np.linspace(0.05, 0.4, 12)]
        for run in looks:
            batches = batches.seen(run)
        foretold = batches.foretold_tok_per_s(looks[-1])
        assert foretold is not None
        n_above += rate > foretold.high
        ratios.append(foretold.estimate / rate)
    assert n_above <= 2, "95 % and more lie below the upper end"
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_rates_are_those_of_the_run_that_is_foretold_and_latencies_those_that_were_seen() -> None:
    run = seen_at(1e9, *a_run(2))
    whole, faster = compute(*a_run(2), 2, slo=SLO), Batches(LANES, 2, SLO).metrics(run, 1000.0)
    assert faster.output_tok_per_s == pytest.approx(1000.0)
    assert faster.request_per_s / whole.request_per_s == pytest.approx(1000.0 / whole.output_tok_per_s)
    assert (faster.ttft_ms, faster.tpot_ms, faster.e2e_ms) == (whole.ttft_ms, whole.tpot_ms, whole.e2e_ms)


def test_a_latency_of_the_whole_run_may_be_pulled_by_its_ramp_up_only_to_the_safe_side() -> None:
    run, batches = seen_at(1e9, *a_run(3)), Batches(LANES, 2, SLO).seen(seen_at(1e9, *a_run(3)))
    told = iter([10.0, *[100.0] * 20])
    low = batches.foretold(run, lambda metrics: next(told))
    told = iter([1000.0, *[100.0] * 20])
    high = batches.foretold(run, lambda metrics: next(told))
    told = iter([100.0] * 20)
    level = batches.foretold(run, lambda metrics: next(told))
    assert low is not None and high is not None and level is not None
    assert low.low < level.low == high.low
    assert low.high == level.high < high.high
    assert level.estimate == low.estimate == pytest.approx(100.0)
    assert batches.foretold(run, lambda metrics: None) is None
