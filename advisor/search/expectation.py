"""What is expected of a whole grid under one workload, after all that launches taught. N configurations, M sought."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.normal import normal_cdf, normal_pdf
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.prior import OBJECTIVE, PriorSource, grid_places, log_output, outputs, places_of
from advisor.search.surrogate import Belief, Design, Grid, Ladders, Surrogate, believing, fit

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

NOTHING_YET = 1.0  # log units below the best expected: stands for the incumbent while nothing keeps the limits
MARGIN = 1.0  # standard deviations of a repeat: a winner must keep its limits when it is measured again
OCTAVES_A_TASK = 3.0  # of ISL, OSL or load between workloads that teach each other little
MEAN_BELIEF = Belief()  # the twin knows means ...
TAIL_BELIEF = Belief(bias=0.5)  # ... and of a percentile only that it moves with the mean


@dataclass(frozen=True)
class Sought:
    """What is asked of every configuration, and what is believed before the first launch. `home` is the baseline."""

    space: SearchSpace
    workloads: tuple[Workload, ...]
    objective: Objective
    slo: Slo
    prior: PriorSource
    home: ServingConfig | None = None

    @functools.cached_property
    def ladders(self) -> Ladders:
        """Places of the whole grid."""
        return Ladders(grid_places(self.space))

    @functools.cached_property
    def grids(self) -> Mapping[tuple[str, str], Grid]:
        """Rows of the whole grid by workload and output."""
        slopes = self.prior.over_grid().slopes
        return {
            (workload.name, name): Grid(self.ladders, _task(workload), slopes[workload.name, name])
            for workload in self.workloads
            for name in outputs(self.slo)
        }


@dataclass(frozen=True, eq=False)
class View:
    """One output under one workload: natural logarithms; of the objective, larger is better."""

    log_prior: Array
    grid: Grid
    surrogate: Surrogate

    @functools.cached_property
    def mean(self) -> Array:
        """Expected, shape (N,)."""
        return self.log_prior + self.surrogate.mean_over(self.grid)

    @functools.cached_property
    def prior_sd(self) -> Array:
        """Standard deviation before the first launch, which no launch widens, shape (N,)."""
        return self.surrogate.prior_sd(self.grid)

    def sd(self, rows: Rows) -> Array:
        """Standard deviation after all launches, shape (M,)."""
        return self.surrogate.mean_and_sd(self.grid.rows(rows))[1]


@dataclass(frozen=True, eq=False)
class Expectation:
    """One workload.

    Attributes:
        views: By output.
        log_limits: Logarithms of the limits, by output.
        incumbent: Expected log objective of the best that was measured and keeps the limits; None when nothing does.
    """

    views: Mapping[str, View]
    log_limits: Mapping[str, float]
    incumbent: float | None

    def hoped_gain(self) -> Array:
        """Optimistic log gain over the incumbent times P(limits), from the widest deviations, shape (N,)."""
        return self._gain(slice(None), {name: view.prior_sd for name, view in self.views.items()})

    def expected_gain(self, rows: Rows) -> Array:
        """Expected log gain over the incumbent times P(limits), shape (M,)."""
        return self._gain(rows, {name: view.sd(rows) for name, view in self.views.items()})

    def _gain(self, rows: Rows | slice, sd: Mapping[str, Array]) -> Array:
        mean = self.views[OBJECTIVE].mean
        best = float(np.nanmax(mean)) - NOTHING_YET if self.incumbent is None else self.incumbent
        z = (mean[rows] - best) / sd[OBJECTIVE]
        gain = np.maximum(0.0, sd[OBJECTIVE] * (z * normal_cdf(z) + normal_pdf(z)))
        for name, log_limit in self.log_limits.items():
            view = self.views[name]
            noise = view.surrogate.noise
            gain = gain * normal_cdf((log_limit - MARGIN * noise - view.mean[rows]) / np.hypot(sd[name], noise))
        return np.asarray(np.nan_to_num(gain))


@dataclass(frozen=True, eq=False)
class Seen:
    """Every measured row of one output: of each launch one a workload, `workload` (n,) by its number in the study."""

    design: Design
    workload: Rows
    log_prior: Array
    residuals: Array


def expectations(
    sought: Sought, records: Sequence[TrialRecord], running: Sequence[ServingConfig] = ()
) -> tuple[Expectation, ...]:
    """What is expected of each workload. One surrogate an output learns from all workloads together.

    Args:
        sought: What is asked.
        records: All trials so far.
        running: Launches not ended yet; they are taken to end as expected, so that nobody else goes there.
    """
    seen = {name: _seen(sought, name, records) for name in outputs(sought.slo)}
    learnt = {name: fit(each.design, each.residuals, belief_of(name, sought.objective)) for name, each in seen.items()}
    if running:
        learnt = {name: believing(each, _design(sought, name, running)) for name, each in learnt.items()}
    log_limits = {limit.name: math.log(limit.limit_ms) for limit in sought.slo.limits}
    prior = sought.prior.over_grid()
    found = []
    for number, workload in enumerate(sought.workloads):
        keys = {name: (workload.name, name) for name in learnt}
        views = {name: View(prior.log_values[key], sought.grids[key], learnt[name]) for name, key in keys.items()}
        found.append(Expectation(views, log_limits, _incumbent(seen, learnt, number, log_limits)))
    return tuple(found)


def _seen(sought: Sought, name: str, records: Sequence[TrialRecord]) -> Seen:
    measured = [record for record in records if record.measured]
    everything = _design(sought, name, [record.config for record in measured])
    prior = sought.prior.at([record.config for record in measured])
    n, n_workloads = len(measured), len(sought.workloads)
    log_prior = np.array([prior.log_values[workload.name, name] for workload in sought.workloads]).reshape(-1)
    log_value = np.array(
        [[_measured(sought, name, record, workload) for record in measured] for workload in sought.workloads], float
    ).reshape(-1)
    known = np.flatnonzero(np.isfinite(log_value - log_prior))
    workload = np.repeat(np.arange(n_workloads), n)
    return Seen(everything.rows(known), workload[known], log_prior[known], (log_value - log_prior)[known])


def _measured(sought: Sought, name: str, record: TrialRecord, workload: Workload) -> float:
    outcome = record.workload(workload.name)
    value = None if outcome is None or outcome.metrics is None else log_output(name, outcome.metrics, sought.objective)
    return math.nan if value is None else value


def _design(sought: Sought, name: str, configs: Sequence[ServingConfig]) -> Design:
    """Rows of some configurations under every workload, one workload after the other."""
    places, prior = places_of(sought.space, configs), sought.prior.at(configs)
    tasks = [_task(workload) for workload in sought.workloads]
    return Design(
        places=np.tile(places, (len(tasks), 1)),
        tasks=np.repeat(np.array(tasks), len(configs), axis=0),
        slopes=np.concatenate([prior.slopes[workload.name, name] for workload in sought.workloads]),
    )


def _incumbent(
    seen: Mapping[str, Seen], learnt: Mapping[str, Surrogate], workload: int, log_limits: Mapping[str, float]
) -> float | None:
    """The best expected log objective among what was measured under a workload and is expected to keep the limits."""
    expected = {}
    for name, each in seen.items():
        own = np.flatnonzero(each.workload == workload)
        expected[name] = each.log_prior[own] + learnt[name].mean_and_sd(each.design.rows(own))[0]
    kept = np.ones(len(expected[OBJECTIVE]), bool)
    for name, log_limit in log_limits.items():
        kept &= expected[name] <= log_limit - MARGIN * learnt[name].noise
    return float(expected[OBJECTIVE][kept].max()) if kept.any() else None


def _task(workload: Workload) -> Array:
    """Where a workload stands among others, in units of what makes them strangers, shape (3,)."""
    load = workload.concurrency or workload.request_rate_per_s or 1.0
    return np.log2([workload.isl, workload.osl, load]) / OCTAVES_A_TASK


def belief_of(name: str, objective: Objective) -> Belief:
    """What is believed of the twin's error in one output."""
    told = objective.metric if name == OBJECTIVE else name
    return TAIL_BELIEF if ":" in told and not told.endswith(":mean") else MEAN_BELIEF
