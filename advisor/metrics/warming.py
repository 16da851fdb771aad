"""How much of a benchmark belongs to warming up, found from its batches (MSER; White, Simulation 69:6, 1997)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_BATCHES = 6
LEAST_LAG = 0.05  # of the steady rate; what just-in-time work costs is more
LEAST_DEVIATIONS = 3.0  # of one steady batch


def truncation(values: NDArray[np.float64]) -> int:
    """How many values to leave out at the beginning, so that the mean of the rest has the least standard error.

    Args:
        values: Batch means in order, shape (n,), n >= 1.

    Returns:
        k, 0 <= k <= n / 2, the least that minimises sum_{i >= k} (v_i - mean_k)^2 / (n - k)^2.
    """
    tails = [values[k:] for k in range(values.size // 2 + 1)]
    return int(np.argmin([tail.var() / tail.size for tail in tails]))


def n_warming(rates: NDArray[np.float64]) -> int:
    """Batches at the beginning in which a server was clearly slower than in those that MSER leaves.

    Args:
        rates: Of batches without ramp-up and tail, in order; larger is faster. Of fewer than six nothing is said.
    """
    if rates.size < LEAST_BATCHES:
        return 0
    k = truncation(rates)
    steady = rates[k:]
    lag = max(LEAST_LAG * float(steady.mean()), LEAST_DEVIATIONS * float(steady.std()))
    settled = rates[:k] >= float(steady.mean()) - lag
    return int(np.argmax(settled)) if settled.any() else k
