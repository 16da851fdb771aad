"""One trial after another for whoever decides what comes next: asked, launched or rejected, committed, reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from advisor.app.answers import answer_question
from advisor.app.context import StudyContext
from advisor.app.trial_runner import run_trial
from advisor.domain.measurement import MemoryReport
from advisor.domain.outcome import Rejected
from advisor.domain.ports import Asked, Engine, Incumbent, LaunchSpec, Ledger, Proposal, Reporter, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.workload import Workload
from advisor.search.hopeless import incumbents

MAX_ATTEMPTS = 2  # a launch that timed out or crashed is tried once more
MAX_INFRASTRUCTURE_IN_A_ROW = 3


@dataclass(frozen=True)
class TrialMaker:
    """Makes the trials of one study on one engine, and counts what they cost."""

    context: StudyContext
    engine: Engine
    ledger: Ledger
    reporter: Reporter
    _committed: list[TrialRecord] = field(default_factory=list, init=False)

    def launch(
        self, role: Role, proposal: Proposal, *, referee: bool = False, soak: Workload | None = None
    ) -> TrialRecord:
        """Launch a given configuration."""
        return self.run(self.ledger.ask(role, proposal), referee=referee, soak=soak)

    def run(self, asked: Asked, *, referee: bool = False, soak: Workload | None = None) -> TrialRecord:
        """Launch what the ledger opened."""
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
                fidelity="memory_only" if asked.role == "probe" else "full",
                slo=context.slo,
                deadlines=context.deadlines,
                seed=context.seed * 100_003 + asked.number,
            ),
            memory_predicted_gib=self._memory_gib(asked.config),
            max_attempts=MAX_ATTEMPTS if asked.role == "reference" else min(MAX_ATTEMPTS, max(1, self.starts_left())),
            referee=referee,
            answers=answer_question(context, self.ledger.records(), asked.config),
            soak=soak,
            expected_gain=asked.expected_gain,
            goal=context.objective,
            incumbents=self._incumbents(asked.role),
            early_stop=context.early_stop,
        )
        record = run_trial(request, self.engine, self.reporter.event, self.ledger.folder(asked.number))
        self._commit(record)
        return record

    def _incumbents(self, role: Role) -> tuple[Incumbent, ...]:
        """What a trial has to beat: nothing where its numbers are wanted whole, for a comparison."""
        context = self.context
        if role in ("baseline", "confirmation", "reference"):
            return ()
        return incumbents(self.ledger.records(), context.workloads, context.objective, context.slo)

    def reject(self, asked: Asked, refusal: Rejected) -> None:
        """Close a trial without a launch."""
        identity = self.context.identity
        record = TrialRecord(
            number=asked.number,
            role=asked.role,
            origin=asked.origin,
            config=asked.config,
            source=identity.source,
            engine_label=identity.label,
            seed=self.context.seed,
            outcome=refusal,
            memory_predicted_gib=self._memory_gib(asked.config),
            expected_gain=asked.expected_gain,
            n_attempts=0,
        )
        self._commit(record)

    def has(self, role: Role, config: ServingConfig) -> bool:
        """True when such a trial is done and said something about its configuration."""
        records = self.ledger.records()
        return any(r.role == role and r.config == config and not r.infrastructure for r in records)

    def starts_left(self) -> int:
        """Process starts of the whole budget."""
        return self.context.budget.max_launches - launches(self.ledger.records())

    def hours_left(self) -> float:
        """Server hours of the budget, infinite where it has no such limit."""
        return self.context.server_hours - sum(r.duration_s for r in self.ledger.records()) / 3600

    def infrastructure_down(self) -> bool:
        """True when the last launches of this run, and not of one that was mended since, say so."""
        last = self._committed[-MAX_INFRASTRUCTURE_IN_A_ROW:]
        return len(last) == MAX_INFRASTRUCTURE_IN_A_ROW and all(record.infrastructure for record in last)

    def _memory_gib(self, config: ServingConfig) -> MemoryReport | None:
        return self.context.memory_of_launch(config, self.ledger.records())

    def _commit(self, record: TrialRecord) -> None:
        self.ledger.commit(record)
        self._committed.append(record)
        self.reporter.trial_ended(record)


def launches(records: Sequence[TrialRecord]) -> int:
    """Process starts that these trials cost the budget; probes and launches for verifications are counted apart."""
    return sum(record.n_attempts for record in records if record.role not in ("probe", "reference"))
