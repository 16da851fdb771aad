"""The study loop: baselines, starts, search, confirmation. It knows ports only: any engine and any ledger will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from advisor.app.context import StudyContext
from advisor.app.trial_maker import TrialMaker, launches
from advisor.domain.outcome import Rejected
from advisor.domain.ports import CancelToken, Ledger, Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.robust import robust
from advisor.search.space import contains
from advisor.search.standings import Standing, pick, standings
from advisor.search.stopping import (
    MAX_ROUNDS,
    confirmation_launches,
    expected_gains,
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
            proposal = self.starts.next_start(self.ledger.records())
            if proposal is None:
                return
            self.trials.launch("start", proposal)

    def _replace_dead_baseline(self) -> None:
        """Where the baseline cannot run, launch the nearest configuration that should, for a comparison."""
        for _ in range(3):
            records = self.ledger.records()
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
            asked = self.ledger.ask("search")
            refusal = self.admission.admit(asked.config, self.ledger.records()) or self.probes.refusal(asked.config)
            if refusal is not None:
                self.trials.reject(asked, refusal)
                rejected += 1
                continue
            record = self.trials.run(asked)
            rejected = 0 if record.n_attempts else rejected + 1

    def _no_gain_expected(self) -> bool:
        records = self.ledger.records()
        return no_gain_expected(expected_gains(records), noise(repeats(records, self.context.value_of)))

    def _exhausted(self) -> bool:
        space = self.context.space
        tried = {record.config for record in self.ledger.records() if not record.infrastructure}
        if len(tried) < self.context.space_size:
            return False
        return sum(contains(space, config) for config in tried) >= self.context.space_size

    # -- confirmation --------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Winner and baseline again, alternately, each on a fresh start; each meets the engine's own benchmark once."""
        for config, origin in self._confirmations():
            if (
                self.cancel.cancelled
                or self.trials.infrastructure_down()
                or self.trials.starts_left() <= 0
                or self.trials.hours_left() <= 0
            ):
                return
            met = any(w.referee for r in self.ledger.records() if r.config == config for w in r.workloads)
            self.trials.launch("confirmation", Proposal(config=config, origin=origin), referee=not met)

    def _confirmations(self) -> list[tuple[ServingConfig, str]]:
        """What is launched again and why, round by round, as far as the budget goes."""
        records = self.ledger.records()
        if not confirmation_launches(self.context.budget, len(self.context.workloads)):
            return []
        again = [record for record in records if record.role == "confirmation"]
        done = [record.config for record in again if record.measured]
        # One repeat a side decides nothing: rather two of few contenders, the others stay candidates.
        room = self.trials.starts_left() + launches(again)
        contenders = self._contenders(records)[: max(2, room // MAX_ROUNDS)]
        if len(contenders) < 2:
            return []
        todo: list[tuple[ServingConfig, str]] = []
        for round_number in range(1, MAX_ROUNDS + 1):
            for config in contenders:
                if done.count(config) < round_number:
                    todo.append((config, f"confirmation round {round_number}"))
        return todo[: max(0, self.trials.starts_left())]

    def _contenders(self, records: Sequence[TrialRecord]) -> list[ServingConfig]:
        """Most useful first: the winner of most workloads, what it is compared with, the robust one, other winners."""
        tables = searched_tables(self.context, records)
        picked = [pick(table, self.context.objective) for table in tables.values()]
        won = [winner.config for winner in picked if winner is not None]
        reference = comparison(records)
        if not won or reference is None:
            return []
        for_all = robust(tables, self.context.objective)
        winners = sorted(distinct(won), key=lambda config: (-won.count(config), config != for_all))
        return distinct([winners[0], reference.config, *([for_all] if for_all else []), *winners[1:]])

    # -- budget --------------------------------------------------------------------------------------------------

    def _launches_left(self) -> int:
        """Process starts that the search may still take."""
        allowed = search_launches(self.context.budget, len(self.context.workloads))
        return allowed - launches([r for r in self.ledger.records() if r.role != "confirmation"])

    def _out_of_hours(self) -> bool:
        """True when one more launch, at the pace so far, would take the hours that the confirmation needs."""
        starts = launches(self.ledger.records())
        if not starts:
            return False
        pace = sum(r.duration_s for r in self.ledger.records()) / 3600 / starts
        reserved = confirmation_launches(self.context.budget, len(self.context.workloads))
        return self.trials.hours_left() < (1 + reserved) * pace

    def _done(self) -> bool:
        """True when nothing more may be launched before the confirmation."""
        stopped = self.cancel.cancelled or self._out_of_hours() or self.trials.infrastructure_down()
        return stopped or self._launches_left() <= 0


def distinct(configs: Sequence[ServingConfig]) -> list[ServingConfig]:
    """Without repeats, order kept."""
    return list(dict.fromkeys(configs))


def comparison(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The baseline trial that ran: the one asked for, or the nearest that does."""
    return next((r for r in records if r.role == "baseline" and r.measured), None)


def searched_tables(context: StudyContext, records: Sequence[TrialRecord]) -> dict[str, list[Standing]]:
    """Standings by workload as the search measured them: the confirmation must not choose what it confirms."""
    searched = [record for record in records if record.role != "confirmation"]
    return {w.name: standings(searched, w.name, context.objective, context.slo) for w in context.workloads}
