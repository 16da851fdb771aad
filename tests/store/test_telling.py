"""Outcome to Optuna: the table of the design, over every outcome there is."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain import outcome as outcomes
from advisor.domain.measurement import MemoryReport, SoFar, WorkloadOutcome
from advisor.domain.objective import Slo, parse_slo
from advisor.domain.outcome import (
    BadConfig,
    Crashed,
    Hopeless,
    Infrastructure,
    Measured,
    Outcome,
    OutOfMemory,
    Rejected,
    Started,
    TimedOut,
    Unhealthy,
)
from advisor.domain.ports import Asked
from advisor.domain.strict import changed
from advisor.store.stock_samplers import Sees, shown
from advisor.store.telling import STATES, State, Told, told
from tests.store.servers import BASELINE, SLO, measurement, record, value_of

ASKED = Asked(number=3, config=BASELINE, role="search", origin="test")
EXAMPLES: dict[type, tuple[Outcome, State, dict[str, float]]] = {
    Measured: (Measured(), "COMPLETE", {"memory": 0.0, "serves": -0.5}),
    Started: (Started(), "PRUNED", {"memory": 0.0, "serves": 0.0}),
    OutOfMemory: (
        OutOfMemory(phase="serve", component="x", short_gib=3.0),
        "PRUNED",
        {"memory": 0.75, "serves": 0.0},
    ),
    Unhealthy: (Unhealthy(reason="x"), "PRUNED", {"memory": 0.0, "serves": 0.5}),
    Hopeless: (Hopeless(reason="x"), "PRUNED", {"memory": 0.0, "serves": 0.5}),
    Rejected: (Rejected(rule="memory", reason="x", excess=0.3), "PRUNED", {"memory": 0.3, "serves": 0.0}),
    BadConfig: (BadConfig(reason="x"), "PRUNED", {"memory": 0.0, "serves": 0.5}),
    TimedOut: (TimedOut(phase="load", deadline_s=1.0), "PRUNED", {"memory": 0.0, "serves": 0.5}),
    Crashed: (Crashed(phase="load", reason="x"), "PRUNED", {"memory": 0.0, "serves": 0.5}),
    Infrastructure: (Infrastructure(reason="x"), "FAIL", {}),
}


def test_every_outcome_of_the_union_is_in_the_table() -> None:
    union = set(get_args(get_args(outcomes.Outcome)[0]))
    assert set(STATES) == union
    assert set(EXAMPLES) == union


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_state_value_and_constraints_of_each(kind: type) -> None:
    outcome, state, constraints = EXAMPLES[kind]
    served = (measurement(10_000 * math.e, 1000.0),) if kind is Measured else ()
    facts = told(record(ASKED, outcome, *served), Slo(), value_of)
    assert facts.state == state
    assert facts.constraints == constraints
    assert facts.value == (pytest.approx(1.0) if kind is Measured else None)
    assert facts.feasible == (kind is Measured)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_only_infrastructure_is_fail_and_everything_else_can_be_learnt_from(kind: type) -> None:
    outcome = EXAMPLES[kind][0]
    facts = told(record(ASKED, outcome), SLO, value_of)
    assert (facts.state == "FAIL") == (kind is Infrastructure)
    if kind is not Infrastructure:
        assert list(facts.constraints) == ["memory", "serves", "ttft:p95"]
        assert (facts.violation > 0) == (kind is not Started), "none was measured, and only a probe was not meant to be"


def test_rejections_by_a_rule_and_by_memory_are_kept_apart() -> None:
    rule = told(record(ASKED, Rejected(rule="prompt_fits", reason="x", excess=0.3)), SLO, value_of)
    assert rule.constraints == {"memory": 0.0, "serves": 0.3, "ttft:p95": 0.0}


@given(headroom=st.floats(0, 40))
def test_measured_headroom_is_slack_in_steps_of_four_gib(headroom: float) -> None:
    report = MemoryReport(weights=10, activations=0, cuda_graphs=0, kv_pool=0, other=70.0 - headroom, capacity=80.0)
    facts = told(record(ASKED, Measured(), measurement(1e4, 100.0), memory=report), SLO, value_of)
    assert facts.constraints["memory"] == pytest.approx(-headroom / 4, abs=1e-9)
    assert facts.feasible


@given(ttft_ms=st.floats(1, 1e6))
def test_a_latency_is_told_as_the_log_of_its_ratio_to_the_limit(ttft_ms: float) -> None:
    facts = told(record(ASKED, Measured(), measurement(1e4, ttft_ms)), SLO, value_of)
    assert facts.constraints["ttft:p95"] == pytest.approx(max(math.log(ttft_ms / 2000), math.log(0.01)))
    assert facts.feasible == (ttft_ms <= 2000)


def test_the_worst_workload_speaks_for_all_and_one_before_a_crash_still_counts() -> None:
    served = (measurement(1e4, 500.0, "a"), measurement(1e4, 8000.0, "b"), measurement(1e4, 100.0, "c"))
    facts = told(record(ASKED, Measured(), *served), SLO, value_of)
    assert facts.constraints["ttft:p95"] == pytest.approx(math.log(4))
    oom = OutOfMemory(phase="serve", component="x", short_gib=1.0)
    crashed = told(record(ASKED, oom, served[1]), SLO, value_of)
    assert crashed.constraints == {
        "memory": 0.25,
        "serves": 0.0,
        "ttft:p95": pytest.approx(math.log(4)),
    }


def test_several_limits_are_told_in_their_order() -> None:
    slo = parse_slo("tpot:mean<20ms,ttft:p95<2s,e2e:p99<10s")
    facts = told(record(ASKED, Measured(), measurement(1e4, 1000.0)), slo, value_of)
    assert list(facts.constraints) == ["memory", "serves", "tpot:mean", "ttft:p95", "e2e:p99"]


def test_measured_without_a_value_of_the_objective_is_not_complete() -> None:
    facts = told(record(ASKED, Measured(), measurement(1e4, 1000.0)), SLO, lambda _: None)
    assert (facts.state, facts.value, facts.constraints["serves"]) == ("PRUNED", None, 0.5)


def test_a_stopped_trial_is_pruned_with_what_it_came_to_and_the_limits_it_broke() -> None:
    showed = measurement(5_000, 4000.0, "b").metrics
    assert showed is not None
    so_far = SoFar(n_done=4, n_requests=8, metrics=showed, bound=False)
    stopped = WorkloadOutcome(workload="b", metrics=None, seed=0, stopped_early=True, so_far=so_far)
    facts = told(record(ASKED, Hopeless(reason="x"), stopped), SLO, value_of)
    whole = told(record(ASKED, Measured(), changed(stopped, metrics=showed)), SLO, value_of)
    assert (facts.state, facts.value, facts.reported) == ("PRUNED", None, whole.value)
    assert facts.constraints == whole.constraints
    assert not facts.feasible


@pytest.mark.parametrize(("sees", "value"), [("states", None), ("constraints", -1.0), ("value", -1.0)])
def test_every_sampler_is_shown_what_a_stopped_trial_came_to(sees: Sees, value: float | None) -> None:
    (first,) = shown([Told("PRUNED", None, {"serves": -0.5}, reported=-1.0)], sees)
    assert first.value == value
    assert first.known == -1.0
