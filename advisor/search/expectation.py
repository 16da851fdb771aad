"""What is expected of a whole grid under one workload, after all that launches taught. N configurations, M sought."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import Metrics, WorkloadOutcome
from advisor.domain.normal import normal_cdf, normal_pdf
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.kinship import SERVER_AXES
from advisor.search.prior import OBJECTIVE, Prior, PriorSource, grid_places, log_output, outputs, places_of
from advisor.search.surrogate import Belief, Design, Grid, Ladders, Surrogate, believing, fit, joined

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

NOTHING_YET = 1.0  # log units below the best expected: stands for the incumbent while nothing keeps the limits
MARGIN = 1.0  # standard deviations of a repeat: a winner must keep its limits when it is measured again
STOPPED_NOISE = 0.05  # rates of whole runs are foretold to a percent or two, latencies are those of a part
OCTAVES_A_TASK = 3.0  # of ISL, OSL or load between workloads that teach each other little
MEAN_BELIEF = Belief()
TAIL_BIAS = 0.5  # the twin knows means, and of a percentile only that it moves with the mean
ON_ONE_SERVER = np.zeros(SERVER_AXES)


@dataclass(frozen=True, eq=False)
class Lessons:
    """Rows of one output that earlier studies measured, as errors of the twin's logarithm under their own workload."""

    design: Design
    residuals: Array


@dataclass(frozen=True)
class Sought:
    """What is asked of every configuration, and what is believed before the first launch.

    `home` is the baseline; `lessons` gives, by output, what earlier studies taught, each time the same.
    """

    space: SearchSpace
    workloads: tuple[Workload, ...]
    objective: Objective
    slo: Slo
    prior: PriorSource
    home: ServingConfig | None = None
    belief: Belief = MEAN_BELIEF
    lessons: Callable[[], Mapping[str, Lessons]] = dict

    @functools.cached_property
    def ladders(self) -> Ladders:
        """Places of the whole grid."""
        return Ladders(grid_places(self.space))

    @functools.cached_property
    def grids(self) -> Mapping[tuple[str, str], Grid]:
        """Rows of the whole grid by workload and output."""
        slopes = self.prior.over_grid().slopes
        return {
            (workload.name, name): Grid(self.ladders, task(workload), ON_ONE_SERVER, slopes[workload.name, name])
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
    """Every row of one output: of each launch one a workload, `workload` (n,) by its number in the study."""

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
    served = [record for record in records if record.served]
    here = _Here.of(sought, [record.config for record in served])
    seen = {name: _seen(sought, name, served, here) for name in outputs(sought.slo)}
    learnt = {name: _learnt(sought, name, each) for name, each in seen.items()}
    if running:
        there = _Here.of(sought, running)
        learnt = {name: believing(each, there.design(sought, name)) for name, each in learnt.items()}
    log_limits = {limit.name: math.log(limit.limit_ms) for limit in sought.slo.limits}
    prior = sought.prior.over_grid()
    found = []
    for number, workload in enumerate(sought.workloads):
        keys = {name: (workload.name, name) for name in learnt}
        views = {name: View(prior.log_values[key], sought.grids[key], learnt[name]) for name, key in keys.items()}
        found.append(Expectation(views, log_limits, _incumbent(seen, learnt, number, log_limits)))
    return tuple(found)


def _learnt(sought: Sought, name: str, seen: Seen) -> Surrogate:
    """Earlier studies first: the own rows, which come last, choose the hyperparameters where there are many."""
    belief, lessons = belief_in(sought, name), sought.lessons().get(name)
    if lessons is None:
        return fit(seen.design, seen.residuals, belief)
    return fit(joined(lessons.design, seen.design), np.concatenate([lessons.residuals, seen.residuals]), belief)


def _seen(sought: Sought, name: str, served: Sequence[TrialRecord], here: _Here) -> Seen:
    n, n_workloads = len(served), len(sought.workloads)
    log_prior = np.array([here.prior.log_values[workload.name, name] for workload in sought.workloads]).reshape(-1)
    outcomes = [record.workload(workload.name) for workload in sought.workloads for record in served]
    log_value = np.array([_known(sought, name, outcome) for outcome in outcomes], float)
    stopped = np.array([outcome is not None and outcome.so_far is not None for outcome in outcomes], bool)
    bound = np.array([o is not None and o.so_far is not None and o.so_far.bound for o in outcomes], bool)
    residuals = log_value - log_prior
    worse = residuals < 0 if name == OBJECTIVE else residuals > 0  # else a bound says nothing that the twin does not
    known = np.flatnonzero(np.isfinite(residuals) & (worse | ~bound))
    everything = replace(here.design(sought, name), extra_sd=STOPPED_NOISE * stopped)
    workload = np.repeat(np.arange(n_workloads), n)
    return Seen(everything.rows(known), workload[known], log_prior[known], residuals[known])


def _known(sought: Sought, name: str, outcome: WorkloadOutcome | None) -> float:
    """Logarithm of an output that was measured, or of what a stopped benchmark showed of it; NaN where neither."""
    stopped = None if outcome is None or outcome.so_far is None else outcome.so_far.metrics
    return _log(name, stopped, sought.objective) if stopped else log_measured(name, outcome, sought.objective)


def log_measured(name: str, outcome: WorkloadOutcome | None, objective: Objective) -> float:
    """Natural logarithm of one output of a benchmark, NaN where it has none."""
    return _log(name, None if outcome is None else outcome.metrics, objective)


def _log(name: str, metrics: Metrics | None, objective: Objective) -> float:
    value = None if metrics is None else log_output(name, metrics, objective)
    return math.nan if value is None else value


@dataclass(frozen=True, eq=False)
class _Here:
    """Some configurations: their places (n, d), and what is believed of them."""

    places: Array
    prior: Prior

    @staticmethod
    def of(sought: Sought, configs: Sequence[ServingConfig]) -> _Here:
        return _Here(places_of(sought.space, configs), sought.prior.at(configs))

    def design(self, sought: Sought, name: str) -> Design:
        """Rows of them under every workload, one workload after the other."""
        tasks, n = [task(workload) for workload in sought.workloads], len(self.places)
        return Design(
            places=np.tile(self.places, (len(tasks), 1)),
            tasks=np.repeat(np.array(tasks), n, axis=0),
            servers=np.tile(ON_ONE_SERVER, (n * len(tasks), 1)),
            extra_sd=np.zeros(n * len(tasks)),
            slopes=np.concatenate([self.prior.slopes[workload.name, name] for workload in sought.workloads]),
        )


def _incumbent(
    seen: Mapping[str, Seen], learnt: Mapping[str, Surrogate], workload: int, log_limits: Mapping[str, float]
) -> float | None:
    """The best expected log objective among what was measured under a workload and is expected to keep the limits."""
    expected = {}
    for name, each in seen.items():
        own = np.flatnonzero((each.workload == workload) & (each.design.extra_sd == 0))
        expected[name] = each.log_prior[own] + learnt[name].mean_and_sd(each.design.rows(own))[0]
    kept = np.ones(len(expected[OBJECTIVE]), bool)
    for name, log_limit in log_limits.items():
        kept &= expected[name] <= log_limit - MARGIN * learnt[name].noise
    return float(expected[OBJECTIVE][kept].max()) if kept.any() else None


def task(workload: Workload) -> Array:
    """Where a workload stands among others, in units of what makes them strangers, shape (3,)."""
    load = workload.concurrency or workload.request_rate_per_s or 1.0
    return np.log2([workload.isl, workload.osl, load]) / OCTAVES_A_TASK


def belief_in(sought: Sought, name: str) -> Belief:
    """What is believed of the prior's error in one output."""
    told = sought.objective.metric if name == OBJECTIVE else name
    is_tail = ":" in told and not told.endswith(":mean")
    return replace(sought.belief, bias=max(sought.belief.bias, TAIL_BIAS)) if is_tail else sought.belief
