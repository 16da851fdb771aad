"""Intervals against SciPy, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from advisor.metrics.confidence import mean_interval, ratio_interval, student_t_cdf, student_t_quantile


@pytest.mark.parametrize("dof", [1, 2, 3, 5, 17, 200])
@pytest.mark.parametrize("p", [0.005, 0.3, 0.5, 0.9, 0.975, 0.999])
def test_student_quantiles_are_scipy_s(p: float, dof: int) -> None:
    expected = stats.t.ppf(p, dof)
    assert student_t_quantile(p, dof) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert student_t_cdf(expected, dof) == pytest.approx(p, abs=1e-9)


def test_mean_interval_is_scipy_s() -> None:
    logs = np.array([9.8, 10.4, 10.1, 9.9])
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    interval = mean_interval(np.exp(logs).tolist())
    assert interval is not None
    assert [math.log(interval.low), math.log(interval.high)] == pytest.approx([low, high])
    assert mean_interval([1.0]) is None


def test_other_configurations_lend_their_deviation() -> None:
    alone, pooled = mean_interval([10.0, 10.2]), mean_interval([10.0, 10.2], [[5.0, 5.1, 5.05]])
    assert alone is not None and pooled is not None
    assert pooled.high / pooled.low < alone.high / alone.low
    single = mean_interval([10.0], [[5.0, 5.1]])
    assert single is not None and single.low < 10.0 < single.high


def test_ratio_interval_is_the_two_sample_t_interval_of_logarithms() -> None:
    a, b = [11.0, 11.3, 10.9], [10.0, 10.2]
    reference = stats.ttest_ind(np.log(a), np.log(b)).confidence_interval(0.95)
    interval = ratio_interval(a, b)
    assert interval is not None
    assert [math.log(interval.low), math.log(interval.high)] == pytest.approx([reference.low, reference.high])
    assert ratio_interval([1.0], [1.0]) is None


def test_ninety_five_percent_means_it() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(2000):
        interval = ratio_interval(
            np.exp(0.1 + 0.02 * rng.standard_normal(2)).tolist(), np.exp(0.02 * rng.standard_normal(3)).tolist()
        )
        assert interval is not None
        hits += interval.low <= math.exp(0.1) <= interval.high
    assert 0.935 <= hits / 2000 <= 0.965  # three standard errors of a binomial around 0.95
