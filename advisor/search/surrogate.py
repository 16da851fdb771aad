"""What launches teach about one output of the server: a Gaussian process over the error of the twin's logarithm.

    r(x) = log measured(x) - log twin(x)
    cov(r(x), r(x')) = V(v, v') (T(t, t') (b^2 + a^2 M(u, u')) + s^2 J(x) . J(x'))

x        a configuration under a workload        n rows seen, N rows asked
u (d,)   its place on the ladders, 0 to 1 each   M product over ladders of Matern 5/2, one length each
t (m,)   the task: where its workload stands      T squared exponential of length 1; 1 within one task
v (h,)   the server: where its deployment stands   V squared exponential of length 1 / doubt; 1 on one server
J (K,)   how log twin(x) moves when constant k of the twin is off by one standard deviation
b        what is off everywhere, such as a percentile against the mean that the twin knows

The J term is a Bayesian linear regression on the twin's own constants, so that a few launches correct the twin where
its form is right; M takes what no constant explains. a, s, noise and lengths maximise marginal likelihood times
log-normal priors, coordinate by coordinate (Rasmussen and Williams, Gaussian Processes for Machine Learning, ch. 2, 5).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Kernel = Callable[[Array], Array]

LOG_STEPS = (-0.9, -0.4, 0.4, 0.9)  # tried on one hyperparameter at a time
LENGTH_STEPS = (-0.5, 0.5)
SWEEPS = 2
LEAST_RISE = 0.02  # of the log posterior, for another sweep
N_SCALES = 4  # a, s, noise and doubt stand before the lengths
DOUBT = 3
MOST_ROWS_TO_CLIMB = 32  # more of them say little more about hyperparameters
JITTER = 1e-10


@dataclass(frozen=True, eq=False)
class Design:
    """Rows as the covariance sees them: `places` (n, d), `tasks` (n, m), `servers` (n, h), `slopes` (n, K).

    `extra_sd` (n,) is the standard deviation that a row has beyond that of repeats, 0 for a launch of this study.
    """

    places: Array
    tasks: Array
    servers: Array
    slopes: Array
    extra_sd: Array

    def __len__(self) -> int:
        return len(self.places)

    @property
    def slope_squares(self) -> Array:
        """J . J of every row, shape (n,)."""
        return np.asarray((self.slopes**2).sum(axis=1))

    def rows(self, which: Index | slice) -> Design:
        """Some of the rows."""
        return Design(*(each[which] for each in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Ladders:
    """The places (N, d) of a whole grid, as a product of two halves of its ladders."""

    places: Array

    @functools.cached_property
    def halves(self) -> tuple[tuple[Array, Index], tuple[Array, Index]]:
        """Distinct places on the first and on the other ladders, each with the number of every row's own."""
        middle = (self.places.shape[1] + 1) // 2
        found = [np.unique(part, axis=0, return_inverse=True) for part in np.split(self.places, [middle], axis=1)]
        (first, at_first), (other, at_other) = found
        return (first, at_first.reshape(-1)), (other, at_other.reshape(-1))

    def sums(self, kernel: Kernel, lengths: Array, others: Array, weights: Array) -> Array:
        """sum_j w_j prod_k kernel of every row to place j, shape (N,): a product of two small matrices.

        Args:
            kernel: Of a distance on one ladder in units of its length.
            lengths: Shape (d,).
            others: Places, shape (n, d).
            weights: w, shape (n,).
        """
        (first, at_first), (other, at_other) = self.halves
        d = first.shape[1]
        left = product(kernel, lengths[:d], first, others[:, :d])
        right = product(kernel, lengths[d:], other, others[:, d:])
        return np.asarray(((left * weights) @ right.T)[at_first, at_other])


@dataclass(frozen=True, eq=False)
class Grid:
    """All N rows of one task on one server: a grid of ladders, so that sums over its kernel factorise."""

    ladders: Ladders
    task: Array
    server: Array
    slopes: Array

    def __len__(self) -> int:
        return len(self.slopes)

    @functools.cached_property
    def slope_squares(self) -> Array:
        """J . J of every row, shape (N,)."""
        return np.asarray((self.slopes**2).sum(axis=1))

    def rows(self, which: Index) -> Design:
        """Some of the rows."""
        n = len(which)
        tasks, servers = np.tile(self.task, (n, 1)), np.tile(self.server, (n, 1))
        return Design(self.ladders.places[which], tasks, servers, self.slopes[which], np.zeros(n))


@dataclass(frozen=True)
class Belief:
    """What is believed of r before the first launch: medians of a, s, noise, doubt and lengths, and the fixed b.

    The widths are standard deviations of their natural logarithms.
    """

    bias: float = 0.1
    local: float = 0.12
    constants: float = 1.0
    noise: float = 0.02
    doubt: float = 1.0
    length: float = 0.6
    widths: tuple[float, float, float, float, float] = (0.7, 0.5, 0.4, 1.0, 0.5)

    def log_medians(self, d: int) -> Array:
        """theta (4 + d,): logarithms of a, s, noise, doubt and d lengths."""
        return np.asarray(np.log([self.local, self.constants, self.noise, self.doubt, *[self.length] * d]))

    def log_widths(self, d: int) -> Array:
        """Standard deviations of theta."""
        return np.array([*self.widths[:N_SCALES], *[self.widths[N_SCALES]] * d])


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The posterior of r: `weights` (n,) = K^-1 r, `factor` (n, n) the Cholesky factor of K, `theta` as in `Belief`."""

    seen: Design
    belief: Belief
    theta: Array
    weights: Array
    factor: Array

    @property
    def noise(self) -> float:
        """Standard deviation of repeats, in units of r."""
        return math.exp(self.theta[2])

    @property
    def doubt(self) -> float:
        """How far other servers stand off, in units of what was believed."""
        return math.exp(self.theta[DOUBT])

    def mean_over(self, grid: Grid) -> Array:
        """Expected r of a whole grid, shape (N,)."""
        local, constants = np.exp(2 * self.theta[:2])
        kin = self.weights * _alike(grid.server[None, :], self.seen.servers, self.doubt)[0]
        weights = kin * _alike(grid.task[None, :], self.seen.tasks)[0]
        near = grid.ladders.sums(matern, np.exp(self.theta[N_SCALES:]), self.seen.places, weights)
        linear = grid.slopes @ (constants * self.seen.slopes.T @ kin)
        return np.asarray(self.belief.bias**2 * weights.sum() + local * near + linear)

    def mean_and_sd(self, asked: Design) -> tuple[Array, Array]:
        """Expected r and its standard deviation without noise, shape (N,) each."""
        local, constants = np.exp(2 * self.theta[:2])
        near = product(matern, np.exp(self.theta[N_SCALES:]), asked.places, self.seen.places)
        cross = _alike(asked.tasks, self.seen.tasks) * (self.belief.bias**2 + local * near)
        cross += constants * asked.slopes @ self.seen.slopes.T
        cross *= _alike(asked.servers, self.seen.servers, self.doubt)
        explained = np.linalg.solve(self.factor, cross.T)
        variance = self.prior_sd(asked) ** 2 - (explained * explained).sum(axis=0)
        return cross @ self.weights, np.sqrt(np.maximum(variance, JITTER))

    def prior_sd(self, asked: Design | Grid) -> Array:
        """Standard deviation before anything was seen, which no launch widens, shape (N,)."""
        local, constants = np.exp(2 * self.theta[:2])
        return np.asarray(np.sqrt(self.belief.bias**2 + local + constants * asked.slope_squares))


def fit(seen: Design, residuals: Array, belief: Belief) -> Surrogate:
    """The surrogate at the most probable hyperparameters.

    Args:
        seen: Rows that were measured; repeats are rows of their own, and tell the noise.
        residuals: r, shape (n,).
        belief: Before the first launch.
    """
    n, d = seen.places.shape
    theta = belief.log_medians(d)
    if n > 1:
        last = slice(max(0, n - MOST_ROWS_TO_CLIMB), n)
        climbing = seen.rows(last)
        fixed = () if (climbing.servers != climbing.servers[0]).any() else (DOUBT,)
        theta = _climb(_log_posterior(climbing, residuals[last], belief), theta, fixed)
    return _solved(seen, residuals, belief, theta)


def believing(surrogate: Surrogate, asked: Design) -> Surrogate:
    """The surrogate as if rows had come out as expected: it knows more there and expects the same everywhere."""
    theta, seen = surrogate.theta, joined(surrogate.seen, asked)
    residuals = surrogate.factor @ (surrogate.factor.T @ surrogate.weights)
    residuals = np.concatenate([residuals, surrogate.mean_and_sd(asked)[0]])
    return _solved(seen, residuals, surrogate.belief, theta)


def _solved(seen: Design, residuals: Array, belief: Belief, theta: Array) -> Surrogate:
    factor = np.linalg.cholesky(_covariance_of(seen, belief)(theta))
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, residuals))
    return Surrogate(seen, belief, theta, np.asarray(weights), np.asarray(factor))


def joined(a: Design, b: Design) -> Design:
    """The rows of both, in order."""
    return Design(*(np.concatenate(pair) for pair in zip(vars(a).values(), vars(b).values(), strict=True)))


def _log_posterior(seen: Design, residuals: Array, belief: Belief) -> Callable[[Array], float]:
    """Log marginal likelihood plus log prior of theta, up to a constant."""
    covariance = _covariance_of(seen, belief)
    medians, widths = belief.log_medians(seen.places.shape[1]), belief.log_widths(seen.places.shape[1])

    def log_posterior(theta: Array) -> float:
        factor = np.linalg.cholesky(covariance(theta))
        whitened = np.linalg.solve(factor, residuals)
        likelihood = -0.5 * whitened @ whitened - np.log(np.diag(factor)).sum()
        return float(likelihood - 0.5 * (((theta - medians) / widths) ** 2).sum())

    return log_posterior


def _covariance_of(seen: Design, belief: Belief) -> Callable[[Array], Array]:
    """K (n, n) of the rows seen, noise included, as a function of theta."""
    distances = np.abs(seen.places[:, None, :] - seen.places[None, :, :])
    tasks, linear = _alike(seen.tasks, seen.tasks), seen.slopes @ seen.slopes.T
    apart = _apart(seen.servers, seen.servers)

    def covariance(theta: Array) -> Array:
        local, constants, noise = np.exp(2 * theta[:3])
        near = matern(distances / np.exp(theta[N_SCALES:])).prod(axis=2)
        servers = np.exp(-0.5 * math.exp(2 * theta[DOUBT]) * apart)
        own = np.diag(noise + seen.extra_sd**2 + JITTER)
        return np.asarray(servers * (tasks * (belief.bias**2 + local * near) + constants * linear) + own)

    return covariance


def _climb(log_posterior: Callable[[Array], float], start: Array, fixed: Sequence[int]) -> Array:
    """The best point that steps along one coordinate at a time reach; some coordinates are left alone."""
    theta, best = start, log_posterior(start)
    for _ in range(SWEEPS):
        before = best
        for k in [k for k in range(len(theta)) if k not in fixed]:
            for step in LOG_STEPS if k < N_SCALES else LENGTH_STEPS:
                moved = theta.copy()
                moved[k] += step
                value = log_posterior(moved)
                if value > best:
                    theta, best = moved, value
        if best - before < LEAST_RISE:
            break
    return theta


def product(kernel: Kernel, lengths: Array, places: Array, others: Array) -> Array:
    """prod_k kernel of every pair of places, shape (N, n)."""
    found = np.ones((len(places), len(others)))
    for k, length in enumerate(lengths):
        steps, at = np.unique(places[:, k], return_inverse=True)  # few, however many places there are
        found *= kernel(np.abs(steps[:, None] - others[None, :, k]) / length)[at.reshape(-1)]
    return found


def matern(distances: Array) -> Array:
    """Matern 5/2 of distances in units of the length."""
    scaled = math.sqrt(5) * distances
    return np.asarray((1 + scaled + scaled * scaled / 3) * np.exp(-scaled))


def _alike(tasks: Array, others: Array, doubt: float = 1.0) -> Array:
    """T or V of every pair, shape (N, n)."""
    return np.asarray(np.exp(-0.5 * doubt**2 * _apart(tasks, others)))


def _apart(points: Array, others: Array) -> Array:
    """Squared distance of every pair, shape (N, n)."""
    own, theirs = (points**2).sum(axis=1), (others**2).sum(axis=1)
    return np.asarray(np.maximum(0.0, own[:, None] + theirs[None, :] - 2 * points @ others.T))
