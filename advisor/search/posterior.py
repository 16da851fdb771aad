"""What all launches together say of the configurations that were launched: draws of one true output of each.

    y = log twin(x) + r(x) + v t + e        cov(r(x), r(x')) = b^2 + a^2 M(u, u') + s^2 J(x) . J(x')

y   log measured of one launch                  r, M, u, J, a, b, s   as in `search/surrogate.py`, one workload
t   launches from this one to the latest, <= 0  v                     drift of the server's pace per launch
e   noise between launches of one configuration, normal with deviation n

The sampler takes the most probable a, s, n; who says "95 %" must not. Here they are averaged over a lattice, each point
weighted with its marginal likelihood times prior (Rasmussen and Williams, Gaussian Processes for Machine Learning,
5.2). So two launches of one configuration never give an absurd deviation: the noise is pooled over all of them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.search.surrogate import matern, product

Array = NDArray[np.float64]
Index = NDArray[np.int64]

N_DRAWS = 2000
LOCAL = (0.0005, 0.001, 0.002, 0.004, 0.01, 0.03, 0.1, 0.3)  # half of them: the form of the twin is right
CONSTANTS, CONSTANTS_WIDTH = (0.6, 1.0, 1.6), 0.5  # around 1: the twin's errors are as large as known
NOISE, NOISE_MEDIAN, NOISE_WIDTH = (0.005, 0.008, 0.0125, 0.02, 0.032, 0.05), 0.0125, 0.6
LENGTHS = (0.35, 0.9)
DRIFT = (0.0, 0.002)  # per launch: none, or 5 % over a study of 24 as one deviation
JITTER = 1e-10

LATTICE: Array = np.array(list(itertools.product(LOCAL, CONSTANTS, NOISE, LENGTHS, DRIFT)))
"""Columns a, s, n, length, deviation of v; shape (L, 5)."""


@dataclass(frozen=True, eq=False)
class Told:
    """Everything known of one output under one workload; n configurations, N runs of them.

    Attributes:
        places: u, shape (n, d).
        slopes: J, shape (n, K).
        log_prior: log twin, shape (n,).
        bias: b.
        at: Which configuration each run was of, shape (N,).
        log_values: y, shape (N,).
        ages: t, shape (N,).
    """

    places: Array
    slopes: Array
    log_prior: Array
    bias: float
    at: Index
    log_values: Array
    ages: Array


@dataclass(frozen=True, eq=False)
class Believed:
    """Draws (N_DRAWS, n) of the true log outputs as they are now, and what they go by.

    `noise` is the deviation between launches, `drift` that of the log per launch with its standard deviation.
    """

    draws: Array
    noise: float
    drift: float
    drift_sd: float


def believed(told: Told, seed: int) -> Believed:
    """The posterior of the true outputs at the time of the latest launch.

    Args:
        told: At least one run.
        seed: Of the draws; outputs drawn with different seeds are independent.
    """
    prior = _covariances(told)
    runs = prior[:, told.at[:, None], told.at[None, :]]
    runs += (LATTICE[:, 4] ** 2)[:, None, None] * np.outer(told.ages, told.ages)
    runs += (LATTICE[:, 2] ** 2 + JITTER)[:, None, None] * np.eye(len(told.at))
    factors, residuals = np.linalg.cholesky(runs), told.log_values - told.log_prior[told.at]
    whitened = np.linalg.solve(factors, np.broadcast_to(residuals[:, None], (len(runs), len(residuals), 1)))[:, :, 0]
    log_weights = -0.5 * (whitened**2).sum(axis=1) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    log_weights += _log_prior(LATTICE)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    counts = np.diff(np.floor(N_DRAWS * np.cumsum(weights) + 1e-6), prepend=0.0).astype(int)
    rng, found, drifts = np.random.default_rng(seed), [], []
    for point in np.flatnonzero(counts):
        cross = np.linalg.solve(factors[point], prior[point][told.at])
        mean = told.log_prior + cross.T @ whitened[point]
        spread = prior[point] - cross.T @ cross + JITTER * np.eye(len(mean))
        found.append(mean + rng.standard_normal((counts[point], len(mean))) @ np.linalg.cholesky(spread).T)
        trend = LATTICE[point, 4] ** 2 * np.linalg.solve(factors[point], told.ages)
        drifts.append((trend @ whitened[point], LATTICE[point, 4] ** 2 - trend @ trend))
    share, (drift, variance) = weights[counts > 0] / weights[counts > 0].sum(), np.array(drifts).T
    mean_drift = float(share @ drift)
    return Believed(
        draws=rng.permutation(np.concatenate(found)),
        noise=math.sqrt(float(weights @ LATTICE[:, 2] ** 2)),
        drift=mean_drift,
        drift_sd=math.sqrt(max(0.0, float(share @ (variance + drift**2)) - mean_drift**2)),
    )


def _covariances(told: Told) -> Array:
    """cov(r, r) of the configurations at every point of the lattice, shape (L, n, n)."""
    near = {
        length: product(matern, np.full(told.places.shape[1], length), told.places, told.places) for length in LENGTHS
    }
    local = np.stack([near[length] for length in LATTICE[:, 3]])
    squares = LATTICE**2
    linear = told.slopes @ told.slopes.T
    return np.asarray(told.bias**2 + squares[:, 0, None, None] * local + squares[:, 1, None, None] * linear)


def _log_prior(lattice: Array) -> Array:
    """Log prior of lattice points up to a constant, shape (L,): log-normal s and n, the others as they are spread."""
    constants = np.log(lattice[:, 1]) / CONSTANTS_WIDTH
    noise = np.log(lattice[:, 2] / NOISE_MEDIAN) / NOISE_WIDTH
    return np.asarray(-0.5 * (constants**2 + noise**2))
