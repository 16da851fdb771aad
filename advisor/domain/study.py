"""A study: what is fixed, what varies, on which workloads, for which objective, with which budget."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Literal

from pydantic import Field, model_validator

from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel
from advisor.domain.workload import Matrix, Workload


class Dimension(StrictModel):
    """One dimension of the space: a static ordered ladder, and the reason for its bounds."""

    name: str = Field(min_length=1)
    values: tuple[OptionValue, ...] = Field(min_length=1)
    reason: str = Field(min_length=1, description="Why the ladder begins and ends where it does")
    changes_answers: bool = Field(default=False, description="True when it can change what the model says")
    enabled: bool = True

    @model_validator(mode="after")
    def _ladder(self) -> Dimension:
        if len(set(map(repr, self.values))) != len(self.values):
            raise ValueError(f"{self.name}: a ladder step is listed twice.")
        numeric = all(isinstance(value, (int, float)) for value in self.values)
        if numeric and list(self.values) != sorted(self.values):
            raise ValueError(f"{self.name}: the ladder must ascend.")
        return self


class Condition(StrictModel):
    """A relation between two dimensions: `setting` is lowered to `at_most` where it exceeds it."""

    setting: str
    at_most: str
    reason: str = Field(min_length=1)


class SearchSpace(StrictModel):
    """The dimensions of a study and the conditions between them."""

    schema_version: Literal[1] = 1
    name: str
    description: str
    dimensions: tuple[Dimension, ...] = Field(min_length=1)
    conditions: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> SearchSpace:
        names = [dimension.name for dimension in self.dimensions]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"dimension {min(twice)!r} is listed twice.")
        for condition in self.conditions:
            for name in (condition.setting, condition.at_most):
                if name not in names:
                    raise ValueError(f"condition on {name!r}, which is no dimension of this space.")
        return self

    @property
    def active(self) -> tuple[Dimension, ...]:
        """The dimensions that are searched."""
        return tuple(dimension for dimension in self.dimensions if dimension.enabled)


class Budget(StrictModel):
    """What a study may cost. Every process start counts as a launch; the confirmation is reserved inside."""

    max_launches: int = Field(default=24, ge=1)
    max_hours: float | None = Field(default=None, gt=0, description="Of the engine: virtual hours on the twin")
    gpu_hours: float | None = Field(default=None, gt=0, description="Server hours x GPUs; virtual on the twin")

    def server_hours(self, n_gpus: int) -> float:
        """Server hours that both limits allow on so many GPUs, starts included; infinite without a limit."""
        return min(self.max_hours or math.inf, (self.gpu_hours or math.inf) / n_gpus)

    def binds(self, n_gpus: int) -> Literal["hours", "gpu_hours"]:
        """Which of the two limits is reached first."""
        return "hours" if self.max_hours == self.server_hours(n_gpus) else "gpu_hours"


class Study(StrictModel):
    """A study file."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Also names the folder of its results")
    title: str
    description: str
    deployment: Deployment
    search_space: str = Field(default="default", description="Name or file of the search space")
    vary: tuple[str, ...] = Field(default=(), description="Dimensions of the space searched besides the four settings")
    workloads: tuple[str, ...] = Field(default=(), description="Short names")
    matrix: Matrix | None = Field(default=None, description="More workloads: every combination of these sizes")
    objective: Objective = Objective()
    slo: Slo = Slo()
    baseline: str = Field(default="default", description="Baseline that trial 0 launches")
    budget: Budget = Budget()
    deadlines: Deadlines = Deadlines()
    sources: tuple[str, ...] = Field(default=(), description="Where the fixed choices come from")

    @model_validator(mode="after")
    def _some_workload(self) -> Study:
        try:
            n_workloads = len(self.workload_names)
        except BadInput as error:
            raise ValueError(f"matrix: {error}") from None
        if not n_workloads:
            raise ValueError("no workload: name some under 'workloads', or give a 'matrix' of sizes.")
        return self

    @property
    def workload_names(self) -> tuple[str, ...]:
        """Short names of all its workloads, those of the matrix last."""
        more = () if self.matrix is None else tuple(workload.name for workload in self.matrix.workloads)
        return tuple(dict.fromkeys((*self.workloads, *more)))


def fingerprint(
    deployment: Deployment,
    workloads: tuple[Workload, ...],
    space: SearchSpace,
    objective: Objective,
    slo: Slo,
    engine_label: str,
) -> str:
    """Eight hexadecimal digits over everything that makes two runs comparable, who measures included."""
    goal = objective.model_dump(mode="json", exclude={"gpu_price_usd_per_hour"})  # a price changes no measurement
    parts = [*(part.model_dump(mode="json") for part in (deployment, *workloads)), goal, slo.model_dump(mode="json")]
    dimensions = [(dimension.name, dimension.values) for dimension in space.active]
    text = json.dumps([parts, dimensions, engine_label], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
