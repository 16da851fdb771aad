"""A study resolved: everything the tuner, the files and the console need to know about it, in one frozen value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from advisor.app.defaults import Defaults
from advisor.domain.answers import DEFAULT_MOST_DRIFT
from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment, GpuFacts, ModelFacts
from advisor.domain.measurement import MemoryReport
from advisor.domain.objective import Objective, Slo
from advisor.domain.ports import EngineIdentity, EngineRef
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import Budget, SearchSpace, fingerprint
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.baselines import Baseline
from advisor.search.expectation import Sought
from advisor.search.prior import PriorSource
from advisor.search.racing import Race
from advisor.search.space import columns
from advisor.search.surrogate import Belief

ENGINE_DEFAULT = "default"
"""The baseline that is the engine's own configuration."""
Predict = Callable[[ServingConfig, Workload], Prediction | None]
MemoryOfLaunch = Callable[[ServingConfig, Sequence[TrialRecord]], MemoryReport | None]
"""What is predicted of a launch's memory after the trials before it."""


@dataclass(frozen=True)
class StudyContext:
    """What a study is about. `predict`, `references` and `prior` know only the nominal twin, never a drawn world.

    Where there is no twin of the deployment, `unmodelled` says why in words, nothing is predicted, and the prior is a
    guess of which `belief` expects little.
    """

    name: str
    title: str
    deployment: Deployment
    facts: ModelFacts
    gpu: GpuFacts
    workloads: tuple[Workload, ...]
    space: SearchSpace
    objective: Objective
    slo: Slo
    budget: Budget
    deadlines: Deadlines
    baselines: tuple[Baseline, ...]
    launched_baselines: tuple[str, ...]
    engine: EngineRef
    identity: EngineIdentity
    sampler: str
    seed: int
    predict: Predict
    memory_of_launch: MemoryOfLaunch
    references: dict[str, float]
    prior: PriorSource
    belief: Belief
    defaults: Defaults
    vary: tuple[str, ...] = ()
    max_answer_drift: float = DEFAULT_MOST_DRIFT
    unmodelled: str | None = None
    early_stop: bool = True
    soak: bool = True
    verifiable: bool = False

    @property
    def max_seq_len(self) -> int:
        """Tokens of the longest request that every launch must be able to serve."""
        return self.deployment.seq_len(self.workloads)

    @property
    def server_hours(self) -> float:
        """Server hours of the budget, infinite where it has no such limit."""
        return self.budget.server_hours(self.deployment.gpus)

    @property
    def fingerprint(self) -> str:
        """Names everything that makes two runs comparable; another engine world is another run."""
        return fingerprint(self.deployment, self.workloads, self.space, self.objective, self.slo, self.identity.label)

    @property
    def run_name(self) -> str:
        """Folder of this run below `results/<study>/`."""
        names = "+".join(workload.name for workload in self.workloads[:3])
        more = f"+{len(self.workloads) - 3}more" if len(self.workloads) > 3 else ""
        return f"{names}{more}-{self.fingerprint}"

    @property
    def space_size(self) -> int:
        """Distinct configurations of the space."""
        return len(next(iter(columns(self.space).values())))

    @property
    def baseline(self) -> Baseline:
        """The baseline of every table: trial 0."""
        return next(entry for entry in self.baselines if entry.name == self.launched_baselines[0])

    @property
    def sought(self) -> Sought:
        """What a search looks for."""
        home = self.baseline.config
        return Sought(self.space, self.workloads, self.objective, self.slo, self.prior, home, self.belief)

    @functools.cached_property
    def race(self) -> Race:
        """How winners are decided."""
        default = next((entry.config for entry in self.baselines if entry.name == ENGINE_DEFAULT), None)
        return Race(self.sought, default)

    def value_of(self, record: TrialRecord) -> float | None:
        """The study's value of a trial: mean over workloads of log gain over the prediction at the baseline."""
        if not record.measured:
            return None
        logs = []
        for workload in self.workloads:
            outcome = record.workload(workload.name)
            value = self.objective.value(outcome.metrics) if outcome and outcome.metrics else None
            if value is None or value <= 0:
                return None
            logs.append(math.log(self.objective.gain(value, self.references[workload.name])))
        return sum(logs) / len(logs)
