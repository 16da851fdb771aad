"""The study loop: baselines, starts, search, confirmation. It knows ports only: any engine and any ledger will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from advisor.app.concluding import summarise
from advisor.app.context import StudyContext
from advisor.app.trial_maker import TrialMaker, launches
from advisor.app.verifiable import next_missing
from advisor.domain.outcome import Rejected
from advisor.domain.ports import CancelToken, Ledger, Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import Role, TrialRecord
from advisor.search.racing import Repeat
from advisor.search.soaking import soak_workload
from advisor.search.space import contains
from advisor.search.standings import comparison, deciding
from advisor.search.stopping import (
    MAX_ROUNDS,
    confirmation_launches,
    expected_gains,
    is_drift_check_due,
    no_gain_expected,
    noise,
    repeats,
    search_launches,
)

StoppedBy = Literal["budget", "hours", "gpu_hours", "no_gain_expected", "exhausted", "cancelled", "infrastructure"]
MAX_REJECTIONS_IN_A_ROW = 200


class Admission(Protocol):
    """Judges a proposal before it costs a launch, from all that was learned so far."""

    def admit(self, config: ServingConfig, records: Sequence[TrialRecord]) -> Rejected | None: ...
    def nearest_fitting(self, config: ServingConfig, records: Sequence[TrialRecord]) -> ServingConfig | None: ...


class Probes(Protocol):
    """Starts a doubtful proposal for its memory only, where that pays."""

    def refusal(self, config: ServingConfig) -> Rejected | None: ...


class _NoProbes:
    def refusal(self, config: ServingConfig) -> Rejected | None:
        """Nothing is started, so nothing is refused."""
        return None


NO_PROBES: Probes = _NoProbes()


class Starts(Protocol):
    """Says where to begin, from what is known before the search and what its launches taught."""

    def next_start(self, records: Sequence[TrialRecord]) -> Proposal | None: ...


@dataclass(frozen=True)
class Tuner:
    """One study on one engine. `run` may be called again on the same ledger: it does only what is still missing."""

    trials: TrialMaker
    admission: Admission
    starts: Starts
    cancel: CancelToken
    probes: Probes = NO_PROBES

    @property
    def context(self) -> StudyContext:
        """What the study is about."""
        return self.trials.context

    @property
    def ledger(self) -> Ledger:
        """What was done so far."""
        return self.trials.ledger

    def run(self) -> StoppedBy:
        """Run to the end of the budget, of the space, or until cancelled; everything finished is in the ledger."""
        self._launch_baselines()
        self._replace_dead_baseline()
        self._launch_starts()
        stopped_by = self._search()
        if stopped_by in ("cancelled", "infrastructure"):
            return stopped_by
        self._confirm()
        if self.cancel.cancelled:
            return "cancelled"
        return "infrastructure" if self.trials.infrastructure_down() else stopped_by

    # -- opening -------------------------------------------------------------------------------------------------

    def _launch_baselines(self) -> None:
        """Baselines come first, and whatever the memory law thinks of them."""
        entries = {entry.name: entry for entry in self.context.baselines}
        for name in self.context.launched_baselines:
            config = entries[name].config
            while config and not self.trials.has("baseline", config) and not self._done():
                self._launch_baseline(Proposal(config=config, origin=f"baseline {name}"))

    def _launch_baseline(self, proposal: Proposal) -> None:
        """Unless a probe, where one pays, has shown that it does not even start."""
        refusal = self.probes.refusal(proposal.config)
        if refusal is None:
            self.trials.launch("baseline", proposal)
        else:
            self.trials.reject(self.ledger.ask("baseline", proposal), refusal)

    def _launch_starts(self) -> None:
        while not self._done():
            proposal = self.starts.next_start(self._records())
            if proposal is None:
                return
            self.trials.launch("start", proposal)

    def _replace_dead_baseline(self) -> None:
        """Where the baseline cannot run, launch the nearest configuration that should, for a comparison."""
        for _ in range(3):
            records = self._records()
            if self._done() or comparison(records) is not None:
                return
            config = self.context.baseline.config
            near = self.admission.nearest_fitting(config, records) if config is not None else None
            if near is None or self.trials.has("baseline", near):
                return
            origin = f"nearest to {self.context.baseline.name} that fits"
            self._launch_baseline(Proposal(config=near, origin=origin))

    # -- search --------------------------------------------------------------------------------------------------

    def _search(self) -> StoppedBy:
        rejected = 0
        while True:
            if self.cancel.cancelled:
                return "cancelled"
            if self.trials.infrastructure_down():
                return "infrastructure"
            if self._launches_left() <= 0:
                return "budget"
            if self._out_of_hours():
                return self.context.budget.binds(self.context.deployment.gpus)
            if rejected >= MAX_REJECTIONS_IN_A_ROW or self._exhausted():
                return "exhausted"
            if self._no_gain_expected():
                return "no_gain_expected"
            reference = comparison(self._records())
            if reference is not None and is_drift_check_due(self._records()):
                self.trials.launch("baseline", Proposal(config=reference.config, origin="baseline again, for drift"))
                continue
            asked = self.ledger.ask("search")
            refusal = self.admission.admit(asked.config, self._records()) or self.probes.refusal(asked.config)
            if refusal is not None:
                self.trials.reject(asked, refusal)
                rejected += 1
                continue
            record = self.trials.run(asked)
            rejected = 0 if record.n_attempts else rejected + 1

    def _no_gain_expected(self) -> bool:
        records = self._records()
        return no_gain_expected(expected_gains(records), noise(repeats(records, self.context.value_of)))

    def _exhausted(self) -> bool:
        space = self.context.space
        tried = {record.config for record in self._records() if not record.infrastructure}
        if len(tried) < self.context.space_size:
            return False
        return sum(contains(space, config) for config in tried) >= self.context.space_size

    # -- confirmation --------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Launch again what the race asks for, then what later verifications ask for, each on a fresh start.

        What a search that ended early left of the budget is the race's too. A winner that dies at a launch for its
        verification falls, and the race goes on with what is left.
        """
        while not (self.cancel.cancelled or self.trials.infrastructure_down()):
            if (repeat := self._next_repeat()) is not None:
                self._launch_again("confirmation", repeat)
            elif (repeat := self._next_reference()) is not None:
                self._launch_again("reference", repeat)
            else:
                return

    def _next_repeat(self) -> Repeat | None:
        """What the race asks for; nothing where the budget keeps no launch for it."""
        if not confirmation_launches(self.context.budget, len(self.context.workloads)):
            return None
        room = min(self.trials.starts_left(), self._launches_in_time())
        return self.context.race.next(self._records(), room)

    def _next_reference(self) -> Repeat | None:
        """A recommendation on which no verification could notice a loss yet; beside the budget of launches."""
        if not self.context.verifiable or self._launches_in_time() < 1:
            return None
        missing = next_missing(summarise(self.context, self.ledger.records(), "").results)
        if missing is None:
            return None
        why = f"launch {missing.n_behind + 1} of {missing.n_needed} for verify"
        return Repeat(missing.config, why, is_winner=True)

    def _launch_again(self, role: Role, repeat: Repeat) -> None:
        """It meets the engine's own benchmark once; who would win is soaked once, as early as that: it may fall."""
        own = [record for record in self.ledger.records() if record.config == repeat.config]
        met = any(workload.referee for record in own for workload in record.workloads)
        soaked = not self.context.soak or not repeat.is_winner or any(record.soak for record in own)
        self.trials.launch(
            role,
            Proposal(config=repeat.config, origin=repeat.why),
            referee=not met,
            soak=None if soaked else soak_workload(self.context.workloads),
        )

    # -- budget --------------------------------------------------------------------------------------------------

    def _launches_left(self) -> int:
        """Process starts that the search may still take."""
        allowed = search_launches(self.context.budget, len(self.context.workloads))
        return allowed - launches([r for r in self._records() if r.role != "confirmation"])

    def _out_of_hours(self) -> bool:
        """True when one more launch, at the pace so far, would take the hours that the confirmation needs."""
        affordable, n_workloads = self._launches_in_time(), len(self.context.workloads)
        whole = int(min(self.context.budget.max_launches, launches(self._records()) + affordable))
        reserved = min(
            confirmation_launches(self.context.budget, n_workloads), max(MAX_ROUNDS * (n_workloads + 1), whole // 3)
        )
        return affordable < 1 + reserved

    def _launches_in_time(self) -> int:
        """Launches that the hours left allow, at the pace so far."""
        records, most = self.ledger.records(), self.context.budget.max_launches
        hours = sum(record.duration_s for record in records) / 3600
        starts = sum(record.n_attempts for record in records if record.role != "probe")
        if not hours or not starts:
            return most
        return int(max(0.0, min(most, self.trials.hours_left() / (hours / starts) + 1e-9)))

    def _records(self) -> Sequence[TrialRecord]:
        """What decides. Launches for verifications that went well do not: a resumed study ends as it did."""
        return deciding(self.ledger.records())

    def _done(self) -> bool:
        """True when nothing more may be launched before the confirmation."""
        stopped = self.cancel.cancelled or self._out_of_hours() or self.trials.infrastructure_down()
        return stopped or self._launches_left() <= 0
