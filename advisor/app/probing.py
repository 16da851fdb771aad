"""Memory-only probes: a start without a benchmark, bought where it costs less than the launch that it may save.

Symbols, of one proposal: p probability that it runs out of memory before any load; t seconds of a probe; c seconds that
such a launch would cost. A probe is bought where p c > t, so that none is bought on servers that start fast. What only
a load can show, a probe cannot, so p is of the start alone. A probe that dies is a fact and no opinion of the memory
law, so that it spares the baseline its launch too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from advisor.app.admission import MemoryGate
from advisor.app.trial_maker import TrialMaker, launches
from advisor.domain.outcome import Infrastructure, OutOfMemory, Rejected, Started, summary
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.admission import GIB_PER_UNIT, MEMORY_RULE, MOST_EXCESS
from advisor.twin.constants import STARTUP

LAUNCHES_PER_PROBE = 4  # of the budget: at most one probe for so many launches
WEIGHTS_READ = ("download", "load")  # phases that a probe with dummy weights does not have
USUAL_GRAPHS = 20
DEAD_UNITS = 0.5  # a start that fails for another reason has no size: half a limit


@dataclass(frozen=True)
class Prober:
    """Implements the tuner's `Probes` for one study. `most` is the number of probes that it may buy."""

    trials: TrialMaker
    gate: MemoryGate
    most: int

    def refusal(self, config: ServingConfig) -> Rejected | None:
        """Why a probe says that a proposal should not be launched; None where it started, or no probe pays."""
        records = self.trials.ledger.records()
        if len(probes(records)) >= self.most or not self._pays(config, records):
            return None
        return refused(self.trials.launch("probe", Proposal(config=config, origin="probe of a doubtful proposal")))

    def _pays(self, config: ServingConfig, records: Sequence[TrialRecord]) -> bool:
        costs = _costs(records) or self._predicted_costs(config)
        pace_h = sum(record.duration_s for record in records) / 3600 / max(1, launches(records))
        by_launches = self.trials.hours_left() >= self.trials.starts_left() * pace_h
        return (1.0 - self.gate.p_starts(config, records)) * costs.lost_s(by_launches) > costs.probe_s

    def _predicted_costs(self, config: ServingConfig) -> Costs:
        """Before anything was measured: as the twin assumes of starts and predicts of loads."""
        context = self.trials.context
        predictions = [self.gate.forecaster.predict(config, workload) for workload in context.workloads]
        loads = [prediction.metrics.duration_s for prediction in predictions if prediction.metrics is not None]
        weights_gib = predictions[0].memory_gib.weights
        return Costs(
            probe_s=STARTUP.total_s(0.0, USUAL_GRAPHS),
            start_s=STARTUP.total_s(weights_gib, USUAL_GRAPHS),
            load_s=sum(loads),
        )


@dataclass(frozen=True)
class Costs:
    """Seconds of a probe, of a start and of the loads after it."""

    probe_s: float
    start_s: float
    load_s: float

    def lost_s(self, by_launches: bool) -> float:
        """c: the start that is lost and, in a budget of launches rather than hours, a launch that is never made."""
        return self.start_s + self.load_s if by_launches else self.start_s


def _costs(records: Sequence[TrialRecord]) -> Costs | None:
    """As the launches so far took, None where none was measured."""
    measured = [record for record in records if record.measured]
    if not measured:
        return None
    made = [record.duration_s for record in probes(records) if isinstance(record.outcome, Started)]
    start_s = fmean(map(start_seconds, measured))
    return Costs(
        probe_s=fmean(made or [start_seconds(record, without=WEIGHTS_READ) for record in measured]),
        start_s=start_s,
        load_s=fmean(record.duration_s for record in measured) - start_s,
    )


def probes(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those of the trials that were started for their memory only."""
    return [record for record in records if record.role == "probe"]


def start_seconds(record: TrialRecord, without: Sequence[str] = ()) -> float:
    """Duration of a start up to its first load, some phases left out."""
    return sum(phase.duration_s for phase in record.phases if phase.name not in ("serve", *without))


def refused(probe: TrialRecord) -> Rejected | None:
    """What a probe says against the launch: that it died, and of what; None where it started or says nothing."""
    outcome = probe.outcome
    if isinstance(outcome, (Started, Infrastructure)):
        return None
    reason = f"Its memory-only probe, trial {probe.number}, ended so: {summary(outcome)}."
    if isinstance(outcome, OutOfMemory):
        return Rejected(rule=MEMORY_RULE, reason=reason, excess=min(MOST_EXCESS, outcome.short_gib / GIB_PER_UNIT))
    return Rejected(rule="probe", reason=reason, excess=DEAD_UNITS)
