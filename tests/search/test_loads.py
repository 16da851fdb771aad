"""The load search: the highest concurrency that keeps the limits, found in few measurements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.objective import Objective, parse_slo
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.search.loads import FINE_ENOUGH, MAX_LOADS, at_load, best_load, next_load
from tests.app.scripted import metrics


def searched(most: int, highest_good: int) -> dict[int, bool]:
    kept: dict[int, bool] = {}
    while (load := next_load(kept, most)) is not None:
        assert load not in kept and 1 <= load <= most
        kept[load] = load <= highest_good
    return kept


@given(st.integers(1, 4096), st.integers(0, 5000))
def test_the_highest_load_that_keeps_the_limits_is_found_within_a_quarter(most: int, highest_good: int) -> None:
    kept = searched(most, highest_good)
    assert len(kept) <= MAX_LOADS
    keeping = max((load for load, fine in kept.items() if fine), default=0)
    breaking = min((load for load, fine in kept.items() if not fine), default=None)
    if highest_good >= most:
        assert kept == {most: True}, "nothing more is measured where the asked load is fine"
    elif highest_good == 0:
        assert keeping == 0 and breaking == 1, "one request at a time was tried before giving up"
    else:
        assert breaking is not None and keeping <= highest_good < breaking
        assert breaking <= FINE_ENOUGH * keeping or breaking == keeping + 1 or len(kept) == MAX_LOADS


def test_usual_loads_take_six_measurements_or_fewer() -> None:
    assert all(len(searched(1024, good)) <= 6 for good in range(32, 1024))
    assert list(searched(1024, 300)) == [1024, 32, 181, 431, 279, 347]


def outcome(goodput: float, ttft_ms: float) -> WorkloadOutcome:
    found = changed(metrics(100.0, ttft_ms), goodput_request_per_s=goodput)
    return WorkloadOutcome(workload="1k1k_c8", metrics=found, seed=0)


def test_the_best_load_keeps_the_limits_whatever_breaks_them_serves_more() -> None:
    goal, slo = Objective(metric="goodput"), parse_slo("ttft:p95<200ms")
    tried = {8: outcome(9.0, 300.0), 4: outcome(5.0, 150.0), 6: outcome(4.0, 190.0)}
    assert best_load(tried, goal, slo) == 4
    assert best_load({8: tried[8], 7: outcome(2.0, 250.0)}, goal, slo) == 8, "none keeps them: the best of all"


def test_requests_asked_for_shrink_with_the_load() -> None:
    workload = changed(parse_workload("1k1k_c64"), n_requests=640)
    assert (at_load(workload, 16).concurrency, at_load(workload, 16).n_requests) == (16, 160)
    assert at_load(workload, None) == workload
    assert at_load(parse_workload("1k1k_c64"), 16).requests() == 16 * 8
