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
    Infrastructure,
    Measured,
    Outcome,
    OutOfMemory,
    Rejected,
    Started,
    TimedOut,
    Unhealthy,
)
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
    """State, value (larger is better) and constraints of one trial."""

    state: State
    value: float | None
    constraints: dict[str, float]

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
    value = value_of(record) if state == "COMPLETE" else None
    if value is None:
        state = "PRUNED"
    memory, serves = _launch_constraints(record, served=value is not None)
    latencies = {limit.name: _latency_constraint(record, limit) for limit in slo.limits}
    return Told(state, None if value is None else float(value), {MEMORY: memory, SERVES: serves, **latencies})


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
