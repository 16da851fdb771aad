"""One trial: launch, probe, measure every workload, stop. A function from request to record."""

from __future__ import annotations

import time
from collections.abc import Callable

from advisor.app.engines import load_engine
from advisor.domain.errors import BadInput, EngineFailed
from advisor.domain.measurement import EffectiveSettings, LoadPoint, MemoryReport, ProfiledMemory, WorkloadOutcome
from advisor.domain.outcome import RETRIED_ONCE, BadConfig, Evidence, Infrastructure, Measured, Outcome, Unhealthy
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
from advisor.search.loads import at_load, best_load, next_load, worst_excess

LOAD_SEED = 61  # more than a study has workloads; times the loads of one of them below the referee's
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
    stop: Stop = never,
    on_event: OnEvent = silent,
    evidence: EvidenceStore | None = None,
) -> TrialRecord:
    """Make one trial; a launch that timed out or crashed gets a second try before it counts.

    Args:
        request: All there is to know, serialisable.
        engine: The engine when the caller has it already; else it is loaded by the request's name.
        stop: Sees partial results and may end a benchmark early.
        on_event: Called as phases pass and numbers settle.
        evidence: Takes the command line, the configuration file and the per-request samples.
    """
    engine = engine or load_engine(request.engine)
    evidence = evidence or NoEvidence()
    launch = _launch(request, engine, stop, on_event, evidence)
    n_attempts = int(launch.started)
    if launch.is_worth_another and request.max_attempts > 1:
        launch, n_attempts = _launch(request, engine, stop, on_event, evidence), 2
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
    soak: Soak | None = None

    @property
    def is_worth_another(self) -> bool:
        """True when a second start may end otherwise: after a crash, a timeout or a port lost in a race."""
        transient = isinstance(self.outcome, Infrastructure) and self.outcome.transient
        return transient or isinstance(self.outcome, RETRIED_ONCE)


def _launch(request: TrialRequest, engine: Engine, stop: Stop, on_event: OnEvent, evidence: EvidenceStore) -> _Launch:
    spec = request.spec
    try:
        prepared = engine.prepare(spec)
    except BadInput as error:
        return _Launch(outcome=BadConfig(reason=str(error)), started=False)
    evidence.write_launch(prepared.argv, prepared.config_text)
    try:
        started = prepared.start(on_event, evidence)
    except OUTSIDE as error:
        return _Launch(outcome=Infrastructure(reason=_text(error)))
    with started as server:
        outcome = server.failure() or unhealthy(server.effective(), spec)
        measured: tuple[WorkloadOutcome, ...] = ()
        loads: list[PhaseTiming] = []
        soak: Soak | None = None
        if outcome is None and spec.fidelity == "full":
            began_s = time.monotonic()
            measured, outcome = _measure(server, request, engine, stop, on_event, evidence)
            if outcome is None and request.soak is not None:
                soak, outcome = _soak(server, request, request.soak, engine, on_event)
            if server.endpoint is not None:  # real time passed, which only we can tell
                loads.append(PhaseTiming(name="serve", duration_s=time.monotonic() - began_s))
        return _Launch(
            outcome=outcome or Measured(),
            workloads=measured,
            phases=(*server.phases(), *loads),
            effective=server.effective(),
            memory_measured_gib=server.memory(),
            profiled_gib=server.profiled(),
            surprises=server.surprises(),
            soak=soak,
        )


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
    if measured.stopped_early:
        return Unhealthy(reason=f"{measured.workload} was stopped early: {measured.note or 'hopeless'}")
    if measured.metrics is None:
        return Infrastructure(reason=measured.note or f"{measured.workload} could not be measured")
    return None


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


def _measure(
    server: RunningServer, request: TrialRequest, engine: Engine, stop: Stop, on_event: OnEvent, evidence: EvidenceStore
) -> tuple[tuple[WorkloadOutcome, ...], Outcome | None]:
    """Every workload in turn, in the study's order; what was measured before a crash stays valid."""
    measurer = engine.measurer()
    done: dict[int, WorkloadOutcome] = {}
    failure: Outcome | None = None
    for place, workload in by_growing_memory(request.spec.workloads):
        # No two benchmarks of a launch share a seed: equal prompts would hit the prefix cache.
        seed = request.spec.seed * 1009 + place

        def measure(loaded: Workload, n_before: int, seed: int = seed) -> WorkloadOutcome:
            return measurer.measure(server, loaded, seed + LOAD_SEED * n_before, stop, on_event, evidence)

        try:
            done[place] = measure(workload, 0)
            trouble = judged(done[place])
            if trouble is None:
                done[place], trouble = _at_best_load(request, workload, done[place], measure)
            if trouble is None and request.referee:
                loaded = at_load(workload, done[place].concurrency)
                report = measurer.referee(server, loaded, seed + REFEREE_SEED, evidence)
                done[place] = changed(done[place], referee=report)
        except OUTSIDE as error:
            trouble = Infrastructure(reason=f"{workload.name}: {_text(error)}")
        # The server is asked first: an OOM under load is an OOM, not a broken benchmark.
        failure = server.failure() or trouble
        if failure is not None:
            break
    return tuple(done[place] for place in sorted(done)), failure


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
