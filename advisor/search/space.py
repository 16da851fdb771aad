"""The search space as a grid of configurations: every combination of ladder steps, conditions applied, without repeats.

Conditions that move a setting come first, each behind those that it depends on: a limit lowers or raises it, and where
it sleeps it has its default. The value may lie between two ladder steps (graphs up to 512 with a batch of 384 become
384, as the engine makes them with padding): "graphs up to the batch size" is always on the grid. Combinations that then
break a condition are left out. What ends as the same configuration is one point of the grid.
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

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig, config_from_flat
from advisor.domain.strict import changed, explain, unknown_name
from advisor.domain.study import Choice, Condition, Dimension, SearchSpace

Column = NDArray[Any]
MOST_COMBINATIONS = 1_000_000  # a ranking of more takes minutes and gigabytes
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
    loud = [each.name for each in space.active if each.changes_answers and each.name not in [*vary, *pinned]]
    if loud:
        raise BadInput(
            f"Search space {space.name!r}: {loud[0]} can change what the model says, so a space does not switch it on "
            f"by itself. Write enabled: false there and ask for it with --vary {loud[0]}, or under `vary` in the study."
        )
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
        BadInput: one of the four settings missing, an illegal ladder value, too many combinations, a condition between
            things without order or without a default, conditions that leave nothing.
    """
    place = f"Search space {space.name!r}"
    active = {dimension.name: dimension for dimension in space.active}
    missing = [name for name in FOUR_SETTINGS if name not in active]
    if missing:
        raise BadInput(
            f"{place} leaves out {', '.join(missing)}: all four settings must be enabled "
            "dimensions. To hold one fixed, give it a ladder of one value."
        )
    for name in FOUR_SETTINGS:
        for value in active[name].values:
            try:
                config_from_flat({**_LEGAL, name: value})
            except ValidationError as error:
                mistakes = explain(error, ServingConfig)
                raise BadInput(f"{place}, ladder of {name}: {mistakes}") from None
    if grid_size(space) > MOST_COMBINATIONS:
        raise BadInput(
            f"{place} has {grid_size(space):,} combinations; at most {MOST_COMBINATIONS:,} are searched. Shorten the "
            f"longest ladders, or vary fewer dimensions."
        )
    for condition in space.awake:
        _check_condition(condition, space, place)
    leave_out = any(not condition.moves or condition.at_least is not None for condition in space.awake)
    if leave_out and not len(_grid(space)):
        raise BadInput(f"{place}: its conditions leave no combination at all; loosen one of them.")
    return space


def _check_condition(condition: Condition, space: SearchSpace, place: str) -> None:
    """Refuse a limit between things without order, and sleep without a default.

    Raises:
        BadInput: with the condition in words.
    """
    if condition.setting is not None and condition.factors:
        factors = [_kinds(space, factor) if isinstance(factor, str) else {type(factor)} for factor in condition.factors]
        setting, limit = _kinds(space, condition.setting), set().union(*factors)
        if not (setting | limit) <= {int, float} or len(setting) != 1 or (setting == {int} and limit != {int}):
            raise BadInput(
                f"{place}: the condition {condition.text!r} needs ladders of numbers of the same kind: whole numbers "
                "for a whole number."
            )
    elif condition.setting is not None and space.dimension(condition.setting).default is None:
        raise BadInput(
            f"{place}: the condition {condition.text!r} needs to know what {condition.setting} is elsewhere: "
            "state its `default`."
        )


def grid_size(space: SearchSpace) -> int:
    """Combinations of ladder steps, before conditions make some of them equal and leave some out."""
    return math.prod(len(dimension.values) for dimension in space.active)


def config_at(space: SearchSpace, indices: Mapping[str, int]) -> ServingConfig:
    """The configuration at one ladder index per active dimension, settled; it may be one that conditions leave out."""
    return _at(space, indices)[0]


def _at(space: SearchSpace, indices: Mapping[str, int]) -> tuple[ServingConfig, bool]:
    """The configuration, and whether conditions keep it."""
    values = {dimension.name: dimension.values[indices[dimension.name]] for dimension in space.active}
    settled, kept = _settled_one(space, values)
    return config_from_flat(settled), kept


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
    table = _table(space, {name: _column([value]) for name, value in values.items()})
    for condition in space.awake:
        name = condition.setting
        if name is None or (condition.at_most is None and condition.at_least is None):
            continue
        steps, value = space.dimension(name).values, values[name]
        if value in steps or value != _limit(condition, table).tolist()[0]:
            continue
        # Moved to its limit, so it came from a step beyond; the nearest of them stands for all.
        above = [index for index, step in enumerate(steps) if _number(step) > _number(value)]
        below = [index for index, step in enumerate(steps) if _number(step) < _number(value)]
        beyond = above[:1] if condition.at_most is not None else below[-1:]
        indices[name] = beyond[0] if beyond else indices[name]
    return indices


def contains(space: SearchSpace, config: ServingConfig) -> bool:
    """True when the configuration is a point of the grid."""
    try:
        return _at(space, indices_of(space, config)) == (config, True)
    except BadInput:
        return False


def is_kept(space: SearchSpace, config: ServingConfig) -> bool:
    """False for a configuration that conditions leave out."""
    return _settled_one(space, config.flat())[1]


def completed(space: SearchSpace, config: ServingConfig, deployment: Deployment) -> ServingConfig:
    """The configuration with every option that the space varies stated.

    Open ones are where the space says that the baseline stands, else as the deployment fixes them.
    """
    open_ones = {each.name: each.default for each in space.active if each.name not in config.flat()}
    stated = {name: deployment.option(name) if value is None else value for name, value in open_ones.items()}
    known = {name: value for name, value in stated.items() if value is not None}
    return changed(config, options={**config.options, **known}) if known else config


def widened(space: SearchSpace, config: ServingConfig) -> SearchSpace:
    """The space with a configuration's own values as further ladder steps, so that it is a point of the grid.

    Options that the space does not search stay as the configuration has them.

    Raises:
        BadInput: the configuration says nothing about one of the dimensions.
    """
    values = config.flat()
    open_ones = [dimension.name for dimension in space.active if dimension.name not in values]
    if open_ones:
        raise BadInput(f"The configuration leaves {open_ones[0]} open; search space {space.name!r} varies it.")
    dimensions = []
    for dimension in space.dimensions:
        if dimension.enabled:
            dimensions.append(changed(dimension, values=_with_step(dimension.values, values[dimension.name])))
        elif dimension.name not in values:
            dimensions.append(dimension)
    searched = {dimension.name for dimension in dimensions}
    held = {name: value for name, value in values.items() if name not in searched}
    dimensions += [
        Dimension(name=name, values=(value,), default=value, reason="As the configuration has it.")
        for name, value in held.items()
    ]
    return checked(changed(space, dimensions=tuple(dimensions)))


def _with_step(steps: tuple[OptionValue, ...], value: OptionValue) -> tuple[OptionValue, ...]:
    if value in steps:
        return steps
    ordered = all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in (*steps, value))
    return tuple(sorted((*steps, value), key=_number)) if ordered else (*steps, value)


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
            candidates = (_at(space, {**here, dimension.name: index}) for index in steps)
            nearest = next((each for each, kept in candidates if kept and each != config), None)
            if nearest is not None:
                found[nearest] = None
    return tuple(found)


@dataclass(frozen=True)
class _Grid:
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

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
    """All combinations, settled, those that are left out gone, the first of equal rows kept."""
    active = space.active
    steps = np.indices([len(dimension.values) for dimension in active]).reshape(len(active), -1)
    table, kept = _settled(
        space,
        {dimension.name: _column(dimension.values)[index] for dimension, index in zip(active, steps, strict=True)},
    )
    codes = np.zeros(steps.shape[1], dtype=np.int64)
    for column in table.values():
        rank = _ranks(column)
        codes = codes * (int(rank.max()) + 1) + rank
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return _Grid({name: column[first & kept] for name, column in table.items()})


def _ranks(column: Column) -> NDArray[np.int64]:
    """A number for each distinct value."""
    if column.dtype != object:
        return np.unique(column, return_inverse=True)[1].reshape(-1)
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in column.tolist()], dtype=np.int64)


def _settled_one(space: SearchSpace, values: Mapping[str, OptionValue]) -> tuple[dict[str, OptionValue], bool]:
    table, kept = _settled(space, {name: _column([value]) for name, value in values.items()})
    return {name: column.tolist()[0] for name, column in table.items()}, bool(kept[0])


def _settled(space: SearchSpace, columns: Mapping[str, Column]) -> tuple[dict[str, Column], NDArray[np.bool_]]:
    """Rows after every condition that moves a setting, and which of them no condition leaves out.

    Args:
        space: Says the conditions.
        columns: One array per active dimension, all of one length n.

    Returns:
        The same columns, and a mask (n,).
    """
    table = _table(space, columns)
    kept = np.ones(len(next(iter(table.values()))), dtype=bool)
    asleep: dict[str, NDArray[np.bool_]] = {}
    for name, conditions in space.movers:
        limits = [condition for condition in conditions if condition.factors]
        for condition in limits:
            clip = np.minimum if condition.at_most is not None else np.maximum
            table[name] = clip(table[name], _limit(condition, table))
        sleeps = [
            _holds(condition.choice, table) == (condition.unless is not None)
            for condition in conditions
            if condition.choice is not None
        ]
        asleep[name] = np.any(sleeps, axis=0) if sleeps else np.zeros_like(kept)
        for condition in limits:
            kept &= asleep[name] | _keeps(condition, table)
        if asleep[name].any():
            table[name] = _replaced(table[name], asleep[name], space.dimension(name).default)
    for condition in space.awake:
        if condition.forbid is not None:
            kept &= ~_holds(condition.forbid, table)
        elif condition.multiple_of is not None and condition.setting is not None:
            kept &= asleep.get(condition.setting, np.zeros_like(kept)) | _keeps(condition, table)
    return {name: table[name] for name in columns}, kept


def _table(space: SearchSpace, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, and those dimensions that are not searched at their defaults."""
    n = len(next(iter(columns.values())))
    fixed = {each.name: each.default for each in space.dimensions if each.name not in columns}
    constant = {name: _column([value] * n) for name, value in fixed.items() if value is not None}
    return {**constant, **columns}


def _limit(condition: Condition, table: Mapping[str, Column]) -> Column:
    """The product that a limit says, for every row."""
    return np.asarray(math.prod(table[each] if isinstance(each, str) else each for each in condition.factors))


def _keeps(condition: Condition, table: Mapping[str, Column]) -> NDArray[np.bool_]:
    assert condition.setting is not None
    value, limit = table[condition.setting], _limit(condition, table)
    if condition.multiple_of is not None:
        return np.asarray(value % limit == 0)
    return np.asarray(value <= limit if condition.at_most is not None else value >= limit)


def _holds(choice: Choice, table: Mapping[str, Column]) -> NDArray[np.bool_]:
    """Where each dimension has one of its values."""
    each = [np.any([table[name] == value for value in values], axis=0) for name, values in choice.items()]
    return np.asarray(np.all(each, axis=0))


def _replaced(column: Column, where: NDArray[np.bool_], value: OptionValue | None) -> Column:
    """A column with one value where the mask says so; of values of several kinds, as objects."""
    new = _column([value])
    if new.dtype.kind != column.dtype.kind:
        column, new = column.astype(object), new.astype(object)
    return np.where(where, new, column)


def _column(values: Sequence[OptionValue | None]) -> Column:
    """Values of one kind as a typed array, mixed ones as objects, so that nothing is converted on the way."""
    one_kind = len({type(value) for value in values}) == 1
    return np.array(values, dtype=None if one_kind else object)


def _kinds(space: SearchSpace, name: str) -> set[type]:
    """Kinds of value that a dimension can have."""
    dimension = space.dimension(name)
    return {type(value) for value in dimension.values}


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
