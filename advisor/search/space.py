"""The search space as a grid of configurations: every combination of ladder steps, conditions applied, without repeats.

A condition lowers a setting to its partner's value. That value may lie between two ladder steps (graphs up to 512 with
a batch of 384 become 384, as the engine makes them with padding): "graphs up to the batch size" is always on the grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from advisor.domain.deployment import OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig, config_from_flat
from advisor.domain.strict import changed, explain, unknown_name
from advisor.domain.study import Condition, Dimension, SearchSpace

Column = NDArray[Any]
_LEGAL: dict[str, OptionValue] = dict(zip(FOUR_SETTINGS, (1, 1, 0, 0.5), strict=True))


def restrict(
    space: SearchSpace, vary: Sequence[str] = (), fixed: Mapping[str, OptionValue] | None = None
) -> SearchSpace:
    """The space that a study searches.

    Args:
        space: As its file says.
        vary: Further dimensions to search besides those that are enabled.
        fixed: Dimensions pinned to one value, on the ladder or not.

    Raises:
        BadInput: a name that is no dimension, or a space that cannot be searched.
    """
    pinned = dict(fixed or {})
    names = [dimension.name for dimension in space.dimensions]
    for name in [*vary, *pinned]:
        if name not in names:
            raise unknown_name(f"dimension of search space {space.name!r}", name, names)
    dimensions = []
    for dimension in space.dimensions:
        if dimension.name in pinned:
            step = (pinned[dimension.name],)
            dimensions.append(changed(dimension, values=step, reason="Fixed by the study.", enabled=True))
        else:
            dimensions.append(changed(dimension, enabled=dimension.enabled or dimension.name in vary))
    return checked(changed(space, dimensions=tuple(dimensions)))


def checked(space: SearchSpace) -> SearchSpace:
    """The space itself when it can be searched.

    Raises:
        BadInput: one of the four settings missing, an illegal ladder value, a condition between things without order.
    """
    active = {dimension.name: dimension for dimension in space.active}
    missing = [name for name in FOUR_SETTINGS if name not in active]
    if missing:
        raise BadInput(
            f"Search space {space.name!r} leaves out {', '.join(missing)}: all four settings must be enabled "
            "dimensions. To hold one fixed, give it a ladder of one value."
        )
    for name in FOUR_SETTINGS:
        for value in active[name].values:
            try:
                config_from_flat({**_LEGAL, name: value})
            except ValidationError as error:
                mistakes = explain(error, ServingConfig)
                raise BadInput(f"Search space {space.name!r}, ladder of {name}: {mistakes}") from None
    for condition in _conditions(space):
        kinds = {type(value) for name in (condition.setting, condition.at_most) for value in active[name].values}
        if len(kinds) != 1 or not kinds <= {int, float}:
            raise BadInput(
                f"Search space {space.name!r}: the condition that keeps {condition.setting} at most "
                f"{condition.at_most} needs two ladders of numbers of the same kind."
            )
    return space


def grid_size(space: SearchSpace) -> int:
    """Combinations of ladder steps, before conditions make some of them equal."""
    return math.prod(len(dimension.values) for dimension in space.active)


def config_at(space: SearchSpace, indices: Mapping[str, int]) -> ServingConfig:
    """The configuration at one ladder index per active dimension, conditions applied."""
    values = {dimension.name: dimension.values[indices[dimension.name]] for dimension in space.active}
    # Values only fall, so as many passes as conditions settle any chain of them.
    for condition in _conditions(space) * len(space.conditions):
        setting, partner = values[condition.setting], values[condition.at_most]
        if _number(setting) > _number(partner):
            values[condition.setting] = partner
    return config_from_flat(values)


def indices_of(space: SearchSpace, config: ServingConfig) -> dict[str, int]:
    """Ladder indices of a configuration; of one that is not on the ladders, the nearest steps (by ratio).

    `config_at(space, indices_of(space, config)) == config` for every configuration of the grid.

    Raises:
        BadInput: the configuration says nothing about one of the dimensions.
    """
    values = config.flat()
    indices = {}
    for dimension in space.active:
        if dimension.name not in values:
            raise BadInput(f"The configuration leaves {dimension.name} open; search space {space.name!r} varies it.")
        indices[dimension.name] = _nearest_step(dimension, values[dimension.name])
    for condition in _conditions(space):
        steps = _dimension(space, condition.setting).values
        value = values[condition.setting]
        if value == values[condition.at_most] and value not in steps:
            # Lowered to its partner, so it came from a step above; the first of them stands for all.
            above = [index for index, step in enumerate(steps) if _number(step) > _number(value)]
            indices[condition.setting] = above[0] if above else indices[condition.setting]
    return indices


def contains(space: SearchSpace, config: ServingConfig) -> bool:
    """True when the configuration is a point of the grid."""
    try:
        return config_at(space, indices_of(space, config)) == config
    except BadInput:
        return False


def completed(space: SearchSpace, config: ServingConfig, deployment: Deployment) -> ServingConfig:
    """The configuration with every option that the space varies stated: open ones as the deployment fixes them."""
    stated = {
        dimension.name: getattr(deployment, OPTION_FIELDS[dimension.name])
        for dimension in space.active
        if dimension.name in OPTION_FIELDS and dimension.name not in config.options
    }
    known = {name: value for name, value in stated.items() if value is not None}
    return changed(config, options={**config.options, **known}) if known else config


def widened(space: SearchSpace, config: ServingConfig) -> SearchSpace:
    """The space with a configuration's own values as further ladder steps, so that it is a point of the grid.

    Raises:
        BadInput: the configuration says nothing about one of the dimensions.
    """
    values = config.flat()
    dimensions = []
    for dimension in space.dimensions:
        steps = dimension.values
        if dimension.enabled and dimension.name not in values:
            raise BadInput(f"The configuration leaves {dimension.name} open; search space {space.name!r} varies it.")
        if dimension.enabled and values[dimension.name] not in steps:
            steps = (*steps, values[dimension.name])
            ordered = all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in steps)
            steps = tuple(sorted(steps, key=_number)) if ordered else steps
        dimensions.append(changed(dimension, values=steps))
    return checked(changed(space, dimensions=tuple(dimensions)))


def all_configs(space: SearchSpace) -> tuple[ServingConfig, ...]:
    """Every distinct configuration, in ladder order."""
    return _grid(space).configs


def rows_by_config(space: SearchSpace) -> Mapping[ServingConfig, int]:
    """The row of every configuration in `all_configs`."""
    return _grid(space).rows


def columns(space: SearchSpace) -> dict[str, Column]:
    """The grid by dimension: one array per active dimension, shape (n_configs,), rows as in `all_configs`."""
    return dict(_grid(space).columns)


def neighbours(space: SearchSpace, config: ServingConfig) -> tuple[ServingConfig, ...]:
    """The nearest different configurations down and up each ladder."""
    here = indices_of(space, config)
    found: dict[ServingConfig, None] = {}
    for dimension in space.active:
        start = here[dimension.name]
        for steps in (range(start - 1, -1, -1), range(start + 1, len(dimension.values))):
            candidates = (config_at(space, {**here, dimension.name: index}) for index in steps)
            nearest = next((candidate for candidate in candidates if candidate != config), None)
            if nearest is not None:
                found[nearest] = None
    return tuple(found)


@dataclass(frozen=True)
class _Grid:
    columns: Mapping[str, Column]

    @functools.cached_property
    def configs(self) -> tuple[ServingConfig, ...]:
        names = list(self.columns)
        rows = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        return tuple(config_from_flat(dict(zip(names, row, strict=True))) for row in rows)

    @functools.cached_property
    def rows(self) -> dict[ServingConfig, int]:
        return {config: row for row, config in enumerate(self.configs)}


@functools.lru_cache(maxsize=8)
def _grid(space: SearchSpace) -> _Grid:
    """All combinations, conditions applied, the first of equal rows kept."""
    active = space.active
    steps = np.indices([len(dimension.values) for dimension in active]).reshape(len(active), -1)
    table = {dimension.name: _column(dimension.values)[index] for dimension, index in zip(active, steps, strict=True)}
    for condition in _conditions(space) * len(space.conditions):
        table[condition.setting] = np.minimum(table[condition.setting], table[condition.at_most])
    codes = np.zeros(steps.shape[1], dtype=np.int64)
    for name, index in zip(table, steps, strict=True):
        ordered = table[name].dtype != object
        rank = np.unique(table[name], return_inverse=True)[1].reshape(-1) if ordered else index
        codes = codes * (int(rank.max()) + 1) + rank
    kept = np.sort(np.unique(codes, return_index=True)[1])
    return _Grid({name: column[kept] for name, column in table.items()})


def _column(values: Sequence[OptionValue]) -> Column:
    """Values of one kind as a typed array, mixed ones as objects, so that nothing is converted on the way."""
    one_kind = len({type(value) for value in values}) == 1
    return np.array(values, dtype=None if one_kind else object)


def _conditions(space: SearchSpace) -> list[Condition]:
    active = {dimension.name for dimension in space.active}
    return [condition for condition in space.conditions if {condition.setting, condition.at_most} <= active]


def _dimension(space: SearchSpace, name: str) -> Dimension:
    return next(dimension for dimension in space.active if dimension.name == name)


def _nearest_step(dimension: Dimension, value: OptionValue) -> int:
    """Index of the step nearest by ratio; of a name that is no step, the first."""
    if value in dimension.values:
        return dimension.values.index(value)
    if isinstance(value, str) or any(isinstance(step, str) for step in dimension.values):
        return 0
    # 0 (graphs off) stands half as high as the lowest step above it, so that ratios exist.
    lowest = min((number for step in dimension.values if (number := _number(step)) > 0), default=1.0) / 2
    distances = [abs(math.log(max(_number(step), lowest) / max(_number(value), lowest))) for step in dimension.values]
    return distances.index(min(distances))


def _number(value: OptionValue) -> float:
    if isinstance(value, str):
        raise TypeError(f"{value!r} has no order")
    return float(value)
