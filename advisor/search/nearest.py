"""Which configuration to try in place of one that does not run: the one that costs least, of those that should fit.

What a change costs is the throughput that the twin expects to lose by it. Changes are few before they are small: a
person must be able to see what was done to their file. Arrays have one entry a candidate, shape (n,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.domain.serving_config import ServingConfig

Array = NDArray[np.float64]

SAFE_P_FITS = 0.8  # a rescue should not fail twice
LOG_COST_PER_CHANGE = 0.003  # a setting is left alone for a gain below 0.3 %
LOG_COST_PER_STEP = 0.0003
UNSERVED_LOG_COST = 100.0  # what the twin thinks cannot be served comes last


def n_changed(original: ServingConfig, candidates: Sequence[ServingConfig]) -> Array:
    """Settings that differ from the original."""
    home = original.flat()
    return np.array([sum(value != home.get(name) for name, value in each.flat().items()) for each in candidates], float)


def log_cost(log_scores: Array, home_score: float, changes: Array, steps: Array) -> Array:
    """What each candidate costs: expected loss of the objective (a gain counts as none), changes, ladder steps."""
    loss = np.maximum(0.0, home_score - log_scores) if np.isfinite(home_score) else np.nanmax(log_scores) - log_scores
    served = np.where(np.isfinite(loss), loss, UNSERVED_LOG_COST)
    return np.asarray(served + LOG_COST_PER_CHANGE * changes + LOG_COST_PER_STEP * steps)


def cheapest_first(cost: Array, p_fits: Array) -> list[int]:
    """Places in the order in which they should be tried: safe ones by cost, then the others by how likely they fit."""
    safe = p_fits >= SAFE_P_FITS
    order = np.lexsort((cost, np.where(safe, 0.0, -p_fits), ~safe))
    return [int(place) for place in order]
