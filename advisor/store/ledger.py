"""The durable record of a study: one folder of evidence per trial, and an Optuna study that mirrors them.

`trials/*/outcome.json` is the truth. A trial is committed there first and told to Optuna after; opening a ledger tells
what is committed but not told, so the journal may even be removed. A trial that was in flight when the process died is
handed out again under its own number and configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from advisor.domain.errors import BadInput
from advisor.domain.objective import Slo
from advisor.domain.outcome import OutOfMemory
from advisor.domain.ports import Asked, Proposal, Proposer
from advisor.domain.study import SearchSpace
from advisor.domain.trial import Role, TrialRecord
from advisor.search.space import indices_of
from advisor.store.journal import JOURNAL, damaged, mend
from advisor.store.quiet import quiet_optuna
from advisor.store.run_lock import RunLock
from advisor.store.sampler import PROPOSAL, ProposerSampler, note, noted_proposal
from advisor.store.stock_samplers import REPORTED_STEP, distributions, intermediate_values
from advisor.store.telling import ValueOf, told, why
from advisor.store.trial_folder import TrialFolder, committed, has_trials
from advisor.store.yaml_files import cannot_write, read_text, sweep, write_atomic

IDENTITY = "identity.json"
LADDERS = "ladders"
"""User attribute of a study: the values that its parameters, which are indices, stand for."""


class OptunaLedger:
    """Implements `domain.ports.Ledger`. A context manager: leaving it lets other processes use the folder.

    Args:
        run: Folder of the run; made when it is not there.
        name: Of the Optuna study, unique in a shared storage.
        space: Restricted to what the study searches.
        proposer: Of the search trials.
        slo: Limits, told to Optuna as constraints.
        value_of: Gain of a measured trial; larger is better.
        seed: Of the study.
        identity: What makes trials comparable, in words: a resumed study must have the same.
        storage: Optuna storage URL; none for a journal file in the run folder.
        resume: Allow finished trials in the folder.

    Raises:
        BadInput: another process tunes here, another study lies here, finished trials without `resume`, or damage.
    """

    def __init__(
        self,
        run: Path,
        *,
        name: str,
        space: SearchSpace,
        proposer: Proposer,
        slo: Slo,
        value_of: ValueOf,
        seed: int,
        identity: Mapping[str, str],
        storage: str | None = None,
        resume: bool = True,
    ) -> None:
        self._run = run
        self._space = space
        self._slo = slo
        self._value_of = value_of
        self._lock = RunLock(run)
        try:
            sweep(run)
            self._check_start(identity, resume)
            self._records = {record.number: record for record in committed(run)}
            self._sampler = ProposerSampler(space, proposer, self.records, seed)
            self._where = storage.partition(":")[0] if storage else str(run / JOURNAL)
            with self._talking():
                self.study = self._open_study(name, storage)
                self._interrupted = self._catch_up()
            self._note_identity(identity)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> OptunaLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process work in the folder. A trial in flight stays open for the next one."""
        self.study._storage.remove_session()
        if isinstance(self._storage, optuna.storages.RDBStorage):
            self._storage.engine.dispose()
        self._lock.release()

    def records(self) -> tuple[TrialRecord, ...]:
        """All committed trials, in number order."""
        return tuple(self._records[number] for number in sorted(self._records))

    def folder(self, number: int) -> TrialFolder:
        """Where the evidence of a trial lies."""
        return TrialFolder(self._run, number)

    def ask(self, role: Role, fixed: Proposal | None = None) -> Asked:
        """Open the next trial: an interrupted one where that is what is asked for, else a new one.

        Args:
            role: Of the trial.
            fixed: The configuration; none lets the proposer choose.
        """
        with self._talking():
            trial_id, noted = self._interrupted_trial(role, fixed)
            with self._sampler.asking(role, noted or fixed):
                trial = self.study.ask() if trial_id is None else optuna.Trial(self.study, trial_id)
                self._settle(trial)
            opened = noted_proposal(self._trial(trial.number))
        assert opened is not None
        self.folder(trial.number).begin()
        proposal = opened[1]
        return Asked(
            number=trial.number,
            config=proposal.config,
            role=role,
            origin=proposal.origin,
            expected_gain=proposal.expected_gain,
        )

    def commit(self, record: TrialRecord) -> None:
        """Finish a trial: on disk first, then in Optuna.

        Raises:
            BadInput: the disk refused; the trial is then still open.
        """
        if record.number in self._records:
            raise ValueError(f"trial {record.number} is already committed")
        if record.number >= len(self.study.get_trials(deepcopy=False)):
            raise ValueError(f"trial {record.number} was never asked")
        self.folder(record.number).commit(record)
        self._records[record.number] = record
        with self._talking():
            self._tell(self._trial(record.number), record)

    # -- opening -----------------------------------------------------------------------------------------------------

    def _check_start(self, identity: Mapping[str, str], resume: bool) -> None:
        path = self._run / IDENTITY
        if path.exists():
            known = _identity(path)
            names = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
            if names:
                changes = "; ".join(f"{name} was {known.get(name)!r}, now {identity.get(name)!r}" for name in names)
                raise BadInput(
                    f"{self._run} holds another study ({changes}), and their trials cannot be compared. "
                    "Choose another folder with --out, or remove this one."
                )
        if not resume and has_trials(self._run):
            raise BadInput(
                f"{self._run} already holds finished trials. Go on with --resume, choose another folder with --out, "
                "or remove this one to start afresh."
            )

    def _note_identity(self, identity: Mapping[str, str]) -> None:
        """Only once the study is open: a start that was refused must not bind the next one."""
        path = self._run / IDENTITY
        if not path.exists():
            write_atomic(path, json.dumps(dict(identity), indent=1) + "\n")

    def _open_study(self, name: str, storage: str | None) -> optuna.Study:
        self._storage = database(storage) if storage else _journal(self._run / JOURNAL)
        study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction="maximize",
            sampler=self._sampler,
            load_if_exists=True,
        )
        if LADDERS not in study.user_attrs:
            study.set_user_attr(LADDERS, {each.name: list(each.values) for each in self._space.active})
        return study

    def _catch_up(self) -> list[FrozenTrial]:
        """Tell Optuna what is committed but not told; returns the trials that were in flight."""
        trials = self.study.get_trials(deepcopy=False)
        if not self._records and any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials):
            raise BadInput(
                f"The study's storage ({self._where}) knows finished trials, but {self._run} holds none of them. "
                "Copy the run folder too, or remove the study from the storage to start afresh."
            )
        for record in self.records():
            for _ in range(len(self.study.get_trials(deepcopy=False)), record.number):
                self.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"outcome": "removed"}))
            if record.number == len(self.study.get_trials(deepcopy=False)):
                self.study.add_trial(self._retold(record))
            elif not self._trial(record.number).state.is_finished():
                self._tell(self._trial(record.number), record)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return list(running)

    def _interrupted_trial(self, role: Role, fixed: Proposal | None) -> tuple[int | None, Proposal | None]:
        """The trial to repeat and what it proposed; interrupted trials that nobody asks for again are closed."""
        while self._interrupted:
            trial = self._interrupted.pop(0)
            noted = noted_proposal(trial)
            if noted is None:
                return trial._trial_id, None
            if noted[0] == role and (fixed is None or fixed.config == noted[1].config):
                return trial._trial_id, noted[1]
            self.study.tell(trial.number, state=TrialState.FAIL)
        return None, None

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, trial: FrozenTrial, record: TrialRecord) -> None:
        facts = told(record, self._slo, self._value_of)
        for key, value in self._attributes(record).items():
            self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
        live = optuna.Trial(self.study, trial._trial_id)
        with self._sampler.asking(record.role, _proposal(record)):
            self._settle(live)
        # Constraints are write-once, so they come last; what a crash between them left is the same.
        for key, value in facts.constraints.items():
            if key not in trial.constraints:
                live.set_constraint(key, value)
        if facts.reported is not None and not trial.intermediate_values:
            live.report(facts.reported, REPORTED_STEP)
        self.study.tell(trial.number, facts.value, TrialState[facts.state])

    def _settle(self, trial: optuna.Trial) -> None:
        """Sample what is not sampled yet, and have the proposal noted even where every ladder has one step."""
        for dimension in self._space.active:
            trial.suggest_int(dimension.name, 0, len(dimension.values) - 1)
        if noted_proposal(self._trial(trial.number)) is None:
            _ = trial.relative_params

    def _retold(self, record: TrialRecord) -> FrozenTrial:
        facts = told(record, self._slo, self._value_of)
        return create_trial(
            state=TrialState[facts.state],
            value=facts.value,
            params=dict(indices_of(self._space, record.config)),
            distributions=distributions(self._space),
            user_attrs={PROPOSAL: note(record.role, _proposal(record)), **self._attributes(record)},
            constraints=facts.constraints,
            intermediate_values=intermediate_values(facts),
        )

    def _attributes(self, record: TrialRecord) -> dict[str, Any]:
        """What dashboards show: they know nothing of constraints, so feasibility is said in words."""
        metrics = {w.workload: w.metrics.output_tok_per_s_per_gpu for w in record.workloads if w.metrics is not None}
        facts = told(record, self._slo, self._value_of)
        return {
            "outcome": record.ending,
            "feasible": facts.feasible,
            "reason": why(record, facts),
            "engine": record.engine_label,
            "output_tok_per_s_per_gpu": metrics,
            **_memory(record),
        }

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Talk to Optuna: quietly, and with what its storage refuses as an error of ours."""
        with quiet_optuna():
            try:
                yield
            except OSError as error:
                raise cannot_write(Path(self._where), error) from None
            except optuna.exceptions.StorageInternalError as error:
                raise BadInput(f"The study's storage ({self._where}) refused: {error}") from None


def _proposal(record: TrialRecord) -> Proposal:
    return Proposal(config=record.config, origin=record.origin, expected_gain=record.expected_gain)


def _memory(record: TrialRecord) -> dict[str, float]:
    """GiB on the fullest GPU, as far as they are known."""
    seen, foreseen, outcome = record.memory_measured_gib, record.memory_predicted_gib, record.outcome
    known: dict[str, float] = {}
    if seen is not None:
        known |= {"memory_used_gib": seen.used, "memory_left_gib": seen.left_free}
    if foreseen is not None:
        known["memory_left_predicted_gib"] = foreseen.left_free
    if isinstance(outcome, OutOfMemory):
        known["memory_short_gib"] = outcome.short_gib
    return {name: round(size_gib, 3) for name, size_gib in known.items()}


def _identity(path: Path) -> dict[str, str]:
    try:
        known = json.loads(read_text(path))
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise BadInput(f"{path} is damaged: restore it from a copy, or remove it if you are sure what was tuned here.")
    return known


def _journal(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    mend(path)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise damaged(path, f"its entries contradict each other ({error!r})") from None


def database(url: str) -> optuna.storages.BaseStorage:
    """A database by URL; the URL itself is never repeated, since it may hold a password.

    Raises:
        BadInput: it cannot be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError

    kind = url.partition(":")[0]
    try:
        return optuna.storages.RDBStorage(url)
    except (ImportError, ValueError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise BadInput(
            f"Cannot open the {kind} storage ({type(error).__name__}). Write it as sqlite:////path/study.db or "
            "postgresql://user@host/database, with the driver installed; or leave --storage out for a journal file."
        ) from None
