"""The memory frontier: what launches teach about the memory law, and with it the probability that a launch fits.

The law is taken as linear in the errors of its own constants: margin(x) = law(x) + J(x) d, in GiB. Column k of J is how
far the margin moves when constant k is off by one standard deviation, so a priori d ~ N(0, 1) each: a Bayesian linear
regression whose prior widths are `MEMORY_ERROR`. One further column is a misfit that no constant explains. Shapes, with
D columns: d (D,), J (..., D). The margin is free minus tried at the tightest moment; below zero memory runs out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.domain.normal import normal_cdf, normal_pdf
from advisor.domain.outcome import Hopeless, Measured, OutOfMemory, Unhealthy
from advisor.domain.trial import TrialRecord
from advisor.memory.constants import MEMORY_ERROR, MemoryConstants
from advisor.memory.law import STAGES, MemoryBudget

Array = NDArray[np.float64]
Law = Callable[[MemoryConstants], MemoryBudget]
"""The memory law of one configuration, or of a grid, as a function of its constants alone."""

MISFIT_GIB = 0.3  # assumed: what a launch needs beside every term of the law, one standard deviation
READING_GIB = 0.1  # assumed: a reading of used memory repeats to about this
N_FEATURES = len(MEMORY_ERROR) + 1
SERVE = len(STAGES) - 1

Kind = Literal["exact", "at_most", "at_least"]


@dataclass(frozen=True, eq=False)
class Observation:
    """The margin of one launch: predicted by the law, and observed exactly or as a bound. `features` is a row of J."""

    features: Array
    predicted_gib: float
    observed_gib: float
    kind: Kind


@dataclass(frozen=True, eq=False)
class Frontier:
    """Posterior of d: `mean` (D,), `covariance` (D, D)."""

    mean: Array
    covariance: Array

    def margin_gib(self, features: ArrayLike, predicted_gib: ArrayLike) -> tuple[Array, Array]:
        """Expected margin and its standard deviation, GiB, for J (..., D) and the law's own margin (...)."""
        J = np.asarray(features, np.float64)
        variance = ((J @ self.covariance) * J).sum(axis=-1)
        return np.asarray(predicted_gib, np.float64) + J @ self.mean, np.sqrt(
            np.maximum(variance, 0.0) + READING_GIB**2
        )

    def p_fits(self, features: ArrayLike, predicted_gib: ArrayLike) -> Array:
        """Probability that the margin is not negative."""
        mean, sd = self.margin_gib(features, predicted_gib)
        return normal_cdf(mean / sd)

    def expected_shortfall_gib(self, features: ArrayLike, predicted_gib: ArrayLike) -> Array:
        """GiB that will be missing on average, counting launches that fit as missing none."""
        mean, sd = self.margin_gib(features, predicted_gib)
        z = mean / sd
        return np.asarray(np.maximum(0.0, sd * normal_pdf(z) - mean * normal_cdf(-z)))


PRIOR = Frontier(np.zeros(N_FEATURES), np.eye(N_FEATURES))


def fit(observations: Sequence[Observation], prior: Frontier = PRIOR) -> Frontier:
    """The frontier after these launches.

    A bound that the fit keeps by itself teaches nothing; one that it breaks enters as a reading at the bound.
    """
    if not observations:
        return prior
    J = np.stack([observation.features for observation in observations])
    residual = np.array([observation.observed_gib - observation.predicted_gib for observation in observations])
    # +1: the residual is at most this; -1: at least; 0: exactly.
    side = np.array([{"exact": 0, "at_most": 1, "at_least": -1}[observation.kind] for observation in observations])
    active = side == 0
    frontier = _posterior(J[active], residual[active], prior)
    for _ in observations:
        broken = ~active & (side * (J @ frontier.mean - residual) > 0)
        if not broken.any():
            break
        active |= broken
        frontier = _posterior(J[active], residual[active], prior)
    return frontier


def _posterior(J: Array, residual: Array, prior: Frontier) -> Frontier:
    """Conjugate update with known reading noise, in the form that inverts a matrix of n_observations only."""
    gain = prior.covariance @ J.T @ np.linalg.inv(J @ prior.covariance @ J.T + READING_GIB**2 * np.eye(len(J)))
    return Frontier(prior.mean + gain @ (residual - J @ prior.mean), prior.covariance - gain @ J @ prior.covariance)


def sensitivities(law: Law, constants: MemoryConstants, stage: int | None = None) -> tuple[Array, Array]:
    """The law's margin (...) and J (..., D) for what `law` describes.

    Args:
        law: One configuration or a grid.
        constants: Nominal ones.
        stage: Index into `STAGES`; none for the tightest of all.
    """

    def margin(with_constants: MemoryConstants) -> Array:
        budget = law(with_constants)
        return budget.headroom_gib if stage is None else np.asarray(budget.margin_gib[stage])

    nominal = margin(constants)
    values = {field.name: getattr(constants, field.name) for field in fields(MemoryConstants)}
    columns = []
    for name, sigma in MEMORY_ERROR.items():
        up, down = (MemoryConstants(**{**values, name: values[name] * math.exp(sign * sigma)}) for sign in (1, -1))
        columns.append((margin(up) - margin(down)) / 2)
    return nominal, np.stack([*columns, np.full_like(nominal, MISFIT_GIB)], axis=-1)


def observed(record: TrialRecord, law: Law, constants: MemoryConstants) -> Observation | None:
    """What one trial says about the margin, or None when it was not launched or died of something else.

    Out of memory in a stage of the law: its shortfall there, which a real log states only of the allocation that failed
    first; the stage lacked at least that. Elsewhere: at most that margin. Memory simulated under load: the headroom it
    left; measured: at least that, since a driver counts as used what PyTorch keeps in its cache and would give back. A
    server that ran without such a reading: at least zero.
    """
    outcome = record.outcome
    if isinstance(outcome, OutOfMemory):
        stage = next((i for i, s in enumerate(STAGES) if s == (outcome.phase, outcome.component)), None)
        predicted, J = sensitivities(law, constants, stage)
        whole = stage is not None and record.source == "simulated"
        return Observation(J, float(predicted), -outcome.short_gib, "exact" if whole else "at_most")
    if not isinstance(outcome, (Measured, Hopeless, Unhealthy)):
        return None
    report = record.memory_measured_gib
    if report is not None and record.served:
        predicted, J = sensitivities(law, constants, SERVE)
        seen: Kind = "exact" if record.source == "simulated" else "at_least"
        return Observation(J, float(predicted), report.headroom, seen)
    predicted, J = sensitivities(law, constants)
    return Observation(J, float(predicted), 0.0, "at_least")
