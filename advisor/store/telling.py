"""What Optuna is told about a trial: the one place where outcomes become states, values and constraints.

Constraints are broken above zero. Every trial has the same keys in the same order: GPSampler stacks them by position.
TPE adds up what is broken without scaling, so each is in units of its limit: memory in steps of 4 GiB, latencies as
log(measured / limit). Zero means that the trial did not get far enough to tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from advisor.domain.measurement import MemoryReport
from advisor.domain.objective import Slo, SloLimit
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
    summary,
)
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.admission import GIB_PER_UNIT, MEMORY_RULE

State = Literal["COMPLETE", "PRUNED", "FAIL"]
ValueOf = Callable[[TrialRecord], "float | None"]
"""Gain of a measured trial, larger is better: mean over workloads of log(objective / prediction at the baseline)."""

MEMORY = "memory"
SERVES = "serves"
SERVES_UNITS = 0.5  # yes or no has no size of its own: half a limit on either side

STATES: dict[type[Outcome], State] = {
    Measured: "COMPLETE",
    Started: "PRUNED",
    Hopeless: "PRUNED",
    OutOfMemory: "PRUNED",
    Unhealthy: "PRUNED",
    Rejected: "PRUNED",
    BadConfig: "PRUNED",
    TimedOut: "PRUNED",
    Crashed: "PRUNED",
    Infrastructure: "FAIL",
}


@dataclass(frozen=True)
class Told:
    """State, value (larger is better) and constraints of one trial; `reported` is what a stopped one came to."""

    state: State
    value: float | None
    constraints: dict[str, float]
    reported: float | None = None

    @property
    def known(self) -> float | None:
        """What is known of its value, whole or not."""
        return self.reported if self.value is None else self.value

    @property
    def feasible(self) -> bool:
        """True when it was measured and keeps every limit."""
        return self.state == "COMPLETE" and all(value <= 0 for value in self.constraints.values())

    @property
    def violation(self) -> float:
        """Sum of what is broken, in limits."""
        return sum(max(0.0, value) for value in self.constraints.values())


def told(record: TrialRecord, slo: Slo, value_of: ValueOf) -> Told:
    """What Optuna is told about a trial. One measured without a value of the objective counts as unhealthy."""
    state = STATES[type(record.outcome)]
    if state == "FAIL":
        return Told(state, None, {})
    seen = as_far_as_seen(record)
    found = value_of(seen) if seen.measured else None
    value = float(found) if found is not None and state == "COMPLETE" else None
    if value is None:
        state = "PRUNED"
    memory, serves = _launch_constraints(record, served=found is not None)
    latencies = {limit.name: _latency_constraint(seen, limit) for limit in slo.limits}
    reported = None if value is not None or found is None else float(found)
    return Told(state, value, {MEMORY: memory, SERVES: serves, **latencies}, reported)


def why(record: TrialRecord, facts: Told) -> str:
    """Why a trial counts as it does, in a sentence without its full stop."""
    if facts.feasible:
        return "keeps every limit"
    broken = {name: excess for name, excess in facts.constraints.items() if excess > 0}
    if not record.measured or not broken:
        return summary(record.outcome)
    return ", ".join(
        "it has no value of the objective"
        if name == SERVES
        else f"{name} is {100 * math.expm1(excess):.1f} % above its limit"
        for name, excess in broken.items()
    )


def as_far_as_seen(record: TrialRecord) -> TrialRecord:
    """The record with what stopped benchmarks showed until then as their metrics; any other record as it is."""
    if not isinstance(record.outcome, Hopeless):
        return record
    seen = [changed(w, metrics=w.so_far.metrics) if w.so_far else w for w in record.workloads]
    return changed(record, outcome=Measured(), workloads=tuple(seen))


def _launch_constraints(record: TrialRecord, served: bool) -> tuple[float, float]:
    outcome = record.outcome
    if isinstance(outcome, OutOfMemory):
        return outcome.short_gib / GIB_PER_UNIT, 0.0
    if isinstance(outcome, Rejected):
        return (outcome.excess, 0.0) if outcome.rule == MEMORY_RULE else (0.0, outcome.excess)
    report = record.memory_measured_gib
    if isinstance(outcome, Started):
        return _kept_units(report), 0.0
    return _kept_units(report), -SERVES_UNITS if served else SERVES_UNITS


def _kept_units(report: MemoryReport | None) -> float:
    return min(0.0, -report.headroom / GIB_PER_UNIT) if report is not None else 0.0


def _latency_constraint(record: TrialRecord, limit: SloLimit) -> float:
    """log(measured / limit) of the worst workload that was measured, 0 when none was."""
    excesses = [limit.excess(outcome.metrics) for outcome in record.workloads if outcome.metrics is not None]
    return math.log(max(1.0 + max(excesses), 0.01)) if excesses else 0.0
