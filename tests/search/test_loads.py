"""The load search: the highest concurrency that keeps the limits, found in few measurements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.objective import Objective, parse_slo
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.search.loads import FINE_ENOUGH, MAX_LOADS, at_load, best_load, next_load
from tests.app.scripted import metrics


def searched(most: int, highest_good: int, slope: float = 1.0) -> dict[int, float]:
    """A search where a latency grows with the load to the power `slope`, and meets its limit above `highest_good`."""
    excess: dict[int, float] = {}
    while (load := next_load(excess, most)) is not None:
        assert load not in excess and 1 <= load <= most
        excess[load] = (load / (highest_good + 0.5)) ** slope - 1
    return excess


@given(st.integers(1, 4096), st.integers(0, 5000), st.floats(0.01, 70))
def test_the_highest_load_that_keeps_the_limits_is_found(most: int, highest_good: int, slope: float) -> None:
    excess = searched(most, highest_good, slope)
    assert len(excess) <= MAX_LOADS
    keeping = max((load for load, over in excess.items() if over <= 0), default=0)
    breaking = min((load for load, over in excess.items() if over > 0), default=None)
    if highest_good >= most:
        assert list(excess) == [most], "nothing more is measured where the asked load is fine"
    elif highest_good == 0:
        assert keeping == 0 and breaking == 1, "one request at a time was tried before giving up"
    else:
        assert breaking is not None and keeping <= highest_good < breaking
        assert breaking <= FINE_ENOUGH * keeping or breaking == keeping + 1 or len(excess) == MAX_LOADS


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_usual_loads_are_found_within_the_measurements_of_one_launch(slope: float) -> None:
    found = [searched(1024, good, slope) for good in range(8, 1024)]
    assert max(map(len, found)) <= MAX_LOADS
    keeping = [max(load for load, over in excess.items() if over <= 0) for excess in found]
    assert all(good <= FINE_ENOUGH * (kept + 1) for good, kept in zip(range(8, 1024), keeping, strict=True))


def outcome(goodput: float, ttft_ms: float) -> WorkloadOutcome:
    found = changed(metrics(100.0, ttft_ms), goodput_request_per_s=goodput)
    return WorkloadOutcome(workload="1k1k_c8", metrics=found, seed=0)


def test_the_best_load_keeps_the_limits_whatever_breaks_them_serves_more() -> None:
    goal, slo = Objective(metric="goodput"), parse_slo("ttft:p95<200ms")
    tried = {8: outcome(9.0, 300.0), 4: outcome(5.0, 150.0), 6: outcome(4.0, 190.0)}
    assert best_load(tried, goal, slo) == 4
    assert best_load({8: tried[8], 7: outcome(2.0, 250.0)}, goal, slo) == 7, "none keeps them: the nearest to it"


def test_requests_asked_for_shrink_with_the_load() -> None:
    workload = changed(parse_workload("1k1k_c64"), n_requests=640)
    assert (at_load(workload, 16).concurrency, at_load(workload, 16).n_requests) == (16, 160)
    assert at_load(workload, None) == workload
    assert at_load(parse_workload("1k1k_c64"), 16).requests() == 16 * 8
