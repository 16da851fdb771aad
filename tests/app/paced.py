"""A server that changed since it was tuned: the twin behind the port, slower or faster, or answering short."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from advisor.domain.answers import GreedyAnswers
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import Metrics, RefereeReport, Source, WorkloadOutcome
from advisor.domain.ports import (
    EngineIdentity,
    EvidenceStore,
    LaunchSpec,
    Measurer,
    OnEvent,
    Prepared,
    RunningServer,
    Stop,
)
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.engines.simulated import SimulatedEngine


@dataclass
class PacedEngine:
    """The nominal twin at a pace: 0.95 serves 5 % less and takes 1 / 0.95 as long.

    Attributes:
        pace: Of every launch.
        n_short: Requests that lack a token, by launch; launches after the last are whole.
        source: How its numbers are to be called; `measured` plays a GPU.
    """

    pace: float = 1.0
    n_short: Sequence[int] = ()
    source: Source = "simulated"
    twin: SimulatedEngine = field(default_factory=SimulatedEngine)
    specs: list[LaunchSpec] = field(default_factory=list)

    def identity(self) -> EngineIdentity:
        own = self.twin.identity()
        return own if self.source == "simulated" else changed(own, source=self.source, label="measured on a test")

    def prepare(self, spec: LaunchSpec) -> Prepared:
        self.specs.append(spec)
        return self.twin.prepare(spec)

    def measurer(self) -> Measurer:
        return PacedMeasurer(self, self.twin.measurer())

    def missing(self, deployment: Deployment | None) -> str | None:
        return None


@dataclass(frozen=True)
class PacedMeasurer:
    engine: PacedEngine
    twin: Measurer

    def measure(
        self,
        server: RunningServer,
        workload: Workload,
        seed: int,
        stop: Stop,
        on_event: OnEvent,
        evidence: EvidenceStore,
    ) -> WorkloadOutcome:
        outcome = self.twin.measure(server, workload, seed, stop, on_event, evidence)
        short = dict(enumerate(self.engine.n_short, start=1)).get(len(self.engine.specs), 0)
        assert outcome.metrics is not None
        return changed(outcome, metrics=paced(outcome.metrics, self.engine.pace), n_short=short)

    def referee(
        self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore
    ) -> RefereeReport | None:
        return None

    def answers(self, server: RunningServer, repeats: bool) -> GreedyAnswers | None:
        return None


def paced(metrics: Metrics, pace: float) -> Metrics:
    """Rates times the pace, times over it."""

    def slowed(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: each / pace for key, each in value.items()}
        return value * pace if "_per_" in name and value is not None else value

    fields = {name: slowed(name, value) for name, value in metrics.model_dump().items()}
    return Metrics.model_validate(dict(itertools.chain(fields.items())))
