"""Twins that agree with the first launches: their constants drawn from what those left possible.

    y = f(d) + e        d ~ N(0, S^2 I)        e ~ N(0, R^2 I)

d (K,)  errors of the constants that matter, each in units of `KNOWN_ERROR`
y (n,)  logarithms of what was measured: throughput, TTFT and TPOT of each workload, and the tokens of the KV pool
f (n,)  logarithms of what the twin says with the constants of d

Twins are drawn from the posterior of f as a straight line, and weighted with what the line got wrong (importance
sampling; Owen, Monte Carlo theory, methods and examples, ch. 9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.app.forecast import log_predicted
from advisor.app.twin_prior import TwinPrior
from advisor.domain.measurement import Metrics, WorkloadOutcome
from advisor.domain.objective import latency_ms
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.opening import DrawnServers
from advisor.search.prior import OBJECTIVE, outputs
from advisor.twin.calibration import slopes
from advisor.twin.constants import TwinConstants, off_by
from advisor.twin.ranking import Alike, Ranking, grouped, rank_groups

Array = NDArray[np.float64]

N_TWINS = 256
SEED = 0
WIDTH = 2.5  # S: wide, so that no server falls outside; the launches narrow it
NOISE = 0.04  # R: of a repeat, and of what no constant explains


@dataclass(frozen=True)
class DrawnTwins:
    """Implements `Drawing` with the twin behind a prior."""

    prior: TwinPrior

    def __call__(self, records: Sequence[TrialRecord], configs: Sequence[ServingConfig]) -> DrawnServers | None:
        """Twins that agree with records, asked about some configurations.

        Returns:
            None where the records hold nothing to agree with, or the twin does not expect what they measured.
        """
        twin, deployment, names = self.prior.forecaster.twin, self.prior.forecaster.deployment, self.prior.that_matter
        measured = [record for record in records if record.measured]
        launched = [record.config for record in measured]
        own, groups = grouped(twin, deployment, launched), grouped(twin, deployment, [*configs, *launched])

        def f(constants: TwinConstants) -> Array:
            return _said(self._rankings(own, constants, as_if_it_fitted=True), len(measured))

        at, y = f(twin.constants), np.concatenate([self._measured(record) for record in measured])
        known = np.isfinite(y - at)
        if not known.any():
            return None
        d, log_weights = drawn_errors(slopes(f, twin.constants, names, at)[known], (y - at)[known])
        twins = [off_by(twin.constants, dict(zip(names, each.tolist(), strict=True))) for each in d]
        rankings = [self._rankings(groups, constants) for constants in twins]
        misses = np.array([_said(each, len(measured)) for each in rankings])[:, known] - y[known]
        log_weights -= 0.5 * ((misses / NOISE) ** 2).sum(axis=1)
        agree = np.isfinite(log_weights)
        if not agree.any():
            return None
        weights = np.where(agree, np.exp(log_weights - log_weights[agree].max()), 0.0)
        return DrawnServers(self._log_values(rankings, measured, len(configs)), weights / weights.sum())

    def _rankings(
        self, groups: Sequence[Alike], constants: TwinConstants, *, as_if_it_fitted: bool = False
    ) -> dict[str, Ranking]:
        """By name of the workload, NaN where memory runs out unless it is taken to suffice."""
        twin, workloads = replace(self.prior.forecaster.twin, constants=constants), self.prior.forecaster.workloads
        ranked = [
            rank_groups(twin, groups, each, as_if_it_fitted=as_if_it_fitted, with_p_fits=False) for each in workloads
        ]
        return {workload.name: ranking for workload, ranking in zip(workloads, ranked, strict=True)}

    def _measured(self, record: TrialRecord) -> Array:
        """y of one record, NaN where something was not measured."""
        outcomes = [record.workload(workload.name) for workload in self.prior.forecaster.workloads]
        effective = record.effective
        tokens = math.nan if effective is None or not effective.kv_tokens else math.log(effective.kv_tokens)
        return np.array([*(reading for outcome in outcomes for reading in _readings(outcome)), tokens])

    def _log_values(
        self, rankings: Sequence[Mapping[str, Ranking]], measured: Sequence[TrialRecord], n: int
    ) -> dict[tuple[str, str], Array]:
        """Of the first n configurations, a percentile as far from its mean as was measured."""
        objective, gpus = self.prior.objective, self.prior.forecaster.deployment.gpus
        found = {}
        for workload in self.prior.forecaster.workloads:
            for name in outputs(self.prior.slo):
                rows = [log_predicted(name, each[workload.name], objective, workload, gpus)[:n] for each in rankings]
                found[workload.name, name] = np.array(rows) + _tail(measured, workload.name, name)
        return found


def drawn_errors(J: Array, off: Array) -> tuple[Array, Array]:
    """Errors of constants, drawn from the posterior of a straight line.

    Args:
        J: How the readings move with each constant, shape (n, K).
        off: Readings less what the twin says, shape (n,).

    Returns:
        d, shape (N_TWINS, K), and log prior of each less log of the density that it was drawn from, up to a constant.
    """
    covariance = np.linalg.inv(np.eye(J.shape[1]) / WIDTH**2 + J.T @ J / NOISE**2)
    z = np.random.default_rng(SEED).standard_normal((N_TWINS, J.shape[1]))
    d = covariance @ J.T @ off / NOISE**2 + z @ np.linalg.cholesky(covariance).T
    return d, 0.5 * (z**2 - (d / WIDTH) ** 2).sum(axis=1)


def _said(rankings: Mapping[str, Ranking], n: int) -> Array:
    """f of the last n configurations, one after the other."""
    rows = [
        each for ranking in rankings.values() for each in (ranking.output_tok_per_s, ranking.ttft_ms, ranking.tpot_ms)
    ]
    tokens = np.maximum(1, next(iter(rankings.values())).kv_tokens)
    return np.asarray(np.log(np.stack([*rows, tokens])[:, -n:].T.reshape(-1)))


def _readings(outcome: WorkloadOutcome | None) -> tuple[float, float, float]:
    """Logarithms of throughput, mean TTFT and mean TPOT; NaN where a load was searched, which is another load."""
    if outcome is None or outcome.metrics is None or outcome.concurrency is not None:
        return math.nan, math.nan, math.nan
    metrics = outcome.metrics
    return math.log(metrics.output_tok_per_s), _log_ms(metrics, "ttft", "mean"), _log_ms(metrics, "tpot", "mean")


def _log_ms(metrics: Metrics, latency: str, statistic: str) -> float:
    value = latency_ms(metrics, latency, statistic)
    return math.log(value) if value else math.nan


def _tail(records: Sequence[TrialRecord], workload: str, name: str) -> float:
    """Log of a measured percentile over its mean, mean over records; 0 where there is none."""
    latency, _, statistic = name.partition(":")
    if name == OBJECTIVE or statistic == "mean":
        return 0.0
    outcomes = [record.workload(workload) for record in records]
    metrics = [outcome.metrics for outcome in outcomes if outcome is not None and outcome.metrics is not None]
    tails = [_log_ms(each, latency, statistic) - _log_ms(each, latency, "mean") for each in metrics]
    known = [tail for tail in tails if math.isfinite(tail)]
    return sum(known) / len(known) if known else 0.0
