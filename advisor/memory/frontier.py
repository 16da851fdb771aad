"""The memory frontier: what launches teach about the memory law, and with it the probability that a launch fits.

The law is taken as linear in the errors of its own constants: what it says of x is q(x) + J(x) d, in GiB, for a margin
as for a component. Column k of J is how far q moves when constant k is off by one standard deviation, so that a priori
d_k is of the order of one: a Bayesian linear regression whose prior widths are `MEMORY_ERROR`, then `CACHED_ERROR`. One
further column is a misfit that no constant explains, of margins only. What is only cached stands in no margin, and its
readings move nothing else, so P(fits) does not depend on it. Shapes, with D columns: d (D,), J (..., D). A margin is
free minus tried; below zero memory runs out. It has one at each of `MOMENTS`, since a constant that surprises may
change which of them is the tightest, and what fits must fit at all of them.

Two things that a plain regression lacks. Each d_k has a Student t prior: a constant that is twelve deviations off, such
as weights that are larger than their type says, is believed from its readings, widens its own prior and nobody else's.
And no term of the law may become negative: what costs memory never gives any back, so that more of a setting never
fits better.
Source of the t as a scale mixture fitted by EM: Lange, Little and Taylor, J. Am. Stat. Assoc. 84 (1989) 881.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.domain.normal import normal_cdf, normal_pdf
from advisor.domain.outcome import Hopeless, Measured, OutOfMemory, Started, Unhealthy
from advisor.domain.trial import TrialRecord
from advisor.domain.units import gib
from advisor.memory.constants import CACHED_ERROR, MEMORY_ERROR, MemoryConstants
from advisor.memory.law import STAGES, MemoryBudget
from advisor.memory.profiled import beside_torch
from advisor.memory.stages import FINAL_EXTRA, POOL, UNDER_LOAD

Array = NDArray[np.float64]
Law = Callable[[MemoryConstants], MemoryBudget]
"""The memory law of one configuration, or of a grid, as a function of its constants alone."""

Quantity = Callable[[MemoryBudget], Array]
"""Something of a budget in GiB, such as a margin or a component."""

MISFIT_GIB = 0.3  # assumed: what a launch needs beside every term of the law, one standard deviation
READING_GIB = 0.1  # assumed: a reading of used memory repeats to about this
LOGGED_GIB = 0.05  # assumed: a component as a log states it, and how linear the law is in truth
CACHED_GIB = 0.2  # measured: two starts of one vLLM server differ by this in what they keep cached
FITTED_ERROR = {**MEMORY_ERROR, **CACHED_ERROR}
"""The constants that are fitted, in the order of the columns; the misfit comes after them."""
N_FEATURES = len(FITTED_ERROR) + 1
TAIL_DOF = 4.0  # of the t prior: a surprise of a few deviations widens, the usual ones do not
WIDENINGS = 50  # rounds of EM at most; a dozen are usual
SETTLED = 1e-3
LEAST_SHARE = 0.1  # of its nominal value that a term of the law keeps

Constants = TypeVar("Constants", bound=MemoryConstants)

Kind = Literal["exact", "at_most", "at_least"]
_SIDE: dict[Kind, int] = {"exact": 0, "at_most": 1, "at_least": -1}


@dataclass(frozen=True, eq=False)
class Observation:
    """A quantity of one launch: predicted by the law, and observed exactly or as a bound. `features` is a row of J.

    `noise_gib` is the standard deviation of the reading.
    """

    features: Array
    predicted_gib: float
    observed_gib: float
    kind: Kind
    noise_gib: float = READING_GIB


@dataclass(frozen=True, eq=False)
class Frontier:
    """Posterior of d: `mean` (D,), `covariance` (D, D), from `n_launches` launches."""

    mean: Array
    covariance: Array
    n_launches: int = 0

    def expected(self, features: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
        """A quantity and its standard deviation, for J (..., D) and what the law alone says of it (...)."""
        J = np.asarray(features, np.float64)
        flat = J.reshape(-1, J.shape[-1])  # one large product is faster than many small ones
        variance = np.einsum("nd,nd->n", flat @ self.covariance, flat).reshape(J.shape[:-1])
        return np.asarray(predicted, np.float64) + J @ self.mean, np.sqrt(np.maximum(variance, 0.0))

    def margin_gib(self, features: ArrayLike, predicted_gib: ArrayLike) -> tuple[Array, Array]:
        """Expected margin and its standard deviation, GiB, as a launch would show it."""
        mean, sd = self.expected(features, predicted_gib)
        return mean, np.hypot(sd, READING_GIB)

    def p_fits(self, features: ArrayLike, predicted_gib: ArrayLike) -> Array:
        """Probability that no margin is negative, (n,): that of the least, since margins rise and fall together.

        Args:
            features: J of every margin, (n, D) of one margin each or (n, m, D).
            predicted_gib: The margins, (n,) or (n, m).
        """
        mean, sd = self.margin_gib(features, predicted_gib)
        return np.asarray(normal_cdf(mean / sd).reshape(len(mean), -1).min(axis=1))

    def expected_shortfall_gib(self, features: ArrayLike, predicted_gib: ArrayLike) -> Array:
        """GiB missing on average where most are, counting launches that fit as missing none; arguments as above."""
        mean, sd = self.margin_gib(features, predicted_gib)
        z = mean / sd
        short = np.maximum(0.0, sd * normal_pdf(z) - mean * normal_cdf(-z))
        return np.asarray(short.reshape(len(mean), -1).max(axis=1))

    def knowing(self, constants: Collection[str]) -> Frontier:
        """Where some constants are known to be as the law has them."""
        kept = np.array([name not in constants for name in (*FITTED_ERROR, "misfit")], np.float64)
        return Frontier(self.mean * kept, self.covariance * np.outer(kept, kept), self.n_launches)

    def constants(self, nominal: Constants) -> Constants:
        """The law's constants as fitted, each at its mean; the misfit is none of them."""
        fitted = zip(FITTED_ERROR.items(), self.mean, strict=False)
        return replace(
            nominal, **{name: getattr(nominal, name) * (1.0 + d * math.sinh(sigma)) for (name, sigma), d in fitted}
        )


PRIOR = Frontier(np.zeros(N_FEATURES), np.eye(N_FEATURES))

TERMS = (
    *((name,) for name in FITTED_ERROR),
    ("fragmentation_per_activation", "activations_factor"),
    ("recapture_share", "graph_base_gib"),
    ("recapture_share", "graph_per_size_gib"),
    ("recapture_share", "graph_per_row_gib"),
)
"""Constants, and those that the law multiplies by each other."""


def _keeps(term: Sequence[str]) -> Observation:
    """That a term of the law, linear in the errors of its constants, stays above `LEAST_SHARE` of its nominal value."""
    row = np.array([math.sinh(sigma) if name in term else 0.0 for name, sigma in FITTED_ERROR.items()] + [0.0])
    length = float(np.linalg.norm(row))
    return Observation(row / length, 0.0, -(1.0 - LEAST_SHARE) / length, "at_least")


_KEPT = tuple(map(_keeps, TERMS))


def fit(observations: Sequence[Observation], prior: Frontier = PRIOR, n_launches: int = 0) -> Frontier:
    """The frontier after these observations of so many launches; in the prior constants are independent, of mean zero.

    A bound that the fit keeps by itself teaches nothing; one that it breaks enters as a reading at the bound. Prior
    variances v grow from the stated ones, s, to the fixed point of EM, v = (dof s + E[d^2]) / (dof + 1); they never
    shrink, since few launches prove nothing about the spread of a constant.
    """
    if not observations:
        return prior
    rows = [*observations, *_KEPT]
    J = np.stack([row.features / row.noise_gib for row in rows])
    residual = np.array([(row.observed_gib - row.predicted_gib) / row.noise_gib for row in rows])
    side = np.array([_SIDE[row.kind] for row in rows])
    variance = stated = np.diag(prior.covariance)
    for _ in range(WIDENINGS):
        mean, covariance = _bounded(J, residual, side, variance)
        square = mean**2 + np.diag(covariance)
        wider = np.maximum(stated, (TAIL_DOF * stated + square) / (TAIL_DOF + 1.0))
        if np.abs(wider - variance).max() < SETTLED * variance.max():
            break
        variance = wider
    return Frontier(mean, covariance, n_launches)


def _bounded(J: Array, residual: Array, side: NDArray[np.int64], variance: Array) -> tuple[Array, Array]:
    """Mean and covariance of d, with the bounds that they break as readings; `side` is +1 of an upper bound."""
    active = side == 0
    while True:
        mean, covariance = _posterior(J[active], residual[active], variance)
        broken = ~active & (side * (J @ mean - residual) > 0)
        if not broken.any():
            return mean, covariance
        active |= broken


def _posterior(J: Array, residual: Array, variance: Array) -> tuple[Array, Array]:
    """Conjugate update of N(0, diag(variance)), for J and residuals in units of their reading noise."""
    covariance = np.linalg.inv(np.diag(1.0 / variance) + J.T @ J)
    return covariance @ (J.T @ residual), covariance


def margin_at(*stages: int) -> Quantity:
    """Least margin of some of `STAGES`."""
    return lambda budget: np.asarray(budget.margin_gib[list(stages)].min(axis=0))


AT_START = (margin_at(*range(FINAL_EXTRA)), margin_at(FINAL_EXTRA))
MOMENTS = (*AT_START, margin_at(UNDER_LOAD))
"""Until the KV pool is made, while graphs are captured into what it left, and under load."""


@dataclass(frozen=True, eq=False)
class Shifted:
    """Budgets of a configuration or a grid: nominal, and with each constant one standard deviation up and down."""

    nominal: MemoryBudget
    moved: tuple[tuple[MemoryBudget, MemoryBudget], ...]

    def slopes(self, quantity: Quantity) -> tuple[Array, Array]:
        """What the law says of a quantity (...), and J (..., D) of it; nothing of the cache and no misfit."""
        at = quantity(self.nominal)
        columns = [(quantity(up) - quantity(down)) / 2 for up, down in self.moved]
        return at, np.stack([*columns, *[np.zeros_like(at)] * (N_FEATURES - len(columns))], axis=-1)

    def margin(self, quantity: Quantity) -> tuple[Array, Array]:
        """The same of a margin, in which the misfit counts in full."""
        at, J = self.slopes(quantity)
        J[..., -1] = MISFIT_GIB
        return at, J


def shifted(law: Law, constants: MemoryConstants) -> Shifted:
    """The law around its nominal constants."""

    def moved(name: str, log_shift: float) -> MemoryBudget:
        return law(replace(constants, **{name: getattr(constants, name) * math.exp(log_shift)}))

    pairs = tuple((moved(name, sigma), moved(name, -sigma)) for name, sigma in MEMORY_ERROR.items())
    return Shifted(law(constants), pairs)


def margins(law: Law, constants: MemoryConstants, moments: Sequence[Quantity] = MOMENTS) -> tuple[Array, Array]:
    """Margins (..., m) of what `law` describes at some moments of any of its starts, and J (..., m, D)."""
    around = shifted(lambda each: law(each).of_any_start, constants)
    found = [around.margin(moment) for moment in moments]
    return np.stack([margin for margin, _ in found], axis=-1), np.stack([J for _, J in found], axis=-2)


def observations(record: TrialRecord, law: Law, constants: MemoryConstants) -> list[Observation]:
    """What one trial says: every component that its log profiled, and its margin; nothing where it was not launched."""
    if not record.launched:
        return []
    around = shifted(law, constants)
    found = []
    for quantity, seen_gib in _profiled(record):
        predicted, J = around.slopes(quantity)
        found.append(Observation(J, float(predicted), seen_gib, "exact", LOGGED_GIB))
    for margin, seen_gib, kind in _margins(record, around.nominal.pool_is_given):
        predicted, J = around.margin(margin)
        found.append(Observation(J, float(predicted), seen_gib, kind))
    return [*found, *_cached(record, around.nominal)]


def _cached(record: TrialRecord, budget: MemoryBudget) -> list[Observation]:
    """What a launch kept cached under load, a reading of its own constants alone; nothing where all that is free was.

    A driver counts it with all that is not named: it is what that is above the law's fragmentation, where vLLM's log
    counts the runtime among the activations, and what compiling took and gave back.
    """
    report, cacheable = record.memory_measured_gib, budget.cacheable_gib
    if not record.served or report is None or not cacheable.any() or budget.cached_gib < cacheable.sum():
        return []
    unnamed_gib = report.other + float(budget.compiling_gib - budget.attention_gib - budget.fragmentation_gib)
    seen_gib = unnamed_gib if report.cached is None else report.cached
    row = np.zeros(N_FEATURES)
    row[len(MEMORY_ERROR) : -1] = cacheable * np.sinh(list(CACHED_ERROR.values()))
    return [Observation(row, float(cacheable.sum()), seen_gib, "exact", CACHED_GIB)]


def _profiled(record: TrialRecord) -> list[tuple[Quantity, float]]:
    """Readings of the phases that passed: weights after loading, activations and what stays beside PyTorch (runtime,
    communicators, graphs) after profiling, and the KV cache by its tokens, as if the GPU had the law's capacity.
    """
    said, share = record.profiled_gib, record.config.kv_cache_free_gpu_memory_fraction
    if said is None:
        return []
    token_gib, total_gib = gib(said.kv_bytes_per_token or 0.0), said.total
    parts: list[tuple[Quantity, float | None]] = [
        (lambda budget: budget.weights_gib, said.weights),
        (lambda budget: budget.profiled_gib, said.activations),
        (lambda budget: budget.runtime_gib + budget.comm_gib + budget.graphs_gib, beside_torch(said)),
    ]
    if said.kv_tokens is not None and token_gib and total_gib is not None:

        def kv_gib(budget: MemoryBudget) -> Array:
            return np.asarray(token_gib * budget.kv_tokens + share * (total_gib - budget.capacity_gib))

        parts.append((kv_gib, token_gib * said.kv_tokens))
    return [(quantity, size) for quantity, size in parts if size is not None]


def _margins(record: TrialRecord, pool_is_given: bool) -> list[tuple[Quantity, float, Kind]]:
    """What one launch says about margins, nothing when it died of something else.

    Out of memory in a stage of the law: its shortfall there, which a real log states only of the allocation that failed
    first; the stage lacked at least that. Elsewhere: at most that margin. What came up lacked nothing before; what
    served lacked nothing under load either. Memory simulated under load: the headroom it left; measured: at least that,
    since a driver counts as used what PyTorch keeps in its cache and would give back. A KV pool of a given size that
    the engine refuses without allocating it holds too few tokens, whatever is free: that says nothing of a margin.
    """
    outcome, report = record.outcome, record.memory_measured_gib
    if isinstance(outcome, OutOfMemory):
        stage = next((i for i, s in enumerate(STAGES) if s == (outcome.phase, outcome.component)), None)
        if stage is None:
            return [(margin_at(*range(len(STAGES))), -outcome.short_gib, "at_most")]
        if stage == POOL and pool_is_given and outcome.tried_gib is None:
            return []
        whole: Kind = "exact" if record.source == "simulated" else "at_most"
        return [(margin_at(stage), -outcome.short_gib, whole)]
    if not isinstance(outcome, (Measured, Hopeless, Started, Unhealthy)):
        return []
    started: list[tuple[Quantity, float, Kind]] = [(moment, 0.0, "at_least") for moment in AT_START]
    if not record.served:
        return started
    if report is None:
        return [*started, (margin_at(UNDER_LOAD), 0.0, "at_least")]
    seen: Kind = "exact" if record.source == "simulated" else "at_least"
    return [*started, (margin_at(UNDER_LOAD), report.headroom, seen)]
