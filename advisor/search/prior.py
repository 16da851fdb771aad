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
        margin_gib: Memory left at the tightest moment by the memory law, shape (N,).
        margin_slopes: How it moves with the law's constants, (N, D).
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
    """Where every configuration of the grid stands on the ladders that are searched, 0 to 1 each, shape (N, d)."""
    table = columns(space)
    return np.stack([_along(dimension, table[dimension.name].tolist()) for dimension in space.active], axis=1)


def places_of(space: SearchSpace, configs: Sequence[ServingConfig]) -> Array:
    """The same of some configurations, on the grid or not, shape (n, d)."""
    flat = [config.flat() for config in configs]
    along = [_along(dimension, [values[dimension.name] for values in flat]) for dimension in space.active]
    return np.stack(along, axis=1)


def _along(dimension: Dimension, values: Sequence[OptionValue]) -> Array:
    """Steps of a ladder as a share of its length; values between two steps by their ratio."""
    steps = dimension.values
    top = max(1, len(steps) - 1)
    if not all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in steps):
        return np.array([steps.index(value) if value in steps else 0 for value in values], float) / top
    ladder, asked = np.array(steps, float), np.array(values, float)
    lowest = ladder[ladder > 0].min(initial=1.0) / 2  # so that 0, graphs off, has a ratio
    along = np.interp(np.log(np.maximum(asked, lowest)), np.log(np.maximum(ladder, lowest)), np.arange(len(steps)))
    return np.asarray(along / top)
