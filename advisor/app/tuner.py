"""The study loop: baselines, starts, search, confirmation. It knows ports only: any engine and any ledger will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from advisor.app.context import StudyContext
from advisor.app.trial_runner import run_trial
from advisor.domain.outcome import Rejected
from advisor.domain.ports import (
    Asked,
    CancelToken,
    Engine,
    LaunchSpec,
    Ledger,
    Proposal,
    Reporter,
    TrialRequest,
)
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import Role, TrialRecord
from advisor.search.space import contains
from advisor.search.standings import Standing, pick, standings
from advisor.search.stopping import confirmation_rounds, search_launches

StoppedBy = Literal["budget", "hours", "exhausted", "cancelled", "infrastructure"]
MAX_REJECTIONS_IN_A_ROW = 200
MAX_INFRASTRUCTURE_IN_A_ROW = 3
MAX_ATTEMPTS = 2  # a launch that timed out or crashed is tried once more


class Admission(Protocol):
    """Judges a proposal before it costs a launch, from all that was learned so far."""

    def admit(self, config: ServingConfig, records: Sequence[TrialRecord]) -> Rejected | None: ...
    def nearest_fitting(self, config: ServingConfig, records: Sequence[TrialRecord]) -> ServingConfig | None: ...


class Starts(Protocol):
    """Says where to begin, from what is known before the search and what its launches taught."""

    def next_start(self, records: Sequence[TrialRecord]) -> Proposal | None: ...


@dataclass(frozen=True)
class Tuner:
    """One study on one engine. `run` may be called again on the same ledger: it does only what is still missing."""

    context: StudyContext
    engine: Engine
    ledger: Ledger
    admission: Admission
    starts: Starts
    reporter: Reporter
    cancel: CancelToken
    _committed: list[TrialRecord] = field(default_factory=list, init=False)

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
        return "infrastructure" if self._infrastructure_down() else stopped_by

    # -- opening -------------------------------------------------------------------------------------------------

    def _launch_baselines(self) -> None:
        """Baselines are launched first, and whatever the memory law thinks of them."""
        entries = {entry.name: entry for entry in self.context.baselines}
        for name in self.context.launched_baselines:
            config = entries[name].config
            while config and not self._has("baseline", config) and not self._stopped() and self._launches_left() > 0:
                self._launch("baseline", Proposal(config=config, origin=f"baseline {name}"))

    def _launch_starts(self) -> None:
        while not self._stopped() and self._launches_left() > 0:
            proposal = self.starts.next_start(self.ledger.records())
            if proposal is None:
                return
            self._launch("start", proposal)

    def _replace_dead_baseline(self) -> None:
        """Where the baseline cannot run, launch the nearest configuration that should, for a comparison."""
        for _ in range(3):
            records = self.ledger.records()
            if (
                self._stopped()
                or self._launches_left() <= 0
                or any(r.role == "baseline" and r.measured for r in records)
            ):
                return
            config = self.context.baseline.config
            near = self.admission.nearest_fitting(config, records) if config is not None else None
            if near is None or self._has("baseline", near):
                return
            self._launch("baseline", Proposal(config=near, origin=f"nearest to {self.context.baseline.name} that fits"))

    # -- search --------------------------------------------------------------------------------------------------

    def _search(self) -> StoppedBy:
        rejected = 0
        while True:
            if self.cancel.cancelled:
                return "cancelled"
            if self._infrastructure_down():
                return "infrastructure"
            if self._launches_left() <= 0:
                return "budget"
            if self._out_of_hours():
                return "hours"
            if rejected >= MAX_REJECTIONS_IN_A_ROW or self._exhausted():
                return "exhausted"
            asked = self.ledger.ask("search")
            refusal = self.admission.admit(asked.config, self.ledger.records())
            if refusal is not None:
                self._commit(self._rejected(asked, refusal))
                rejected += 1
                continue
            self._run(asked)
            rejected = 0

    def _exhausted(self) -> bool:
        space = self.context.space
        tried = {record.config for record in self.ledger.records() if not record.infrastructure}
        if len(tried) < self.context.space_size:
            return False
        return sum(contains(space, config) for config in tried) >= self.context.space_size

    # -- confirmation --------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Winner and baseline again, alternately, each on a fresh start."""
        for config, origin in self._confirmations():
            if (
                self.cancel.cancelled
                or self._infrastructure_down()
                or self._starts_left() <= 0
                or self._hours_left() <= 0
            ):
                return
            self._launch("confirmation", Proposal(config=config, origin=origin))

    def _confirmations(self) -> list[tuple[ServingConfig, str]]:
        records = self.ledger.records()
        rounds = confirmation_rounds(self.context.budget, len(self.context.workloads))
        winners = distinct([standing.config for standing in self.winners(records)])
        reference = comparison(records)
        if not winners or reference is None:
            return []
        contenders = distinct([*winners, reference.config])
        if len(contenders) < 2:
            return []
        done = [record.config for record in records if record.role == "confirmation" and record.measured]
        todo: list[tuple[ServingConfig, str]] = []
        for round_number in range(1, rounds + 1):
            for config in contenders:
                if done.count(config) < round_number:
                    todo.append((config, f"confirmation round {round_number}"))
        return todo[: max(0, self._starts_left())]

    def winners(self, records: Sequence[TrialRecord]) -> list[Standing]:
        """The best feasible configuration of each workload, as the search measured it."""
        searched = [record for record in records if record.role != "confirmation"]
        context = self.context
        tables = [standings(searched, w.name, context.objective, context.slo) for w in context.workloads]
        return [winner for table in tables if (winner := pick(table, context.objective)) is not None]

    # -- one trial -----------------------------------------------------------------------------------------------

    def _launch(self, role: Role, proposal: Proposal) -> TrialRecord:
        return self._run(self.ledger.ask(role, proposal))

    def _run(self, asked: Asked) -> TrialRecord:
        context = self.context
        self.reporter.trial_started(asked)
        request = TrialRequest(
            number=asked.number,
            role=asked.role,
            origin=asked.origin,
            engine=context.engine,
            spec=LaunchSpec(
                deployment=context.deployment,
                config=asked.config,
                workloads=context.workloads,
                seed=context.seed * 100_003 + asked.number,
            ),
            memory_predicted_gib=context.predict(asked.config, context.workloads[0]).memory_gib,
            max_attempts=min(MAX_ATTEMPTS, max(1, self._starts_left())),
        )
        record = run_trial(
            request, self.engine, on_event=self.reporter.event, evidence=self.ledger.folder(asked.number)
        )
        self._commit(record)
        return record

    def _commit(self, record: TrialRecord) -> None:
        self.ledger.commit(record)
        self._committed.append(record)
        self.reporter.trial_ended(record)

    def _rejected(self, asked: Asked, refusal: Rejected) -> TrialRecord:
        identity = self.context.identity
        return TrialRecord(
            number=asked.number,
            role=asked.role,
            origin=asked.origin,
            config=asked.config,
            source=identity.source,
            engine_label=identity.label,
            seed=self.context.seed,
            outcome=refusal,
            memory_predicted_gib=self.context.predict(asked.config, self.context.workloads[0]).memory_gib,
            n_attempts=0,
        )

    # -- budget --------------------------------------------------------------------------------------------------

    def _has(self, role: Role, config: ServingConfig) -> bool:
        records = self.ledger.records()
        return any(r.role == role and r.config == config and not r.infrastructure for r in records)

    def _starts_left(self) -> int:
        """Process starts of the whole budget."""
        return self.context.budget.max_launches - launches(self.ledger.records())

    def _launches_left(self) -> int:
        """Process starts that the search may still take."""
        allowed = search_launches(self.context.budget, len(self.context.workloads))
        return allowed - launches([r for r in self.ledger.records() if r.role != "confirmation"])

    def _hours_left(self) -> float:
        hours = self.context.budget.max_hours
        return math.inf if hours is None else hours - sum(r.duration_s for r in self.ledger.records()) / 3600

    def _out_of_hours(self) -> bool:
        """True when one more launch, at the pace so far, would take the hours that the confirmation needs."""
        starts = launches(self.ledger.records())
        if self.context.budget.max_hours is None or not starts:
            return False
        pace = sum(r.duration_s for r in self.ledger.records()) / 3600 / starts
        return self._hours_left() < (1 + confirmation_launches(self.context)) * pace

    def _infrastructure_down(self) -> bool:
        """True when the last launches of this run, and not of one that was mended since, say so."""
        last = self._committed[-MAX_INFRASTRUCTURE_IN_A_ROW:]
        return len(last) == MAX_INFRASTRUCTURE_IN_A_ROW and all(record.infrastructure for record in last)

    def _stopped(self) -> bool:
        return self.cancel.cancelled or self._out_of_hours() or self._infrastructure_down()


def launches(records: Sequence[TrialRecord]) -> int:
    """Process starts that these trials cost."""
    return sum(record.n_attempts for record in records)


def distinct(configs: Sequence[ServingConfig]) -> list[ServingConfig]:
    """Without repeats, order kept."""
    return list(dict.fromkeys(configs))


def comparison(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The baseline trial that ran: the one asked for, or the nearest that does."""
    return next((r for r in records if r.role == "baseline" and r.measured), None)


def confirmation_launches(context: StudyContext) -> int:
    """Launches kept for the confirmation."""
    return context.budget.max_launches - search_launches(context.budget, len(context.workloads))
