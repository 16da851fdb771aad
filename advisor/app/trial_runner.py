"""One trial: launch, probe, measure every workload, stop. A function from request to record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from advisor.app.engines import load_engine
from advisor.domain.answers import AnswerQuestion, GreedyAnswers
from advisor.domain.errors import BadInput, EngineFailed
from advisor.domain.measurement import (
    EffectiveSettings,
    LoadPoint,
    MemoryReport,
    Metrics,
    ProfiledMemory,
    WorkloadOutcome,
)
from advisor.domain.outcome import (
    RETRIED_ONCE,
    BadConfig,
    Evidence,
    Hopeless,
    Infrastructure,
    Measured,
    Outcome,
    Started,
    Unhealthy,
)
from advisor.domain.ports import (
    Engine,
    EvidenceStore,
    LaunchSpec,
    NoEvidence,
    OnEvent,
    RunningServer,
    Stop,
    TrialEvent,
    TrialRequest,
)
from advisor.domain.strict import StrictModel, changed
from advisor.domain.trial import PhaseTiming, Soak, TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.answers import drift_refusal
from advisor.metrics.definitions import average
from advisor.search.contending import next_repeat
from advisor.search.hopeless import Watch
from advisor.search.loads import at_load, best_load, next_load, worst_excess

LOAD_SEED = 61  # more than a study has workloads; times the benchmarks of one of them below the referee's
REFEREE_SEED = 499  # beyond any number of workloads, within what two trials are apart
SOAK_SEED = 997
OUTSIDE = (EngineFailed, OSError)
"""What a launch or a client raises when something beside the configuration is broken: a port, a socket, a driver."""


def never(_: object) -> bool:
    """A stop rule that never stops."""
    return False


def silent(_: TrialEvent) -> None:
    """An event sink for nobody."""


def run_trial(
    request: TrialRequest,
    engine: Engine | None = None,
    on_event: OnEvent = silent,
    evidence: EvidenceStore | None = None,
) -> TrialRecord:
    """Make one trial; a launch that timed out or crashed gets a second try before it counts.

    Args:
        request: All there is to know, serialisable.
        engine: The engine when the caller has it already; else it is loaded by the request's name.
        on_event: Called as phases pass and numbers settle.
        evidence: Takes the command line, the configuration file and the per-request samples.
    """
    engine = engine or load_engine(request.engine)
    evidence = evidence or NoEvidence()
    launch = _launch(request, engine, on_event, evidence)
    n_attempts = int(launch.started)
    if launch.is_worth_another and request.max_attempts > 1:
        launch, n_attempts = _launch(request, engine, on_event, evidence), 2
    identity = engine.identity()
    return TrialRecord(
        number=request.number,
        role=request.role,
        origin=request.origin,
        config=request.spec.config,
        source=identity.source,
        engine_label=identity.label,
        seed=request.spec.seed,
        memory_predicted_gib=request.memory_predicted_gib,
        expected_gain=request.expected_gain,
        n_attempts=n_attempts,
        **{name: getattr(launch, name) for name in _Launch.model_fields if name != "started"},
    )


class _Launch(StrictModel):
    """What one process start showed; `started` is False where nothing was."""

    outcome: Outcome
    started: bool = True
    workloads: tuple[WorkloadOutcome, ...] = ()
    phases: tuple[PhaseTiming, ...] = ()
    effective: EffectiveSettings | None = None
    memory_measured_gib: MemoryReport | None = None
    profiled_gib: ProfiledMemory | None = None
    surprises: tuple[str, ...] = ()
    answers: GreedyAnswers | None = None
    soak: Soak | None = None

    @property
    def is_worth_another(self) -> bool:
        """True when a second start may end otherwise: after a crash, a timeout or a port lost in a race."""
        transient = isinstance(self.outcome, Infrastructure) and self.outcome.transient
        return transient or isinstance(self.outcome, RETRIED_ONCE)


def _launch(request: TrialRequest, engine: Engine, on_event: OnEvent, evidence: EvidenceStore) -> _Launch:
    spec = request.spec
    try:
        prepared = engine.prepare(spec)
    except BadInput as error:
        return _Launch(outcome=BadConfig(reason=str(error)), started=False)
    evidence.write_launch(prepared.argv, prepared.config_text, prepared.config_name)
    try:
        started = prepared.start(on_event, evidence)
    except OUTSIDE as error:
        return _Launch(outcome=Infrastructure(reason=_text(error)))
    with started as server:
        outcome = server.failure() or unhealthy(server.effective(), spec)
        measured: tuple[WorkloadOutcome, ...] = ()
        loads: list[PhaseTiming] = []
        answers: GreedyAnswers | None = None
        soak: Soak | None = None
        if outcome is None and request.answers is not None and spec.fidelity == "full":  # dummy weights say nothing
            on_event(TrialEvent(kind="phase", phase="answers"))
            answers, outcome = _answers(server, request.answers, engine)
        if outcome is None and spec.fidelity == "full":
            began_s = time.monotonic()
            measured, outcome = _Benchmarks(server, request, engine, on_event, evidence).run()
            if outcome is None and request.soak is not None:
                soak, outcome = _soak(server, request, request.soak, engine, on_event)
            if server.endpoint is not None:  # real time passed, which only we can tell
                loads.append(PhaseTiming(name="serve", duration_s=time.monotonic() - began_s))
        return _Launch(
            outcome=outcome or hopeless(measured) or (Measured() if spec.fidelity == "full" else Started()),
            workloads=measured,
            phases=(*server.phases(), *loads),
            effective=server.effective(),
            memory_measured_gib=server.memory(),
            profiled_gib=server.profiled(),
            surprises=server.surprises(),
            answers=answers,
            soak=soak,
        )


def _answers(
    server: RunningServer, asked: AnswerQuestion, engine: Engine
) -> tuple[GreedyAnswers | None, Outcome | None]:
    """What the server answers, before anything is measured: what departs too far costs no benchmark."""
    try:
        answers = engine.measurer().answers(server, repeats=asked.reference is None)
    except OUTSIDE as error:
        return None, server.failure() or Infrastructure(reason=_text(error))
    refusal = None if answers is None else drift_refusal(answers, asked)
    return answers, None if refusal is None else Unhealthy(reason=refusal)


def unhealthy(effective: EffectiveSettings | None, spec: LaunchSpec) -> Unhealthy | None:
    """A server whose KV pool or effective `max_seq_len` cannot hold the study's longest request."""
    if effective is None:
        return None
    longest = max(workload.max_tokens_per_request for workload in spec.workloads)
    for what, tokens in (("KV pool", effective.kv_tokens), ("effective max_seq_len", effective.max_seq_len)):
        if tokens < longest:
            reason = f"the {what} holds {tokens:,} tokens, the longest request needs {longest:,}"
            return Unhealthy(reason=reason, evidence=(Evidence(line=0, text=f"{what} = {tokens} tokens"),))
    return None


def judged(measured: WorkloadOutcome) -> Outcome | None:
    """What a benchmark on a server that lives says against its trial, or None."""
    if measured.n_short:  # the server answered wrongly, and would again
        return Unhealthy(reason=f"{measured.workload}: {measured.note or f'{measured.n_short} requests fell short'}")
    if measured.client is not None and measured.client.saturated:
        return Infrastructure(reason=f"{measured.workload}: {measured.note or 'the client was the limit'}")
    if measured.metrics is None and not measured.stopped_early:
        return Infrastructure(reason=measured.note or f"{measured.workload} could not be measured")
    return None


def hopeless(workloads: tuple[WorkloadOutcome, ...]) -> Hopeless | None:
    """The verdict on a launch whose server did well, if some of its benchmarks were stopped early."""
    stopped = [f"{each.workload}: {each.note}" for each in workloads if each.stopped_early]
    return Hopeless(reason="; ".join(stopped)) if stopped else None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def by_growing_memory(workloads: tuple[Workload, ...]) -> list[tuple[int, Workload]]:
    """Workloads with their place in the study, the one that fills least KV cache first."""

    def kv_demand(entry: tuple[int, Workload]) -> float:
        workload = entry[1]
        return workload.max_tokens_per_request * (workload.concurrency or workload.requests())

    return sorted(enumerate(workloads), key=kv_demand)


def _at_best_load(
    request: TrialRequest,
    workload: Workload,
    first: WorkloadOutcome,
    measure: Callable[[Workload, int], WorkloadOutcome],
) -> tuple[WorkloadOutcome, Outcome | None]:
    """With goodput as objective, the workload at the best of the loads up to its concurrency, on the same launch.

    Args:
        request: Says the objective and the limits.
        workload: At its own concurrency.
        first: What was measured there.
        measure: Measures it at another load, told how many were measured before.
    """
    goal, slo, most = request.goal, request.spec.slo, workload.concurrency
    if goal.metric != "goodput" or most is None:
        return first, None
    tried = {most: first}
    while (load := next_load({at: worst_excess(outcome, slo) for at, outcome in tried.items()}, most)) is not None:
        tried[load] = measure(at_load(workload, load), len(tried))
        if (trouble := judged(tried[load])) is not None:
            return first, trouble
    best = best_load(tried, goal, slo)
    loads = tuple(LoadPoint(concurrency=at, metrics=m) for at in sorted(tried) if (m := tried[at].metrics) is not None)
    return changed(tried[best], workload=workload.name, concurrency=best, loads=loads), None


def _watch(request: TrialRequest, workload: Workload) -> Watch | None:
    """The rule that stops a benchmark of a workload, None where it has nothing to beat."""
    to_beat = next((each for each in request.incumbents if each.workload == workload.name), None)
    if to_beat is None or not request.early_stop:
        return None
    deployed = request.spec.deployment.with_options(request.spec.config.options)
    return Watch(to_beat, request.goal, request.spec.slo, deployed.gpus, workload.concurrency)


class _Repeat(NoEvidence):
    """Keeps the samples of a repeat beside those of the first benchmark."""

    def __init__(self, evidence: EvidenceStore, number: int) -> None:
        self._evidence, self._number = evidence, number

    def write_samples(self, workload_name: str, samples: Mapping[str, NDArray[Any]]) -> None:
        """Under the workload's name and the number of the run."""
        self._evidence.write_samples(f"{workload_name}-run{self._number}", samples)


class _Benchmarks:
    """The benchmarks of one launch; what was measured before a crash stays valid."""

    def __init__(
        self, server: RunningServer, request: TrialRequest, engine: Engine, on_event: OnEvent, evidence: EvidenceStore
    ) -> None:
        self.server, self.request, self.measurer = server, request, engine.measurer()
        self.on_event, self.evidence = on_event, evidence
        self.start_s = sum(phase.duration_s for phase in server.phases())
        self.workloads = by_growing_memory(request.spec.workloads)
        self.done: dict[int, WorkloadOutcome] = {}

    def run(self) -> tuple[tuple[WorkloadOutcome, ...], Outcome | None]:
        """Every workload, then again what is undecided: outcomes in the study's order, and what ended the launch."""
        failure: Outcome | None = None
        for place, workload in self.workloads:
            try:
                trouble = self._measure(place, workload)
            except OUTSIDE as error:
                trouble = Infrastructure(reason=f"{workload.name}: {_text(error)}")
            # The server is asked first: an OOM under load is an OOM, not a broken benchmark.
            failure = self.server.failure() or trouble
            if failure is not None:
                break
        else:
            failure = self._repeat()
        return tuple(self.done[place] for place in sorted(self.done)), failure

    def _measure(self, place: int, workload: Workload) -> Outcome | None:
        """One workload, at its best load where that is searched, and the referee after it."""
        request = self.request

        def measure(loaded: Workload, n_before: int) -> WorkloadOutcome:
            watch = _watch(request, loaded)
            outcome = self._benchmark(place, loaded, n_before, watch or never, self.evidence)
            if watch is None or not outcome.stopped_early:
                return outcome
            return changed(outcome, note=watch.reason, so_far=watch.so_far)

        self.done[place] = measure(workload, 0)
        trouble = judged(self.done[place])
        if trouble is None:
            self.done[place], trouble = _at_best_load(request, workload, self.done[place], measure)
        if trouble is None and request.referee:
            self.on_event(TrialEvent(kind="phase", phase="referee", detail=workload.name))
            loaded = at_load(workload, self.done[place].concurrency)
            report = self.measurer.referee(self.server, loaded, self._seed(place) + REFEREE_SEED, self.evidence)
            self.done[place] = changed(self.done[place], referee=report)
        return trouble

    def _repeat(self) -> Outcome | None:
        """What noise within the launch leaves undecided, for no longer than the start took: a launch tells more.

        All workloads were served, so memory grows no further. A repeat that does not count leaves what was measured.
        """
        request, seconds_left = self.request, self.start_s
        runs: dict[str, tuple[Metrics, ...]] = {
            each.workload: (each.metrics,) for each in self.done.values() if each.metrics is not None
        }
        places = {workload.name: (place, workload) for place, workload in self.workloads}
        while name := next_repeat(runs, request.incumbents, request.goal, request.spec.slo, seconds_left):
            (place, workload), n_before = places[name], len(runs[name])
            try:
                again = self._benchmark(place, workload, n_before, never, _Repeat(self.evidence, n_before + 1))
            except OUTSIDE:
                return self.server.failure()
            if self.server.failure() is not None or again.metrics is None or judged(again) is not None:
                return self.server.failure()
            runs[name] = (*runs[name], again.metrics)
            seconds_left -= again.metrics.duration_s
            self.done[place] = changed(self.done[place], metrics=average(runs[name]), repeats=runs[name], ci95=None)
        return None

    def _benchmark(
        self, place: int, workload: Workload, n_before: int, stop: Stop, evidence: EvidenceStore
    ) -> WorkloadOutcome:
        seed = self._seed(place) + LOAD_SEED * n_before
        return self.measurer.measure(self.server, workload, seed, stop, self.on_event, evidence)

    def _seed(self, place: int) -> int:
        """No two benchmarks of a launch share a seed: equal prompts would hit the prefix cache."""
        return self.request.spec.seed * 1009 + place


def _soak(
    server: RunningServer, request: TrialRequest, workload: Workload, engine: Engine, on_event: OnEvent
) -> tuple[Soak | None, Outcome | None]:
    """The server under the heaviest load; how fast it is there is nobody's business, so nothing else is kept.

    Where something beside the server is broken nothing is said of it: what was measured before stays valid.
    """
    seed, failure = request.spec.seed * 1009 + SOAK_SEED, None
    try:
        served = engine.measurer().measure(server, workload, seed, never, on_event, NoEvidence())
        failure = server.failure() or (judged(served) if served.n_short else None)
    except OUTSIDE:
        failure = server.failure()
        if failure is None:
            return None, None
    memory = server.memory()
    report = Soak(
        survived=failure is None,
        n_requests=workload.requests(),
        tokens_per_request=workload.max_tokens_per_request,
        concurrency=workload.concurrency,
        free_gib=None if memory is None else memory.headroom,
    )
    return report, failure
