"""Intervals against SciPy, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from advisor.metrics.confidence import (
    BATCH_NOISE,
    BATCH_NOISE_DOF,
    BETWEEN_LAUNCHES,
    NoisePrior,
    batch_means_interval,
    mean_interval,
    pooled_noise,
    ratio_interval,
    steady_interval,
    student_t_cdf,
    student_t_quantile,
)
from tests.metrics.runs import closed_loop

NOTHING = NoisePrior(sd=0.0, dof=0)
"""Known before: intervals are then the textbook's."""


@pytest.mark.parametrize("dof", [1, 2, 3, 5, 17, 200])
@pytest.mark.parametrize("p", [0.005, 0.3, 0.5, 0.9, 0.975, 0.999])
def test_student_quantiles_are_scipy_s(p: float, dof: int) -> None:
    expected = stats.t.ppf(p, dof)
    assert student_t_quantile(p, dof) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert student_t_cdf(expected, dof) == pytest.approx(p, abs=1e-9)


def test_mean_interval_is_scipy_s() -> None:
    logs = np.array([9.8, 10.4, 10.1, 9.9])
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    interval = mean_interval(np.exp(logs).tolist(), prior=NOTHING)
    assert interval is not None
    assert [math.log(interval.low), math.log(interval.high)] == pytest.approx([low, high])
    assert mean_interval([1.0], prior=NOTHING) is None
    assert mean_interval([]) is None


def test_other_configurations_lend_their_deviation() -> None:
    alone, pooled = (mean_interval([10.0, 10.2], others, NOTHING) for others in ((), [[5.0, 5.1, 5.05]]))
    assert alone is not None and pooled is not None
    assert pooled.high / pooled.low < alone.high / alone.low
    single = mean_interval([10.0], [[5.0, 5.1]])
    assert single is not None and single.low < 10.0 < single.high


def test_ratio_interval_is_the_two_sample_t_interval_of_logarithms() -> None:
    a, b = [11.0, 11.3, 10.9], [10.0, 10.2]
    reference = stats.ttest_ind(np.log(a), np.log(b)).confidence_interval(0.95)
    interval = ratio_interval(a, b, prior=NOTHING)
    assert interval is not None
    assert [math.log(interval.low), math.log(interval.high)] == pytest.approx([reference.low, reference.high])
    assert ratio_interval([1.0], [1.0], prior=NOTHING) is None
    assert ratio_interval([1.0], []) is None


@pytest.mark.parametrize("prior", [NOTHING, BETWEEN_LAUNCHES], ids=["no prior", "prior"])
def test_ninety_five_percent_means_it(prior: NoisePrior) -> None:
    """Where a prior is used, the deviation of each study is drawn from it: an inverse gamma variance."""
    rng, hits = np.random.default_rng(7), 0
    for _ in range(2000):
        sd = prior.sd * math.sqrt(prior.dof / rng.chisquare(prior.dof)) if prior.dof else 0.02
        winner, base = np.exp(0.1 + sd * rng.standard_normal(2)), np.exp(sd * rng.standard_normal(3))
        interval = ratio_interval(winner.tolist(), base.tolist(), prior=prior)
        assert interval is not None
        hits += interval.low <= math.exp(0.1) <= interval.high
    assert 0.935 <= hits / 2000 <= 0.965  # three standard errors of a binomial around 0.95


def test_two_runs_that_agree_or_differ_by_luck_give_no_absurd_interval() -> None:
    for second in (1.0, 1.0001, 1.06):
        interval = ratio_interval([1.1, 1.1 * second], [1.0, 1.0])
        assert interval is not None
        assert 0.01 < math.log(interval.high / interval.low) / 2 < 0.12


def test_pooled_noise_is_the_posterior_mean_of_the_variance() -> None:
    sd, dof = pooled_noise([[0.0, 0.02], [1.0], [3.0, 3.01, 3.02]], NoisePrior(sd=0.01, dof=2))
    assert dof == 5
    assert sd == pytest.approx(math.sqrt((2 * 0.01**2 + 2 * 0.01**2 + 2 * 0.01**2) / 5))
    assert pooled_noise([[1.0]], NOTHING) == (0.0, 0)


def test_batch_means_cover_the_throughput_that_repeats_have() -> None:
    rng = np.random.default_rng(5)
    runs = [closed_loop(rng, 8, 64) for _ in range(100)]
    rates = np.array([tokens.sum() / (done.max() - sent.min()) * 1e3 for sent, done, tokens in runs])
    intervals = [batch_means_interval(*run, per_batch=8) for run in runs]
    assert [interval.estimate for interval in intervals if interval] == pytest.approx(rates.tolist())
    hits = [interval.low <= rates.mean() <= interval.high for interval in intervals if interval]
    assert len(hits) == 100
    assert np.mean(hits) >= 0.93, "ramp-up and tail make it wider than need be, never narrower"
    widths = [(interval.high - interval.low) / 2 / rates.mean() for interval in intervals if interval]
    assert np.median(widths) < 5 * 1.96 * rates.std() / rates.mean(), "and not so wide as to say nothing"


def test_too_few_batches_have_no_interval() -> None:
    sent, done, tokens = closed_loop(np.random.default_rng(1), 8, 39)
    assert batch_means_interval(sent, done, tokens, per_batch=8) is None
    assert batch_means_interval(sent, done, tokens, per_batch=7) is not None


def test_waves_that_are_all_alike_leave_no_doubt() -> None:
    sent = np.repeat(np.arange(8, dtype=np.float64), 4) * 100
    interval = batch_means_interval(sent, sent + 100, np.full(32, 50), per_batch=4)
    assert interval is not None
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((2000.0, 2000.0, 2000.0))


@given(values=st.lists(st.floats(1, 1e4), min_size=2, max_size=8))
def test_the_steady_state_lies_among_the_batches_after_the_first_and_scales_with_them(values: list[float]) -> None:
    interval, doubled = (steady_interval([k * x for x in values], [1.0] * len(values)) for k in (1, 2))
    assert interval is not None
    assert doubled is not None
    assert min(values[1:]) * (1 - 1e-9) <= interval.estimate <= max(values[1:]) * (1 + 1e-9)
    assert interval.low <= interval.estimate <= interval.high
    assert doubled.high == pytest.approx(2 * interval.high)


def test_one_batch_beyond_the_ramp_up_is_believed_to_a_few_percent_and_more_of_them_to_less() -> None:
    assert steady_interval([100.0], [1.0]) is None
    widths = [
        interval.high / interval.estimate - 1
        for n in (2, 3, 5, 9)
        if (interval := steady_interval([50.0, *[100.0] * (n - 1)], [1.0] * n)) is not None
    ]
    assert widths[0] == pytest.approx(stats.t.ppf(0.975, BATCH_NOISE_DOF) * BATCH_NOISE)
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 4
