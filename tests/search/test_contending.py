"""Which benchmark is repeated: only what noise on the launch hides, the least decided first, and not for ever."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.ports import Incumbent
from advisor.domain.strict import changed
from advisor.search.contending import MAX_RUNS, doubt, next_repeat
from tests.app.scripted import metrics

GOAL, NONE = Objective(), Slo()
TO_BEAT = (
    Incumbent(workload="a", value=1000.0, log_noise=0.01),
    Incumbent(workload="b", value=1000.0, log_noise=0.01),
)


def runs(*tok_per_s: float, seconds: float = 10.0) -> tuple[Metrics, ...]:
    return tuple(changed(metrics(value), duration_s=seconds) for value in tok_per_s)


def test_the_least_decided_workload_comes_first_until_all_are_decided() -> None:
    assert next_repeat({"a": runs(1010), "b": runs(1002)}, TO_BEAT, GOAL, NONE, 100) == "b"
    assert next_repeat({"a": runs(1010), "b": runs(1002, 1030, 1020)}, TO_BEAT, GOAL, NONE, 100) == "a"
    assert next_repeat({"a": runs(1040), "b": runs(900)}, TO_BEAT, GOAL, NONE, 100) is None
    assert next_repeat({"b": runs(1002), "c": runs(1000)}, TO_BEAT[:1], GOAL, NONE, 100) is None, "nothing to beat"


def test_no_workload_is_measured_more_than_three_times_nor_beyond_the_time_that_is_left() -> None:
    tied = runs(*[1000.0] * MAX_RUNS)
    assert next_repeat({"a": tied}, TO_BEAT, GOAL, NONE, 100) is None
    assert next_repeat({"a": tied[:-1]}, TO_BEAT, GOAL, NONE, 100) == "a"
    assert next_repeat({"a": tied[:-1]}, TO_BEAT, GOAL, NONE, 9.9) is None


def test_what_breaks_a_limit_contends_for_nothing() -> None:
    assert next_repeat({"a": runs(1000)}, TO_BEAT, GOAL, parse_slo("ttft:p95<99ms"), 100) is None
    assert next_repeat({"a": runs(1000)}, TO_BEAT, GOAL, parse_slo("ttft:p95<101ms"), 100) == "a"


@given(lead=st.floats(0.001, 0.2), n=st.integers(1, 3))
def test_a_lead_is_in_less_doubt_the_larger_it_is_the_more_often_it_was_seen_and_in_either_direction(
    lead: float, n: int
) -> None:
    ahead, behind = runs(*[1000 * math.exp(lead)] * n), runs(*[1000 * math.exp(-lead)] * n)
    assert math.isclose(doubt(ahead, TO_BEAT[0], GOAL), doubt(behind, TO_BEAT[0], GOAL), rel_tol=1e-6)
    assert doubt(runs(*[1000 * math.exp(lead)] * (n + 1)), TO_BEAT[0], GOAL) > doubt(ahead, TO_BEAT[0], GOAL)
    assert doubt(runs(*[1000 * math.exp(1.1 * lead)] * n), TO_BEAT[0], GOAL) > doubt(ahead, TO_BEAT[0], GOAL)
