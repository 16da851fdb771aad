"""How sure one can be that one configuration is faster than another, from repeats after fresh starts.

Symbols: log values y of repeats; s pooled standard deviation with nu degrees of freedom over configurations.
Student's t is needed for few repeats; its quantile is found here because SciPy is too heavy a dependency.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advisor.domain.strict import StrictModel


class Interval(StrictModel):
    """A central estimate and its two-sided confidence interval."""

    estimate: float
    low: float
    high: float
    level: float


def student_t_cdf(t: float, dof: float) -> float:
    """P(T <= t) of Student's t with `dof` degrees of freedom, by Simpson's rule on its density (error < 1e-9)."""
    # Substituting t = sqrt(nu) tan(theta) makes the density cos^(nu-1) on a bounded interval.
    theta = math.atan(abs(t) / math.sqrt(dof))
    x = np.linspace(0.0, theta, 2001)
    y = np.cos(x) ** (dof - 1)
    area = float((theta / 2000) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()))
    half = math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) / math.sqrt(math.pi) * area
    return 0.5 + math.copysign(half, t)


@functools.lru_cache(maxsize=1024)
def student_t_quantile(p: float, dof: float) -> float:
    """The t with P(T <= t) = p, by bisection.

    Raises:
        ValueError: p outside (0, 1) or dof not positive.
    """
    if not 0 < p < 1 or dof <= 0:
        raise ValueError(f"no Student quantile for p={p}, dof={dof}")
    if p < 0.5:
        return -student_t_quantile(1 - p, dof)
    low, high = 0.0, 1.0
    while student_t_cdf(high, dof) < p and high < 1e9:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, dof) < p else (low, middle)
    return (low + high) / 2


class NoisePrior(StrictModel):
    """What is believed of the deviation of log values before any repeat: `sd`, worth `dof` degrees of freedom.

    It is the conjugate one, an inverse gamma of the variance: Student's t stays exact, with more degrees of freedom.
    """

    sd: float = Field(ge=0)
    dof: int = Field(ge=0)


BETWEEN_LAUNCHES = NoisePrior(sd=0.015, dof=2)
"""Repeats after fresh starts: servers repeat within 1 to 2 %. Two that agree by luck, or do not, decide little."""


def pooled_noise(groups: Iterable[Sequence[float]], prior: NoisePrior = BETWEEN_LAUNCHES) -> tuple[float, int]:
    """s and nu of log values, from how far each is from the mean of its own group, and the prior.

    With neither repeats nor a prior both are 0.
    """
    arrays = [np.asarray(group, np.float64) for group in groups if len(group)]
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in arrays)
    dof = prior.dof + sum(each.size - 1 for each in arrays)
    return (math.sqrt((prior.dof * prior.sd**2 + squares) / dof), dof) if dof else (0.0, 0)


class LogRatio(StrictModel):
    """The logarithm of a ratio of two geometric means, its standard error and the degrees of freedom behind that."""

    estimate: float
    error: float = Field(ge=0)
    dof: int = Field(ge=1)

    def interval(self, level: float) -> Interval:
        """Of the ratio itself, two-sided, by Student's t."""
        return _around(self.estimate, student_t_quantile(0.5 + level / 2, self.dof) * self.error, level)


def log_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    others: Sequence[Sequence[float]] = (),
    prior: NoisePrior = BETWEEN_LAUNCHES,
) -> LogRatio | None:
    """The ratio of two positive means from repeats of both, on logarithms with a pooled deviation.

    Args:
        numerators: Repeats of one configuration.
        denominators: Repeats of the other.
        others: Repeats of further configurations; they share in the deviation.
        prior: Of the deviation.

    Returns:
        None where one side has no value, or nothing at all tells the deviation.
    """
    a, b, *more = [np.log(np.asarray(group, float)) for group in (numerators, denominators, *others)]
    sd, dof = pooled_noise([a, b, *more], prior)
    if a.size == 0 or b.size == 0 or dof < 1:
        return None
    return LogRatio(estimate=float(a.mean() - b.mean()), error=sd * math.sqrt(1 / a.size + 1 / b.size), dof=dof)


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    others: Sequence[Sequence[float]] = (),
    prior: NoisePrior = BETWEEN_LAUNCHES,
    level: float = 0.95,
) -> Interval | None:
    """Interval of the ratio of two positive means; see `log_ratio`, which may have none either."""
    found = log_ratio(numerators, denominators, others, prior)
    return None if found is None else found.interval(level)


def mean_interval(
    values: Sequence[float],
    others: Sequence[Sequence[float]] = (),
    prior: NoisePrior = BETWEEN_LAUNCHES,
    level: float = 0.95,
) -> Interval | None:
    """Interval of the geometric mean of positive repeats.

    Args:
        values: Repeats of the configuration in question.
        others: Repeats of other configurations under the same conditions; they share in the pooled deviation.
        prior: Of the deviation.
        level: Of the interval.

    Returns:
        None without a value, or where nothing at all tells the deviation.
    """
    logs, *more = [np.log(np.asarray(group, float)) for group in (values, *others)]
    sd, dof = pooled_noise([logs, *more], prior)
    if not logs.size or dof < 1:
        return None
    return _around(float(logs.mean()), student_t_quantile(0.5 + level / 2, dof) * sd / math.sqrt(logs.size), level)


def _around(centre: float, half: float, level: float) -> Interval:
    """From log units."""
    return Interval(estimate=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half), level=level)


MIN_BATCHES = 5
MAX_BATCHES = 20
OPEN_LOOP_BATCHES, OPEN_LOOP_BATCH = 10, 4  # how many, and least requests of one
BATCH_NOISE = 0.02  # of one batch against the next as a fraction, until enough of them tell
BATCH_NOISE_DOF = 4  # what that weighs beside the batches themselves


def batch_size(concurrency: int | None, n_requests: int) -> int:
    """Requests of one batch: a tenth of an open loop; of a closed one its concurrency.

    Requests that started together end together and are one observation.
    """
    return concurrency or max(OPEN_LOOP_BATCH, n_requests // OPEN_LOOP_BATCHES)


def batch_sums(
    sent_ms: NDArray[np.float64], done_ms: NDArray[np.float64], n_output: NDArray[np.int64], per_batch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Output tokens and seconds of the batches of a whole run, shape (n_batches,); see `batch_means_interval`."""
    n_batches = max(1, min(done_ms.size // max(1, per_batch), MAX_BATCHES))
    batches = np.array_split(np.argsort(done_ms, kind="stable"), n_batches)
    tokens = np.array([n_output[batch].sum() for batch in batches], np.float64)
    return tokens, np.diff([done_ms[batch[-1]] for batch in batches], prepend=sent_ms.min()) / 1e3


def batch_means_interval(
    sent_ms: NDArray[np.float64],
    done_ms: NDArray[np.float64],
    n_output: NDArray[np.int64],
    per_batch: int,
    level: float = 0.95,
) -> Interval | None:
    """Interval of the output tok/s of one run, from batches of requests in the order in which they end.

    Batches follow each other without gaps; how far each is from their common ratio of tokens to seconds is the noise of
    one batch. The first and the last, ramp-up and tail, differ by design and are left out of the noise, not of the
    throughput. It speaks of this launch alone: how launches differ, only repeats tell.

    Args:
        sent_ms: Send times, shape (n_requests,), ms.
        done_ms: End times.
        n_output: Output tokens.
        per_batch: Least requests of a batch; see `batch_size`.
        level: Of the interval.

    Returns:
        None when fewer than five batches can be made.
    """
    tokens, seconds = batch_sums(sent_ms, done_ms, n_output, per_batch)
    n_batches = tokens.size
    if n_batches < MIN_BATCHES:
        return None
    rate = float(tokens.sum() / seconds.sum())
    steady, noise = _mean_and_noise(tokens[1:-1], seconds[1:-1])
    half = rate * noise / steady * student_t_quantile(0.5 + level / 2, n_batches - 3) / math.sqrt(n_batches)
    return Interval(estimate=rate, low=max(0.0, rate - half), high=rate + half, level=level)


def steady_interval(
    values: Sequence[float], weights: Sequence[float], noise: float = BATCH_NOISE, level: float = 0.95
) -> Interval | None:
    """Interval of what a run shows from batch to batch once its ramp-up is over.

    With few batches their noise is a posterior mean, for which what is expected counts as four more of them.

    Args:
        values: Of the batches so far, in order; the first holds the ramp-up and is left out.
        weights: Seconds of each where the metric is a rate, requests where it is a latency.
        noise: Expected of one batch, as a fraction.
        level: Of the interval.

    Returns:
        None before the second batch.
    """
    v, w = np.asarray(values[1:], np.float64), np.asarray(weights[1:], np.float64)
    if v.size < 1:
        return None
    mean, seen = _mean_and_noise(v * w, w)
    dof = BATCH_NOISE_DOF + v.size - 1
    posterior = math.sqrt((BATCH_NOISE_DOF * (noise * mean) ** 2 + (v.size - 1) * seen**2) / dof)
    half = posterior * student_t_quantile(0.5 + level / 2, dof) / math.sqrt(v.size)
    return Interval(estimate=mean, low=max(0.0, mean - half), high=mean + half, level=level)


def _mean_and_noise(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of batches, sum over weight, and the deviation of one about it (delta method), 0 for a single one."""
    mean = float(sums.sum() / weights.sum())
    return mean, float(np.std(sums - mean * weights, ddof=1) / weights.mean()) if sums.size > 1 else 0.0
