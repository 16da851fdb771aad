"""The first proposal: probabilities against a count by hand, and the laws of who is asked at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.outcome import OutOfMemory
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.search.opening import NEAR, REACH, SLACK, DrawnServers, is_opening, p_near_best, plausible
from advisor.search.prior import OBJECTIVE
from tests.search.test_standings import trial

WORKLOADS = (parse_workload("1k1k_c8"), parse_workload("4k1k_c8"))
LIMITS = {"ttft:p95": math.log(100.0)}
LACKING = OutOfMemory(phase="load", component="weights", short_gib=1.0)


def drawn(seed: int, m: int = 6, n: int = 5) -> DrawnServers:
    rng = np.random.default_rng(seed)
    log_values = {}
    for workload in WORKLOADS:
        log_values[workload.name, OBJECTIVE] = np.where(rng.random((m, n)) < 0.2, np.nan, rng.normal(0, 0.05, (m, n)))
        log_values[workload.name, "ttft:p95"] = math.log(100.0) + rng.normal(0, 0.1, (m, n))
    return DrawnServers(log_values, rng.dirichlet(np.ones(m)))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_probability_is_that_of_a_count_by_hand(seed: int) -> None:
    asked = drawn(seed)
    expected = np.zeros(5)
    for workload in WORKLOADS:
        for weight, speeds, waits in zip(
            asked.weights, *(asked.log_values[workload.name, name] for name in (OBJECTIVE, "ttft:p95")), strict=True
        ):
            kept = {k: v for k, v in enumerate(speeds) if not math.isnan(v) and waits[k] <= LIMITS["ttft:p95"]}
            for k, value in kept.items():
                expected[k] += weight * (math.exp(value) >= (1 - NEAR) * math.exp(max(kept.values()))) / len(WORKLOADS)
    assert p_near_best(asked, WORKLOADS, LIMITS) == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_who_is_plausible_is_no_more_behind_and_no_more_beyond_than_the_reach(seed: int) -> None:
    rng = np.random.default_rng(seed)
    workload = WORKLOADS[0]
    speeds, waits = rng.normal(0, 1, 12), math.log(100.0) + rng.normal(0, 2, 12)
    speeds[0] = math.nan
    rows = plausible({(workload.name, OBJECTIVE): speeds, (workload.name, "ttft:p95"): waits}, (workload,), LIMITS)
    may = np.isfinite(speeds) & (waits <= LIMITS["ttft:p95"] + SLACK)
    assert not rows[~may].any()
    if may.any():
        assert (rows == (may & (speeds >= speeds[may].max() - REACH))).all()
        assert rows[np.where(may, speeds, -np.inf).argmax()]


def test_the_opening_ends_with_the_first_measured_proposal() -> None:
    baseline = changed(trial(1, 1000.0), role="baseline")
    died = changed(trial(2, 1.0, number=1), role="search", outcome=LACKING)
    died = changed(died, workloads=())
    assert not is_opening([])
    assert not is_opening([changed(died, role="baseline")])
    assert is_opening([baseline]) and is_opening([baseline, died])
    assert not is_opening([baseline, changed(trial(4, 900.0, number=2), role="search")])
