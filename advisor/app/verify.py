"""`verify`: the winner of a result launched again, measured as before, and held against what was said of it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from advisor.app.changes import gains_of, memory_changes, metric_changes, others_of, reference_of, values_of
from advisor.app.engines import load_engine
from advisor.app.manifest import RESULT_NAME
from advisor.app.result_folders import check_config, max_seq_len_of, read_result, result_folders, sha256
from advisor.app.results import Result, ResultEntry
from advisor.app.trial_runner import run_trial
from advisor.app.verifiable import alarm_of_one_test, deciding_metrics, launches_needed
from advisor.app.verification import (
    VERIFIED,
    LimitCheck,
    TestedMetric,
    Verdict,
    Verification,
    VerifyReport,
    drift_text,
    last_verification,
    seen,
    unlike,
)
from advisor.domain.errors import BadInput, EngineFailed, EngineMissing, Interrupted
from advisor.domain.measurement import Metrics
from advisor.domain.outcome import Infrastructure, summary
from advisor.domain.ports import CancelToken, Engine, EngineRef, EvidenceStore, LaunchSpec, NoEvidence, TrialRequest
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, changed
from advisor.domain.trial import TrialRecord
from advisor.engines.spoken import ENGINES_SPOKEN
from advisor.host.process import end_leftovers
from advisor.metrics.verdict import FULL_REFERENCE, LOOKS, LOSS, Look, decide, limit_state, looks
from advisor.search.soaking import soak_workload
from advisor.store.trial_folder import TrialFolder
from advisor.store.yaml_files import write_atomic

TWIN = "twin"
EVIDENCE = "verify"
SEED = 50_021  # beyond the trials of a study, within what two of its seeds are apart
SEED_STRIDE = 100_003
TWIN_TOLERANCE = 0.2  # the twin is within so much of published measurements


class How(StrictModel):
    """How to verify. `auto` is the engine that found the result; nothing falls back to the twin."""

    engine: str = "auto"
    twin_world: int | None = Field(default=None, ge=0, description="None: the world of the result")
    container_image: str | None = None
    launch_prefix: str | None = None
    client_check: bool = True
    max_launches: int = Field(default=LOOKS[-1], ge=1)


@dataclass(frozen=True)
class Task:
    """A result that was read and found whole, and the engine that is to repeat it."""

    folder: Path
    result: Result
    best: ResultEntry
    max_seq_len: int
    previous: Verification | None
    engine: Engine
    ref: EngineRef

    @property
    def is_prediction(self) -> bool:
        """One of the two sides is simulated, the other measured."""
        return self.engine.identity().source != self.result.source

    @property
    def differences(self) -> tuple[str, ...]:
        """What is not as it was when the result was found."""
        now, then = self.engine.identity().label, self.result.label
        return () if now == then else (f"The result was {then}; this is {now}.",)

    @property
    def reference(self) -> tuple[Metrics, ...]:
        """Of the result, and of the verifications since that passed."""
        return reference_of(self.result) if self.previous is None else self.previous.reference


def verify(
    path: Path, how: How, note: Callable[[str], None], cancel: CancelToken, engine: Engine | None = None
) -> VerifyReport:
    """Launch the winners in a folder again and say whether they still do what was measured of them.

    Args:
        path: `results/STUDY/RUN`, one workload's folder in it, or a `result.json`.
        how: The engine and the most launches of each winner.
        note: Told how it goes, a line a launch.
        cancel: Asked between launches.
        engine: The engine when the caller has it already; else it is loaded by its name.

    Raises:
        BadInput: a result that is damaged, was changed, or has no winner.
        EngineMissing: the engine of the result is not here.
        EngineFailed: something beside the server is broken.
        Interrupted: cancelled before it was decided.
    """
    tasks = [task for folder in result_folders(path) if (task := _task(folder, how, engine)) is not None]
    if not tasks:
        raise BadInput(f"{path}: this study found no configuration that serves its workload; nothing can be verified.")
    found = []
    for task in tasks:
        for difference in task.differences:
            note(f"{task.result.workload_name}: {difference}")
        verification = _Verifier(task, how.max_launches, len(tasks), note, cancel).run()
        found.append(_kept(task.folder, verification, note))
    worst = max((each.verdict for each in found), key=("PASS", "DRIFT", "FAIL").index)
    return VerifyReport(verdict=worst, workloads=tuple(found))


def _task(folder: Path, how: How, engine: Engine | None) -> Task | None:
    """A result ready to be verified; None where it has no winner."""
    result = read_result(folder)
    if result.best is None:
        return None
    max_seq_len = max_seq_len_of(folder, result)
    check_config(folder, result, max_seq_len)
    ref = _engine_ref(result, how)
    engine = engine or load_engine(ref)
    why = engine.missing(result.deployment)
    if why is not None:
        raise EngineMissing(f"Engine {ref.name!r}, which is to serve {folder}, cannot run here: {why}.")
    return Task(folder, result, result.best, max_seq_len, last_verification(folder), engine, ref)


def _engine_ref(result: Result, how: How) -> EngineRef:
    own = result.engine if result.source == "measured" else TWIN
    name = own if how.engine == "auto" else how.engine
    launch: dict[str, OptionValue | None] = {
        "container_image": how.container_image,
        "launch_prefix": how.launch_prefix,
        "client_check": None if how.client_check else False,
    }
    said = {option: value for option, value in launch.items() if value is not None}
    if name == TWIN:
        if said:
            raise BadInput(f"--{next(iter(said)).replace('_', '-')} means nothing to the twin, which launches nothing.")
        world = result.twin_world if how.twin_world is None else how.twin_world
        return EngineRef(name=TWIN, options={"world": world} if world else {})
    if how.twin_world is not None:
        raise BadInput(f"--twin-world means nothing to engine {name!r}; use --engine {TWIN}.")
    if name in ENGINES_SPOKEN and name != result.deployment.engine:
        raise BadInput(f"The result is a {result.deployment.engine} configuration; engine {name!r} cannot serve it.")
    return EngineRef(name=name, options=said)


def _kept(folder: Path, verification: Verification, note: Callable[[str], None]) -> Verification:
    """The verification, written beside the result where that is possible: the verdict matters more than its file."""
    try:
        write_atomic(folder / VERIFIED, verification.model_dump_json(indent=2) + "\n")
    except BadInput as error:
        note(f"The verdict stands, but is not kept: {str(error).partition('. ')[0]}.")
    return verification


class _Verifier:
    """The launches of one verification, one after the other, until the plan says that they suffice."""

    def __init__(
        self, task: Task, max_launches: int, n_tasks: int, note: Callable[[str], None], cancel: CancelToken
    ) -> None:
        self.task, self.note, self.cancel, self.max_launches = task, note, cancel, max_launches
        result = task.result
        alarm = alarm_of_one_test(result.objective, result.workload, result.slo, n_tasks)
        self.n_tasks, self.plan = n_tasks, looks(max_launches, alarm)
        self.n_before = 0 if task.previous is None else task.previous.n_ever
        self.records: list[TrialRecord] = []
        self.runs: list[Metrics] = []

    def run(self) -> Verification:
        """To the verdict; servers that an earlier verification left, killed with its guardian, are ended first."""
        end_leftovers(str((self.task.folder / EVIDENCE).absolute()))
        for look in self.plan:
            while len(self.runs) < look.n_launches:
                reasons = self._launch()
                if reasons:
                    return self._verification("FAIL", reasons)
            tested, limits = self._tested(look), self._limits(look)
            broken = [
                f"{each.limit} is {each.mean_ms:,.1f} ms, above {each.limit_ms:g} ms"
                for each in limits
                if each.state == "broken"
            ]
            drifted = [each for each in tested if each.decision.direction in ("slower", "faster")]
            if broken:
                return self._verification("FAIL", broken, tested, limits)
            if drifted:
                return self._verification("DRIFT", [drift_text(each) for each in drifted], tested, limits)
            open_yet = any(each.decision.direction is None for each in tested)
            if look.is_last or not (open_yet or any(each.state == "edge" for each in limits)):
                return self._verification("PASS", [], tested, limits)
        raise AssertionError("the last look decides")

    def _launch(self) -> list[str]:
        """One more launch; what is wrong with it."""
        if self.cancel.cancelled:
            raise Interrupted("stopped before the verification was decided; nothing is left running.")
        number = len(self.records) + 1
        record = run_trial(self._request(number), self.task.engine, evidence=self._evidence(number))
        if isinstance(record.outcome, Infrastructure):
            raise EngineFailed(f"launch {number} of {self.task.folder} says nothing: {summary(record.outcome)}.")
        self.records.append(record)
        reasons = _wrong(record, self.task)
        if not reasons:
            metrics = record.workloads[0].metrics
            assert metrics is not None
            self.runs.append(metrics)
        said = "; ".join(reasons) or f"{self.runs[-1].output_tok_per_s:,.0f} output tok/s, {record.source}"
        self.note(f"{self.task.result.workload_name}: launch {number} of at most {self.max_launches}: {said}")
        return reasons

    def _request(self, number: int) -> TrialRequest:
        task, version = self.task, self.task.engine.identity().version
        fixed: dict[str, int | str] = {"max_seq_len": task.max_seq_len}
        if task.ref.name in ENGINES_SPOKEN and version:
            fixed["engine_version"] = version
        return TrialRequest(
            number=number,
            role="confirmation",
            origin="verify",
            engine=task.ref,
            soak=soak_workload((task.result.workload,)) if number == 1 and task.result.soak is not None else None,
            spec=LaunchSpec(
                deployment=changed(task.result.deployment, **fixed),
                config=task.best.serving_config,
                workloads=(task.result.served,),
                slo=task.result.slo,
                seed=task.result.seed * SEED_STRIDE + SEED + self.n_before + number,
            ),
        )

    def _evidence(self, number: int) -> EvidenceStore:
        """`verify/trials/0001/` beside the result; nothing where that cannot be written."""
        folder = TrialFolder(self.task.folder / EVIDENCE, number)
        try:
            folder.begin()
        except BadInput:
            return NoEvidence()
        return folder

    def _tested(self, look: Look) -> tuple[TestedMetric, ...]:
        task, found = self.task, []
        for name in deciding_metrics(task.result.objective, task.result.workload):
            now, then = gains_of(name, self.runs), gains_of(name, task.reference)
            if not now or not then:
                continue
            others = [values for runs in others_of(task.result) if (values := gains_of(name, runs))]
            decision = decide(now, then, look, others, TWIN_TOLERANCE if task.is_prediction else 0.0)
            found.append(TestedMetric(metric=name, n_reference=len(then), n_launches=len(now), decision=decision))
        return tuple(found)

    def _limits(self, look: Look) -> tuple[LimitCheck, ...]:
        found = []
        for limit in self.task.result.slo.limits:
            now, then = values_of(limit.name, self.runs), values_of(limit.name, self.task.reference)
            if now:
                state = limit_state(now, then, limit.limit_ms, look.alarm)
                mean_ms = sum(now) / len(now)
                found.append(LimitCheck(limit=limit.name, limit_ms=limit.limit_ms, mean_ms=mean_ms, state=state))
        return tuple(found)

    def _verification(
        self,
        verdict: Verdict,
        reasons: Sequence[str],
        tested: tuple[TestedMetric, ...] = (),
        limits: tuple[LimitCheck, ...] = (),
    ) -> Verification:
        task, identity, last = self.task, self.task.engine.identity(), self.records[-1]
        directions = [each.decision.direction for each in tested if each.decision.direction in ("slower", "faster")]
        joins = verdict == "PASS" and not task.differences
        reference = (*task.reference, *self.runs) if joins else task.reference
        return Verification(
            verdict=verdict,
            direction=directions[0] if directions else "same" if tested else None,
            reasons=tuple(reasons),
            comparison="prediction" if task.is_prediction else "like_with_like",
            differences=task.differences,
            notes=self._notes(limits),
            folder=str(task.folder),
            workload_name=task.result.workload_name,
            source=identity.source,
            label=identity.label,
            result_label=task.result.label,
            result_sha256=sha256(task.folder / RESULT_NAME),
            serving_config=task.best.serving_config,
            tested=tested,
            limits=limits,
            changes=metric_changes(task.reference, self.runs, others_of(task.result)) if self.runs else (),
            memory=memory_changes(
                (task.best.memory_gib, task.best.effective), (last.memory_measured_gib, last.effective)
            ),
            soak=self.records[0].soak,
            launches=tuple(seen(record) for record in self.records),
            max_launches=self.max_launches,
            reference=reference[: max(FULL_REFERENCE, len(reference_of(task.result)))],
            n_ever=self.n_before + len(self.records),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )

    def _notes(self, limits: Sequence[LimitCheck]) -> tuple[str, ...]:
        task, notes = self.task, []
        if task.result.status == "candidate":
            notes.append("The result is a candidate: it was picked for one high run, which is high partly by luck.")
        needed = launches_needed(task.result, self.n_tasks, task.reference)
        if not task.is_prediction and len(task.reference) < needed:
            launched = "1 launch stands" if len(task.reference) == 1 else f"{len(task.reference)} launches stand"
            notes.append(
                f"{launched} behind the result, and telling a loss of {100 * LOSS:.0f} % needs {needed}: the study's "
                "command with --resume --verifiable adds them, as do verifications that pass."
            )
        if any(record.n_attempts > 1 for record in self.records):
            notes.append("A launch ended before it served and was tried once more, as in a study.")
        notes += [
            f"{each.limit} is above its limit of {each.limit_ms:g} ms, within noise."
            for each in limits
            if each.state == "edge"
        ]
        return tuple(notes)


def _wrong(record: TrialRecord, task: Task) -> list[str]:
    """What makes a launch fail, whatever its speed."""
    if not record.measured:
        return [f"launch {record.number}: {summary(record.outcome)}"]
    metrics = record.workloads[0].metrics
    if metrics is None:
        return [f"launch {record.number}: {record.workloads[0].note or 'nothing was measured'}"]
    if task.result.objective.metric == "goodput" and not metrics.goodput_request_per_s:
        return [f"launch {record.number}: not one request keeps {task.result.slo.text}"]
    return unlike(task.best.effective, record.effective, capacity=not task.is_prediction)
