"""The seams: what the use cases need from engines, the ledger, the proposer and the person watching."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advisor.domain.answers import AnswerQuestion, GreedyAnswers
from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import (
    EffectiveSettings,
    MemoryReport,
    ProfiledMemory,
    RefereeReport,
    Source,
    WorkloadOutcome,
)
from advisor.domain.objective import Objective, Slo
from advisor.domain.outcome import Outcome
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import PhaseTiming, Role, TrialRecord
from advisor.domain.workload import Workload


class EngineIdentity(StrictModel):
    """Who runs the trials, and how its numbers are to be called."""

    name: str
    version: str
    source: Source
    label: str = Field(description="`measured on ...` or `simulated by the twin ...`, as every file says it")


class LaunchSpec(StrictModel):
    """Everything a launch needs. `fidelity` memory_only starts, reads memory and stops."""

    deployment: Deployment
    config: ServingConfig
    workloads: tuple[Workload, ...] = Field(min_length=1)
    fidelity: Literal["full", "memory_only"] = "full"
    slo: Slo = Field(default=Slo(), description="Limits of a request, which its goodput goes by")
    deadlines: Deadlines = Deadlines()
    devices: tuple[int, ...] = Field(default=(), description="GPU indices; none = the first ones")
    seed: int = 0


class MemoryInUse(StrictModel):
    """GiB in use on the fullest GPU of a launch, as they stand."""

    used_gib: float = Field(ge=0)
    capacity_gib: float = Field(gt=0)


class SettlingRate(StrictModel):
    """Output tok/s that a running benchmark is heading for."""

    tok_per_s: float = Field(ge=0)
    half_width: float | None = Field(
        default=None, ge=0, description="Of its 95 % interval, tok/s; None before the second batch of requests"
    )


class TrialEvent(StrictModel):
    """Something a person watching may want to see while a trial runs.

    A `phase` event begins one, a `memory` event tells how full the GPU is, a `progress` event how far a benchmark is.
    """

    kind: Literal["phase", "memory", "progress"]
    phase: str
    detail: str = ""
    fraction_done: float | None = None
    deadline_s: float | None = Field(default=None, description="What the phase may take; None where nothing ends it")
    memory: MemoryInUse | None = None
    rate: SettlingRate | None = None


OnEvent = Callable[[TrialEvent], None]


@dataclass(frozen=True, eq=False)
class PartialResult:
    """Where a running benchmark stands. It is good for the moment of the call: the arrays may be filled further.

    Arrays have shape (n_requests,), in the order of the load; times are ms since the run began, NaN before they happen.
    """

    elapsed_s: float
    sent_ms: NDArray[np.float64]
    first_token_ms: NDArray[np.float64]
    done_ms: NDArray[np.float64]
    n_output: NDArray[np.int64]
    """Output tokens so far; of requests in flight as many as can be told."""
    osl: NDArray[np.int64]
    """Output tokens asked for."""

    @property
    def n_requests(self) -> int:
        """Requests of the whole run."""
        return int(self.osl.size)

    @property
    def n_done(self) -> int:
        """Requests that were answered."""
        return int(np.isfinite(self.done_ms).sum())


Stop = Callable[[PartialResult], bool]


class EvidenceStore(Protocol):
    """Where a trial's raw material goes, such as its folder."""

    def write_launch(self, argv: Sequence[str], config_text: str, config_name: str) -> None: ...
    def write_samples(self, workload_name: str, samples: Mapping[str, NDArray[Any]]) -> None: ...
    def file(self, name: str) -> str | None:
        """Where a process may write a file of its own, such as its log; None when nothing is kept."""
        ...

    def run_folder(self) -> str | None:
        """Folder of the whole run, which names the launches that belong together; None when nothing is kept."""
        ...


class NoEvidence:
    """Keeps nothing."""

    def write_launch(self, argv: Sequence[str], config_text: str, config_name: str) -> None:
        """Nothing is kept."""

    def write_samples(self, workload_name: str, samples: Mapping[str, NDArray[Any]]) -> None:
        """Nothing is kept."""

    def file(self, name: str) -> str | None:
        """Nowhere."""
        return None

    def run_folder(self) -> str | None:
        """None: there is none."""
        return None


class RunningServer(Protocol):
    """A launched server, healthy or not. Leaving the context ends every process of it."""

    def __enter__(self) -> RunningServer: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def effective(self) -> EffectiveSettings | None: ...
    def memory(self) -> MemoryReport | None: ...
    def profiled(self) -> ProfiledMemory | None:
        """What the engine itself said of memory while it started, None where it says nothing."""
        ...

    def surprises(self) -> tuple[str, ...]:
        """What the server really uses other than asked, in words."""
        ...

    def stats(self) -> dict[str, Any]:
        """What the server counted since the last call."""
        ...

    def phases(self) -> tuple[PhaseTiming, ...]: ...
    def failure(self) -> Outcome | None: ...
    @property
    def endpoint(self) -> str | None: ...


class Prepared(Protocol):
    """A launch made ready without touching a GPU: its command line and files can be read."""

    argv: tuple[str, ...]
    config_text: str
    config_name: str

    def start(self, on_event: OnEvent, evidence: EvidenceStore) -> RunningServer: ...


class Measurer(Protocol):
    """Benchmarks one workload on a running server; on a client error the runner asks `server.failure()` first."""

    def measure(
        self,
        server: RunningServer,
        workload: Workload,
        seed: int,
        stop: Stop,
        on_event: OnEvent,
        evidence: EvidenceStore,
    ) -> WorkloadOutcome: ...
    def referee(
        self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore
    ) -> RefereeReport | None:
        """The engine's own benchmark beside ours, never mixed in; None where there is none."""
        ...

    def answers(self, server: RunningServer, repeats: bool) -> GreedyAnswers | None:
        """What it answers greedily to fixed prompts, if asked to twice; None where nothing is answered (the twin)."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Something that can be launched with a ServingConfig. Registered under the entry-point group `advisor.engines`."""

    def identity(self) -> EngineIdentity: ...
    def prepare(self, spec: LaunchSpec) -> Prepared: ...
    def measurer(self) -> Measurer: ...
    def missing(self, deployment: Deployment | None) -> str | None:
        """What is not here to launch a deployment (None: to launch anything), with the way out; None when nothing."""
        ...


@runtime_checkable
class Closable(Protocol):
    """An engine that keeps something between its launches, such as a process for the next one."""

    def close(self) -> None:
        """Let go of it; a launch may still follow."""
        ...


class EngineRef(StrictModel):
    """An engine by its entry-point name and plain options, so that another process can build the same one."""

    name: str
    options: dict[str, OptionValue] = Field(default_factory=dict)


class Incumbent(StrictModel):
    """What a trial has to beat under one workload."""

    workload: str
    value: float = Field(gt=0, description="Of the objective, the best that keeps every limit")
    log_noise: float = Field(gt=0, description="Standard deviation of its logarithm between launches")
    slack: float = Field(default=1.0, ge=1, description="How many times worse one may be here and matter elsewhere")


class TrialRequest(StrictModel):
    """One serialisable trial: this process, a worker elsewhere, Slurm or Ray can make it."""

    number: int
    role: Role
    origin: str
    engine: EngineRef
    spec: LaunchSpec
    memory_predicted_gib: MemoryReport | None = None
    max_attempts: int = Field(default=2, ge=1, description="Process starts it may cost")
    referee: bool = Field(default=False, description="Run the engine's own benchmark after ours")
    soak: Workload | None = Field(default=None, description="Served after everything else, to see that it survives")
    expected_gain: float | None = None
    answers: AnswerQuestion | None = Field(default=None, description="None: its answers are not asked for")
    goal: Objective = Field(default=Objective(), description="With goodput, the best load of each launch is searched")
    incumbents: tuple[Incumbent, ...] = Field(
        default=(), description="Benchmarks that cannot beat theirs are stopped, those that noise hides are repeated"
    )
    early_stop: bool = True


class Asked(StrictModel):
    """A trial the ledger opened: its number and what to launch."""

    number: int
    config: ServingConfig
    role: Role
    origin: str
    expected_gain: float | None = None


class Proposal(StrictModel):
    """The next point to try, and why."""

    config: ServingConfig
    origin: str
    expected_gain: float | None = Field(
        default=None, ge=0, description="Of the incumbent's objective, a fraction; none where the proposer cannot say"
    )


class Proposer(Protocol):
    """History to next point. Stateless: the same history and seed give the same proposal, so resume continues.

    `running` was launched elsewhere and has not ended yet.
    """

    @property
    def name(self) -> str: ...

    def propose(self, history: Sequence[TrialRecord], seed: int, running: Sequence[ServingConfig] = ()) -> Proposal: ...


class Ledger(Protocol):
    """The durable record of a study: an Optuna study plus one folder of evidence per trial."""

    def records(self) -> tuple[TrialRecord, ...]: ...
    def ask(self, role: Role, fixed: Proposal | None = None) -> Asked: ...
    def folder(self, number: int) -> EvidenceStore: ...
    def commit(self, record: TrialRecord) -> None: ...


class Reporter(Protocol):
    """The person watching: a terminal, a log, nobody."""

    def trial_started(self, asked: Asked) -> None: ...
    def event(self, event: TrialEvent) -> None: ...
    def trial_ended(self, record: TrialRecord) -> None: ...
    def note(self, text: str) -> None: ...


class CancelToken(Protocol):
    """Set once: finish this measurement and write what is known."""

    @property
    def cancelled(self) -> bool: ...
