"""The first proposal of a search: what is most likely near the best, in drawn servers that agree with the baseline.

One launch says much about a server whose form is known, and a Gaussian process around the nominal twin makes little of
it: where a limit decides, the whole of the grid moves with a few constants, and not along straight lines. Symbols: M
drawn servers, n configurations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.prior import OBJECTIVE

Array = NDArray[np.float64]

NEAR = 0.05  # of the best: a search that begins there has little left to find
N_ASKED = 500  # configurations that are judged in every drawn server
REACH = 0.7  # log units of the objective below the best expected, beyond which nobody is asked
SLACK = math.log(3.0)  # of a limit: who is expected beyond it is not asked either


@dataclass(frozen=True, eq=False)
class DrawnServers:
    """What configurations would show on each of M servers, by workload and output: natural logarithms.

    Attributes:
        log_values: Shape (M, n), NaN where it would run out of memory or serve nothing.
        weights: How well each server agrees with what was measured, shape (M,), summing to 1.
    """

    log_values: Mapping[tuple[str, str], Array]
    weights: Array


Drawing = Callable[[Sequence[TrialRecord], Sequence[ServingConfig]], "DrawnServers | None"]
"""Servers that agree with measured records, asked about some configurations; None where nothing can be drawn."""


def is_opening(records: Sequence[TrialRecord]) -> bool:
    """True when something was measured, but nothing yet that a search proposed."""
    served = [record for record in records if record.served]
    return any(record.measured for record in served) and all(record.role != "search" for record in served)


def plausible(
    log_values: Mapping[tuple[str, str], Array], workloads: Sequence[Workload], log_limits: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Rows that may be the best of some workload on a server not too far from the expected one, shape (N,)."""
    found = np.zeros(len(next(iter(log_values.values()))), bool)
    for workload in workloads:
        objective = log_values[workload.name, OBJECTIVE]
        may = np.isfinite(objective)
        for name, log_limit in log_limits.items():
            may &= log_values[workload.name, name] <= log_limit + SLACK
        if may.any():
            found |= may & (objective >= objective[may].max() - REACH)
    return found


def p_near_best(drawn: DrawnServers, workloads: Sequence[Workload], log_limits: Mapping[str, float]) -> Array:
    """Probability to keep the limits and come within `NEAR` of the best asked, mean over workloads, shape (n,)."""
    found = []
    for workload in workloads:
        objective = drawn.log_values[workload.name, OBJECTIVE]
        kept = np.isfinite(objective)
        for name, log_limit in log_limits.items():
            kept &= drawn.log_values[workload.name, name] <= log_limit
        value = np.where(kept, objective, -np.inf)
        best = value.max(axis=1, keepdims=True)
        found.append(drawn.weights @ (kept & (value >= best + math.log1p(-NEAR))))
    return np.asarray(np.mean(found, axis=0))
