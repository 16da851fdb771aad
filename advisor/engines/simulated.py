"""The twin behind the engine port: launches that reserve virtual GiB and run in virtual time.

It plays a world: nominal constants, or constants drawn within the twin's known error (`world` > 0). It is the only
module that knows worlds; what proposes, admits and estimates knows the nominal constants alone.
"""

from __future__ import annotations

import dataclasses
import functools
from types import TracebackType
from typing import Any

from advisor.domain.answers import GreedyAnswers
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import (
    EffectiveSettings,
    MemoryReport,
    ProfiledMemory,
    RefereeReport,
    WorkloadOutcome,
)
from advisor.domain.outcome import BadConfig, Outcome, Phase
from advisor.domain.ports import (
    EngineIdentity,
    EvidenceStore,
    LaunchSpec,
    Measurer,
    MemoryInUse,
    OnEvent,
    PartialResult,
    Prepared,
    RunningServer,
    Stop,
    TrialEvent,
)
from advisor.domain.trial import PhaseTiming
from advisor.domain.workload import Workload
from advisor.engines.spoken import spoken, spoken_by
from advisor.engines.words import as_mapping
from advisor.metrics.schedule import draw_requests
from advisor.metrics.settling import Settling
from advisor.store import catalog
from advisor.store.yaml_files import dump_yaml
from advisor.twin.constants import STARTUP
from advisor.twin.predict import (
    Twin,
    in_use_gib,
    limited_by,
    memory_report,
    metrics_of,
    profiled_memory,
    startup_failure,
)
from advisor.twin.scheduler import Progress
from advisor.twin.simulation import itl_ms
from advisor.twin.worlds import draw_world, measurement_noise

WAVES = 3  # requests = 3 x concurrency: the third wave already repeats the second
START_ORDER: tuple[Phase, ...] = ("launch", "load", "kv_estimate", "kv_allocate", "warm_up")


class SimulatedEngine:
    """Launches configurations of any engine with a dialect on the twin: no GPU, and every number is simulated."""

    def __init__(self, world: int = 0, waves: int = WAVES) -> None:
        self._world = world
        self._waves = waves
        self._constants = draw_world(world)

    def identity(self) -> EngineIdentity:
        """How its numbers are to be called."""
        what = f"world {self._world}, constants drawn within its known error" if self._world else "nominal constants"
        return EngineIdentity(
            name="twin", version=_version(), source="simulated", label=f"simulated by the twin ({what})"
        )

    def prepare(self, spec: LaunchSpec) -> Prepared:
        """Check the configuration as the engine release would, and spell its command line and YAML.

        Raises:
            BadInput: a release or an option that the dialect does not know.
        """
        return SimulatedLaunch(spec, self.twin(spec.deployment))

    def measurer(self) -> Measurer:
        """Measures in virtual time, with the repeatability of a real benchmark."""
        return SimulatedMeasurer(self._waves)

    def missing(self, deployment: Deployment | None) -> str | None:
        """Nothing: it runs anywhere."""
        return None

    def twin(self, deployment: Deployment) -> Twin:
        """The twin of a deployment in this world."""
        return _twin(deployment.model, deployment.engine, deployment.engine_version, self._world)


@functools.lru_cache(maxsize=64)
def _twin(model: str, engine: str, engine_version: str, world: int) -> Twin:
    dialect = spoken(engine, engine_version)
    return Twin(
        catalog.model_facts(model),
        catalog.step_tables,
        constants=draw_world(world),
        ladder_rule=dialect.graph_ladder,
        engine_memory=dialect.memory,
    )


@functools.cache
def _version() -> str:
    from importlib.metadata import version

    return version("trtllm-advisor")


class SimulatedLaunch:
    """A launch made ready: what would be typed, and what the twin needs."""

    def __init__(self, spec: LaunchSpec, twin: Twin) -> None:
        self.spec, self.twin = spec, twin
        self.max_seq_len = spec.deployment.seq_len(spec.workloads)
        dialect = spoken_by(spec.deployment)
        entries = dialect.entries(spec.deployment, spec.config, self.max_seq_len)
        self.config_text = dump_yaml(as_mapping(entries))
        self.config_name = dialect.config_name
        self.argv = dialect.argv(
            spec.deployment,
            spec.config,
            self.max_seq_len,
            host="127.0.0.1",
            port=8000,
            config_path=dialect.config_name,
        )
        self.effective = twin.effective(spec.deployment, spec.config, self.max_seq_len)
        violations = dialect.violations(spec.deployment, spec.config, spec.workloads, self.max_seq_len)
        self.refusals = tuple(each for each in violations if each.severity == "error")

    def start(self, on_event: OnEvent, evidence: EvidenceStore) -> RunningServer:
        """Play the start: phases pass until one of them runs out of memory."""
        return SimulatedServer(self, on_event)


class SimulatedServer:
    """A virtual server: healthy, or dead in the phase where the memory law says so."""

    def __init__(self, launch: SimulatedLaunch, on_event: OnEvent) -> None:
        spec = launch.spec
        self.launch = launch
        self._phases: list[PhaseTiming] = []
        self._failure: Outcome | None = None
        self._up = False
        if launch.refusals:
            self._failure = BadConfig(reason=launch.refusals[0].message)
            return
        self.budget = launch.twin.memory(spec.deployment, spec.config, None)
        oom = startup_failure(self.budget)
        graphs = len(launch.effective.cuda_graph_sizes)
        weights_gib = float(self.budget.weights_gib) if spec.fidelity == "full" else 0.0  # dummy weights are not read
        for phase in START_ORDER:
            self._phases.append(PhaseTiming(name=phase, duration_s=STARTUP.seconds(phase, weights_gib, graphs)))
            on_event(TrialEvent(kind="phase", phase=phase, deadline_s=spec.deadlines.of(phase)))
            on_event(TrialEvent(kind="memory", phase=phase, memory=self.memory_in_use(phase)))
            if oom is not None and oom.phase == phase:
                self._failure = oom
                return
        self._up = True

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def effective(self) -> EffectiveSettings | None:
        """What the server really uses once it is up; None when it never came up."""
        return self.launch.effective if self._up else None

    def memory(self) -> MemoryReport | None:
        """GiB by component under the heaviest load served; None when nothing was allocated."""
        return None if self.launch.refusals else memory_report(self.budget)

    def memory_in_use(self, phase: Phase) -> MemoryInUse:
        """How full its GPUs are, as a driver would tell."""
        return MemoryInUse(used_gib=in_use_gib(self.budget, phase), capacity_gib=float(self.budget.capacity_gib))

    def profiled(self) -> ProfiledMemory | None:
        """What the log of a real start would have said so far; None when nothing was started."""
        if self.launch.refusals:
            return None
        deployed = self.launch.spec.deployment.with_options(self.launch.spec.config.options)
        return profiled_memory(self.budget, self.launch.twin.memory_terms(deployed).kv_bytes_per_token)

    def surprises(self) -> tuple[str, ...]:
        """Nothing: it does what the law says."""
        return ()

    def stats(self) -> dict[str, Any]:
        """Nothing beyond what `effective` says."""
        return {}

    def phases(self) -> tuple[PhaseTiming, ...]:
        """Virtual seconds of every phase so far."""
        return tuple(self._phases)

    def failure(self) -> Outcome | None:
        """Why it is dead, None while it lives."""
        return self._failure

    @property
    def endpoint(self) -> str | None:
        """None: there is no socket."""
        return None

    def die(self, outcome: Outcome) -> None:
        """Die under load."""
        self._failure = outcome

    def served_for(self, duration_s: float) -> None:
        """Account for the virtual time of a benchmark."""
        self._phases.append(PhaseTiming(name="serve", duration_s=duration_s))


class SimulatedMeasurer:
    """One benchmark in virtual time. Repeats with other seeds differ as real ones do."""

    def __init__(self, waves: int) -> None:
        self._waves = waves

    def measure(
        self,
        server: RunningServer,
        workload: Workload,
        seed: int,
        stop: Stop,
        on_event: OnEvent,
        evidence: EvidenceStore,
    ) -> WorkloadOutcome:
        """Serve the workload; a server that runs out of memory under it is dead afterwards."""
        assert isinstance(server, SimulatedServer)
        spec, twin = server.launch.spec, server.launch.twin
        on_event(TrialEvent(kind="phase", phase="serve", detail=workload.name))
        n_requests = workload.requests(self._waves)
        deployment = spec.deployment.with_options(spec.config.options)

        # Noise is a matter of the whole run, so that no token arrives before an earlier one.
        pace = float(measurement_noise(seed, 1)[0])
        osl = draw_requests(workload, n_requests, seed).osl

        settling, memory = Settling(workload, n_requests), server.memory_in_use("serve")

        def see(progress: Progress) -> bool:
            partial = PartialResult(
                elapsed_s=progress.now_ms * pace / 1000,
                sent_ms=progress.arrival_ms * pace,
                first_token_ms=progress.first_token_ms * pace,
                done_ms=progress.done_ms * pace,
                n_output=progress.n_output,
                osl=osl,
            )
            on_event(settling.look(partial, memory))
            return stop(partial)

        served = twin.serve(spec.deployment, spec.config, workload, n_requests=n_requests, seed=seed, stop=see)
        server.budget = served.budget
        if served.run is None:
            assert served.failure is not None
            server.die(served.failure)
            return WorkloadOutcome(workload=workload.name, metrics=None, seed=seed, note="the server died under load")
        simulation = served.run
        noisy = dataclasses.replace(
            simulation,
            arrival_ms=simulation.arrival_ms * pace,
            first_token_ms=simulation.first_token_ms * pace,
            done_ms=simulation.done_ms * pace,
            step_end_ms=simulation.step_end_ms * pace,
            duration_ms=simulation.duration_ms * pace,
        )
        server.served_for(noisy.duration_ms / 1000)
        evidence.write_samples(
            workload.name,
            {
                "sent_ms": noisy.arrival_ms,
                "first_token_ms": noisy.first_token_ms,
                "done_ms": noisy.done_ms,
                "n_output": noisy.n_output,
                "itl_ms": itl_ms(noisy, deployment.stream_interval),
            },
        )
        metrics = (
            None if simulation.stopped else metrics_of(noisy, deployment.gpus, deployment.stream_interval, spec.slo)
        )
        return WorkloadOutcome(
            workload=workload.name,
            metrics=metrics,
            limited_by=limited_by(simulation, twin.times(deployment), workload),
            seed=seed,
            stopped_early=simulation.stopped,
            note="stopped early" if simulation.stopped else None,
        )

    def referee(
        self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore
    ) -> RefereeReport | None:
        """None: the twin has no benchmark of its own."""
        return None

    def answers(self, server: RunningServer, repeats: bool) -> GreedyAnswers | None:
        """None: the twin has no words."""
        return None
