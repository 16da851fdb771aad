"""Memory-only probes: a start without a benchmark, bought where it costs less than the launch that it may save.

Symbols, of one proposal: p probability that it runs out of memory before any load; t seconds of a probe; c seconds that
such a launch would cost. A probe is bought where p c > t, so that on servers that start as fast as they are measured
none is. What only a load can show, a probe cannot, so p is of the start alone.
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

LAUNCHES_PER_PROBE = 4  # of the budget: at most one probe for so many launches
WEIGHTS_READ = ("download", "load")  # phases that a probe with dummy weights does not have
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
        probe_s, launch_s = probe_seconds(records), self._lost_seconds(records)
        if probe_s is None or launch_s is None:
            return False
        return (1.0 - self.gate.p_starts(config, records)) * launch_s > probe_s

    def _lost_seconds(self, records: Sequence[TrialRecord]) -> float | None:
        """What a launch costs that dies while it starts, None where none was measured.

        Its start; and where the budget is one of launches rather than of hours, another launch that is never made.
        """
        measured = [record for record in records if record.measured]
        if not measured:
            return None
        pace_h = sum(record.duration_s for record in records) / 3600 / max(1, launches(records))
        if self.trials.hours_left() < self.trials.starts_left() * pace_h:
            return fmean(map(start_seconds, measured))
        return fmean(record.duration_s for record in measured)


def probes(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those of the trials that were started for their memory only."""
    return [record for record in records if record.role == "probe"]


def probe_seconds(records: Sequence[TrialRecord]) -> float | None:
    """What a probe takes: as those so far, else a start so far without reading weights; None where none came up."""
    made = [record.duration_s for record in probes(records) if isinstance(record.outcome, Started)]
    starts = [start_seconds(record, without=WEIGHTS_READ) for record in records if record.measured]
    return fmean(made or starts) if made or starts else None


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
