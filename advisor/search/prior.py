"""What is believed of every configuration before the first launch, as arrays over the grid of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Objective, Slo, latency_ms
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.study import Dimension, SearchSpace
from advisor.search.space import columns

Array = NDArray[np.float64]
OBJECTIVE = "objective"


@dataclass(frozen=True, eq=False)
class Prior:
    """Beliefs about N configurations.

    Attributes:
        log_values: By workload and output (`objective`, or a limit such as `ttft:p95`): natural logarithm of what the
            twin expects, shape (N,); NaN where it expects that nothing can be served.
        slopes: The same keys: how they move when a constant of the twin is off by one standard deviation, (N, K).
        margin_gib: Memory left by the memory law, shape (N,), or (N, m) at each of m moments.
        margin_slopes: How it moves with the law's constants, (N, D) or (N, m, D).
    """

    log_values: Mapping[tuple[str, str], Array]
    slopes: Mapping[tuple[str, str], Array]
    margin_gib: Array
    margin_slopes: Array


class PriorSource(Protocol):
    """Where beliefs come from, such as the twin."""

    def over_grid(self) -> Prior:
        """Of the whole space, rows as in `all_configs`."""
        ...

    def at(self, configs: Sequence[ServingConfig]) -> Prior:
        """Of some configurations, on the grid or not."""
        ...


def joined(priors: Sequence[Prior], like: Prior) -> Prior:
    """The rows of several priors as one with the keys of `like`; of none, one without rows."""
    each = [*priors, rows_of(like, slice(0, 0))]
    return Prior(
        log_values={key: np.concatenate([prior.log_values[key] for prior in each]) for key in like.log_values},
        slopes={key: np.concatenate([prior.slopes[key] for prior in each]) for key in like.slopes},
        margin_gib=np.concatenate([prior.margin_gib for prior in each]),
        margin_slopes=np.concatenate([prior.margin_slopes for prior in each]),
    )


def rows_of(prior: Prior, which: slice) -> Prior:
    """Some of its rows."""
    return Prior(
        log_values={key: value[which] for key, value in prior.log_values.items()},
        slopes={key: value[which] for key, value in prior.slopes.items()},
        margin_gib=prior.margin_gib[which],
        margin_slopes=prior.margin_slopes[which],
    )


def outputs(slo: Slo) -> tuple[str, ...]:
    """What must be known of a workload to judge a configuration."""
    return (OBJECTIVE, *(limit.name for limit in slo.limits))


def log_output(name: str, metrics: Metrics, objective: Objective) -> float | None:
    """Natural logarithm of one measured output, None where it is undefined. Of the objective, larger is better."""
    if name == OBJECTIVE:
        value = objective.value(metrics)
        sign = -1.0 if objective.direction == "minimize" else 1.0
    else:
        value, sign = latency_ms(metrics, *name.split(":")), 1.0
    return None if value is None or value <= 0 else sign * float(np.log(value))


def grid_places(space: SearchSpace) -> Array:
    """Where every configuration of the grid stands on the ladders that are searched, 0 to 1 each, shape (N, d).

    A ladder of names has no order: each of three or more names is a coordinate of its own, 0 or 1.
    """
    table = columns(space)
    return np.concatenate([_along(dimension, table[dimension.name].tolist()) for dimension in space.active], axis=1)


def places_of(space: SearchSpace, configs: Sequence[ServingConfig]) -> Array:
    """The same of some configurations, on the grid or not, shape (n, d)."""
    flat = [config.flat() for config in configs]
    along = [_along(dimension, [values[dimension.name] for values in flat]) for dimension in space.active]
    return np.concatenate(along, axis=1)


def steps_along(space: SearchSpace) -> Array:
    """Ladder steps that one coordinate of a place spans, shape (d,); from any name to another is one step."""
    return np.concatenate([_spans(dimension) for dimension in space.active])


def _spans(dimension: Dimension) -> Array:
    n = len(dimension.values)
    return np.full(n, 0.5) if _is_of_names(dimension) and n > 2 else np.array([n - 1.0])


def _is_of_names(dimension: Dimension) -> bool:
    return not all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in dimension.values)


def _along(dimension: Dimension, values: Sequence[OptionValue]) -> Array:
    """Steps of a ladder as a share of its length, shape (n, 1); values between two steps by their ratio.

    Of names the coordinates of each, shape (n, number of names); of two they need only one.
    """
    steps = dimension.values
    top = max(1, len(steps) - 1)
    if _is_of_names(dimension):
        index = np.array([steps.index(value) if value in steps else -1 for value in values])
        if len(steps) > 2:
            return np.asarray(index[:, None] == np.arange(len(steps)), dtype=float)
        return np.asarray(np.maximum(index, 0)[:, None] / top)
    ladder, asked = np.array(steps, float), np.array(values, float)
    lowest = ladder[ladder > 0].min(initial=1.0) / 2  # so that 0, graphs off, has a ratio
    along = np.interp(np.log(np.maximum(asked, lowest)), np.log(np.maximum(ladder, lowest)), np.arange(len(steps)))
    return np.asarray(along[:, None] / top)
