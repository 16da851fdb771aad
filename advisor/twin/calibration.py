"""How far the twin's constants are off, from what launches showed: a Bayesian fit by Gauss-Newton.

    y = f(d) + e        d ~ N(0, I)        e ~ N(0, R)

d (K,)    errors of constants, each in units of its standard deviation in `KNOWN_ERROR`
y (n,)    logarithms of what was measured: throughput, TTFT, TPOT of every benchmark
f (n,)    logarithms of what the twin says with the constants of d
J (n, K)  how f moves when a constant is off by one more standard deviation
R         noise of each reading, and the pace of a whole run, which all of its readings share

Each step solves the linear problem around the last d: d = (I + J' R^-1 J)^-1 J' R^-1 (y - f + J d), whose first factor
is in the end the covariance of d. A reading's noise is what the fit leaves of its kind, and no less than a repeat's, so
that a server of another form than the twin's does not look certain. J is taken over the spread that d still has, to
both sides: a step of a server takes as long as the slower of GPU and host, and the slope of that has an edge. There the
mean goes by the mean of both slopes, and the covariance by the lesser: what is hidden on one side is not certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.twin.constants import MEASUREMENT_NOISE, TwinConstants, off_by

Array = NDArray[np.float64]
Logs = Callable[[TwinConstants], Array]
"""Logarithms of what the twin says, as a function of its constants alone; NaN where it could not serve."""

MOST_SLOPE = 0.3  # beyond that a step over an edge, not a slope
LEAST_NOISE = 0.01  # assumed: of one reading beside the pace of its run
MOST_STEPS = 12
SETTLED = 0.1  # of the deviation that is left
PROBED_SD = 3.0  # a constant that moves nothing that far off is hidden
LONGEST_STEP = 2.0  # standard deviations: beyond that the slopes are other ones


def slopes(logs: Logs, constants: TwinConstants, names: Sequence[str], at: Array, steps: Array | None = None) -> Array:
    """J: how logarithms move with each constant, per standard deviation that it is off, shape (..., K).

    Args:
        logs: Of the twin.
        constants: Where it stands.
        names: K constants.
        at: `logs(constants)`, shape (...).
        steps: By how many standard deviations each is moved; None for one.
    """
    each = zip(names, np.ones(len(names)) if steps is None else steps, strict=True)
    with np.errstate(invalid="ignore"):
        moved = [(logs(off_by(constants, {name: float(step)})) - at) / step for name, step in each]
    return np.asarray(np.clip(np.nan_to_num(np.stack(moved, axis=-1)), -MOST_SLOPE, MOST_SLOPE))


def that_matter(logs: Logs, constants: TwinConstants, names: Sequence[str]) -> tuple[str, ...]:
    """The constants that move anything when they are far off to either side."""
    at, far = logs(constants), np.full(len(names), PROBED_SD)
    moved = np.abs(slopes(logs, constants, names, at, far)) + np.abs(slopes(logs, constants, names, at, -far))
    return tuple(name for name, most in zip(names, moved.max(axis=0), strict=True) if most > 0)


@dataclass(frozen=True, eq=False)
class Readings:
    """What was measured, n rows.

    Attributes:
        logs: y, shape (n,).
        kinds: Which output a row is, 0 ..., shape (n,).
        runs: Which benchmark a row belongs to, shape (n,).
        senses: How a row moves when its whole run is slower: -1 for a rate, +1 for a latency, shape (n,).
    """

    logs: Array
    kinds: NDArray[np.int64]
    runs: NDArray[np.int64]
    senses: Array

    def noise(self, residuals: Array) -> Array:
        """R (n, n), from what a fit leaves."""
        own = np.empty(len(residuals))
        for kind in np.unique(self.kinds):
            alike = self.kinds == kind
            left = residuals[alike & np.isfinite(residuals)]
            own[alike] = np.sqrt(LEAST_NOISE**2 + (left @ left) / max(1, len(left)))
        shared = (self.runs[:, None] == self.runs) * np.outer(self.senses, self.senses)
        return np.asarray(np.diag(own**2) + MEASUREMENT_NOISE**2 * shared)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Constants after a fit; `mean` (K,) and `covariance` (K, K) of d, in the order of the names."""

    constants: TwinConstants
    mean: Array
    covariance: Array

    @property
    def sd(self) -> Array:
        """Standard deviations of d, 1 where nothing was learnt, shape (K,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


def fit(readings: Readings, logs: Logs, around: TwinConstants, names: Sequence[str]) -> Fitted:
    """The most probable constants, and how sure that is.

    Args:
        readings: At least one.
        logs: f, rows as in the readings; those that are NaN at some d say nothing there.
        around: The constants of d = 0.
        names: Constants to fit; the others stay as they are.
    """
    mean, spread, residuals = np.zeros(len(names)), np.ones(len(names)), np.zeros(len(readings.logs))
    for _ in range(MOST_STEPS):
        constants = off_by(around, dict(zip(names, mean.tolist(), strict=True)))
        at = logs(constants)
        known = np.isfinite(readings.logs - at)
        noise = readings.noise(residuals)[np.ix_(known, known)]
        up, down = (slopes(logs, constants, names, at, steps)[known] for steps in (spread, -spread))
        J, residuals = (up + down) / 2, readings.logs - at
        covariance = _covariance(J, noise)
        step = covariance @ J.T @ np.linalg.solve(noise, residuals[known] + J @ mean) - mean
        mean = mean + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        residuals[known] -= J @ step  # what should be left
        sd = np.sqrt(np.diag(covariance))
        if (np.abs(step) / sd).max(initial=0.0) < SETTLED:
            break
        spread = np.sqrt(spread * sd)
    found = off_by(around, dict(zip(names, mean.tolist(), strict=True)))
    return Fitted(found, mean, _covariance(np.where(np.abs(up) < np.abs(down), up, down), noise))


def _covariance(J: Array, noise: Array) -> Array:
    return np.asarray(np.linalg.inv(np.eye(J.shape[1]) + J.T @ np.linalg.solve(noise, J)))
