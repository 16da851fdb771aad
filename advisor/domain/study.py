"""A study: what is fixed, what varies, on which workloads, for which objective, with which budget."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from advisor.domain.answers import DEFAULT_MOST_DRIFT
from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, did_you_mean
from advisor.domain.workload import Matrix, Workload


class Dimension(StrictModel):
    """One dimension of the space: a static ordered ladder, and the reason for its bounds.

    A step that is a list of the YAML, such as CUDA-graph sizes, is kept as its JSON text.
    """

    name: str = Field(min_length=1)
    values: tuple[OptionValue, ...] = Field(min_length=1)
    reason: str = Field(min_length=1, description="Why the ladder begins and ends where it does")
    default: OptionValue | None = Field(
        default=None, description="Where the baseline stands, and what stands where a condition puts it to sleep"
    )
    changes_answers: bool = Field(default=False, description="True when it can change what the model says")
    enabled: bool = True

    @field_validator("values", mode="before")
    @classmethod
    def _lists_as_text(cls, values: Any) -> Any:
        return tuple(map(_text_of_list, values)) if isinstance(values, (list, tuple)) else values

    @field_validator("default", mode="before")
    @classmethod
    def _list_as_text(cls, value: Any) -> Any:
        return _text_of_list(value)

    @model_validator(mode="after")
    def _ladder(self) -> Dimension:
        if len(set(self.values)) != len(self.values):  # also 1 and true, or 1 and 1.0: such configurations are equal
            raise ValueError(f"{self.name}: a ladder step is listed twice.")
        if self.is_numeric and list(self.values) != sorted(self.values, key=float):
            raise ValueError(f"{self.name}: the ladder must ascend.")
        return self

    @property
    def is_numeric(self) -> bool:
        """True when the steps have an order of their own; false and true count as 0 and 1."""
        return all(isinstance(value, (int, float)) for value in self.values)


def _text_of_list(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


Choice: TypeAlias = dict[str, tuple[OptionValue, ...]]
"""Values of some dimensions; it holds where each of them has one of its own."""

_LIMITS = ("at_most", "at_least", "multiple_of")
_SLEEPS = ("only_when", "unless")


class Condition(StrictModel):
    """A relation between dimensions: exactly one of `at_most`, `at_least`, `multiple_of`, `only_when`, `unless`, or
    `forbid`.

    Limits are products of dimensions and numbers, such as `max_batch_size` or `2 * ep`.
    """

    setting: str | None = Field(default=None, description="The dimension that it is about; none with `forbid`")
    at_most: str | int | float | None = Field(default=None, description="Larger values are lowered to the limit")
    at_least: str | int | float | None = Field(default=None, description="Smaller values are raised to the limit")
    multiple_of: str | int | None = Field(default=None, description="Combinations where it is not are left out")
    only_when: Choice | None = Field(default=None, description="Elsewhere the setting has its default")
    unless: Choice | None = Field(default=None, description="There the setting has its default")
    forbid: Choice | None = Field(default=None, description="Combinations of these values are left out")
    reason: str = Field(min_length=1)

    def __hash__(self) -> int:
        return hash(self.text)

    @field_validator("only_when", "unless", "forbid", mode="before")
    @classmethod
    def _one_value_or_several(cls, choice: Any) -> Any:
        if not isinstance(choice, dict):
            return choice
        return {name: tuple(each) if isinstance(each, (list, tuple)) else (each,) for name, each in choice.items()}

    @model_validator(mode="after")
    def _one_relation(self) -> Condition:
        said = [name for name in (*_LIMITS, *_SLEEPS, "forbid") if getattr(self, name) is not None]
        if len(said) != 1:
            known = ", ".join((*_LIMITS, *_SLEEPS, "forbid"))
            raise ValueError(f"a condition says exactly one of {known}; this one says {' and '.join(said) or 'none'}.")
        if (self.setting is None) != (said == ["forbid"]):
            raise ValueError("forbid takes no setting." if self.setting else f"{said[0]} needs the setting it is for.")
        if self.choice is not None and not (self.choice and all(self.choice.values())):
            raise ValueError(f"{said[0]} names no dimension, or no value of one.")
        _ = self.factors
        return self

    @functools.cached_property
    def factors(self) -> tuple[str | int | float, ...]:
        """Dimensions and numbers whose product is the limit.

        Raises:
            ValueError: no such product.
        """
        limit = next((getattr(self, name) for name in _LIMITS if getattr(self, name) is not None), None)
        if not isinstance(limit, str):
            return () if limit is None else (limit,)
        parts = tuple(part.strip() for part in limit.split("*"))
        wrong = next((part for part in parts if not _FACTOR.fullmatch(part)), None)
        if wrong is not None:
            raise ValueError(f"{limit!r} is no limit: write a dimension, a number, or a product such as 2 * ep.")
        return tuple(_number_or_name(part) for part in parts)

    @property
    def choice(self) -> Choice | None:
        """The values that put its setting to sleep or wake it, or that are forbidden together."""
        return next((each for each in (self.only_when, self.unless, self.forbid) if each is not None), None)

    @property
    def partners(self) -> tuple[str, ...]:
        """The other dimensions that it reads."""
        return (*(factor for factor in self.factors if isinstance(factor, str)), *(self.choice or ()))

    @property
    def moves(self) -> bool:
        """True when it gives its setting another value; else it leaves combinations out."""
        return self.setting is not None and self.multiple_of is None

    @property
    def text(self) -> str:
        """For people, without the reason."""
        for name in _LIMITS:
            if getattr(self, name) is not None:
                relation = "a multiple of" if name == "multiple_of" else name.replace("_", " ")
                return f"{self.setting} {relation} {getattr(self, name)}"
        choice = " and ".join(f"{name} {_listed(values)}" for name, values in (self.choice or {}).items())
        if self.forbid is not None:
            return f"never {choice}"
        return f"{self.setting} {'only when' if self.only_when is not None else 'unless'} {choice}"


_FACTOR = re.compile(r"[A-Za-z_$][\w.$]*|\d+(\.\d+)?")


def _number_or_name(part: str) -> str | int | float:
    if not part[0].isdigit():
        return part
    return int(part) if part.isdigit() else float(part)


def _listed(values: Sequence[OptionValue]) -> str:
    return " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


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
            for name in (*([condition.setting] if condition.setting else []), *condition.partners):
                if name not in names:
                    hint = did_you_mean(name, names)
                    raise ValueError(f"condition on {name!r}, which is no dimension of this space.{hint}")
            self._check_choice(condition)
        _ = self.settling_order
        return self

    def _check_choice(self, condition: Condition) -> None:
        for name, values in (condition.choice or {}).items():
            dimension = self.dimension(name)
            if len(dimension.values) == 1:  # held fixed, maybe at a value that the condition does not speak of
                continue
            steps = [*dimension.values, *([] if dimension.default is None else [dimension.default])]
            wrong = next((value for value in values if value not in steps), None)
            if wrong is not None:
                hint = did_you_mean(str(wrong), map(str, steps))
                listed = ", ".join(map(str, steps))
                raise ValueError(f"condition on {name} {wrong!r}, which is not on its ladder ({listed}).{hint}")

    @functools.cached_property
    def settling_order(self) -> tuple[str, ...]:
        """The dimensions that conditions move, each behind those that it depends on.

        Raises:
            ValueError: two or more depend on each other.
        """
        needs: dict[str, set[str]] = {}
        for condition in self.conditions:
            if condition.moves and condition.setting is not None:
                needs.setdefault(condition.setting, set()).update(condition.partners)
        try:
            return tuple(name for name in TopologicalSorter(needs).static_order() if name in needs)
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ValueError(f"the conditions go round in a circle ({circle}): drop one of them.") from None

    def dimension(self, name: str) -> Dimension:
        """A dimension that is there, by name."""
        return next(dimension for dimension in self.dimensions if dimension.name == name)

    @functools.cached_property
    def active(self) -> tuple[Dimension, ...]:
        """The dimensions that are searched."""
        return tuple(dimension for dimension in self.dimensions if dimension.enabled)

    @functools.cached_property
    def awake(self) -> tuple[Condition, ...]:
        """The conditions whose setting is searched and whose partners are, or stand at a default that is known."""
        searched = {dimension.name for dimension in self.active}
        known = searched | {dimension.name for dimension in self.dimensions if dimension.default is not None}
        return tuple(
            condition
            for condition in self.conditions
            if (condition.setting is None or condition.setting in searched) and known.issuperset(condition.partners)
        )

    @functools.cached_property
    def movers(self) -> tuple[tuple[str, tuple[Condition, ...]], ...]:
        """The settings that conditions move, in the order in which they settle, each with its conditions."""
        moving = [condition for condition in self.awake if condition.moves]
        own = ((name, tuple(each for each in moving if each.setting == name)) for name in self.settling_order)
        return tuple((name, conditions) for name, conditions in own if conditions)


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
    max_answer_drift: float = Field(
        default=DEFAULT_MOST_DRIFT, ge=0, le=1, description="Share of prompts, beyond noise, answered otherwise"
    )
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
