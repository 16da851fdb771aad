"""Drawn truths: servers that nobody knows, over search spaces that everybody knows.

A truth is a twin whose constants, and in some classes whose form, differ from what a contender knows. The steady state
of `advisor.twin.ranking` IS the server here, not an approximation of it: so the whole grid is one vectorised call, and
the best of the grid is exact. Seed i of a class is always the same truth; the draws below are frozen.

Symbols: W workloads, n configurations, S stages of the memory law.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import Deployment
from advisor.domain.measurement import EffectiveSettings, LatencySummary, MemoryReport, Metrics, WorkloadOutcome
from advisor.domain.objective import LATENCIES, STATISTICS, Slo, SloLimit
from advisor.domain.outcome import Measured, Outcome, OutOfMemory
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Dimension, SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.memory.law import STAGES, MemoryBudget, memory_budget
from advisor.memory.terms import MemoryLoad, MemorySettings
from advisor.search.space import all_configs, completed, restrict
from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.predict import PREDICTION_WAVES, SERVE, Twin, memory_load, memory_report, unservable
from advisor.twin.ranking import rank
from benchmarks.search.problems import Problem, draw_problem

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)

LABEL = "simulated by a drawn truth of the search benchmark"
SPEED_NOISE, MEMORY_NOISE_GIB = 0.02, 0.1
CONSTANTS_OFF = 0.30
TILT_OFF = 0.075
"""The tilt is nominally 0: as much as makes decode times 30 % wrong over a 32-fold range of batches."""
VLLM_ALONE = ("http_", "cached_", "compiling_", "prompt_", "vllm_")
"""How the names of constants begin that only a vLLM has."""
FIELD, FIELD_WAVES, FIELD_SHARPNESS = 0.20, 20, 1.0
"""Standard deviation of the log, random features, and their wave numbers: a length scale of one whole ladder."""
SPEEDS = ("output_tok_per_s", "ttft_ms", "tpot_ms")
LEAST_SPREAD = 1.05
NEAR = 0.95
LIMIT_DRAWS = 20
TPOT_QUANTILES = (0.2, 0.9)
KV_FRACTION = "kv_cache_free_gpu_memory_fraction"
EDGE_FRACTIONS = (
    0.5,
    0.6,
    0.7,
    0.75,
    0.8,
    0.85,
    0.88,
    0.9,
    0.92,
    0.94,
    0.95,
    0.96,
    0.97,
    0.98,
    0.985,
    0.99,
    0.992,
    0.994,
    0.996,
    0.998,
)
EDGE_STEPS = 10
MOST_NEAR_BEST = 0.10
_TRUTH_STREAM, _NOISE_STREAM = 0x7472757468, 0x6E6F697365


class Truth(Protocol):
    """One unknown server. `docs/search-benchmark.md` shows how to write one's own."""

    @property
    def problem(self) -> Problem:
        """What contenders are told."""
        ...

    def launch(self, config: ServingConfig, number: int) -> TrialRecord:
        """The noisy record that launch `number` of a run leaves; the same arguments give the same record."""
        ...

    def value(self, config: ServingConfig, workload: Workload) -> float | None:
        """The objective without noise; None where the launch would not serve every workload."""
        ...

    def excess(self, config: ServingConfig, workload: Workload) -> float:
        """Worst measured / limit - 1 without noise, -1 without limits; above zero breaks the SLO."""
        ...

    def best(self, workload: Workload) -> float:
        """The best value of the grid that keeps the SLO."""
        ...


@dataclass(frozen=True)
class Effects:
    """What a server does that no constant of the twin describes; zero is none.

    Attributes:
        thrash: Share of throughput lost to preemption where the KV pool holds nobody of those who could run.
        eager: Further slow-down of steps whose batch no graph covers.
        host_ms: Further host time of a step with 64 running requests; grows as their number ** 1.5.
        fragmentation: Share of the KV pool that is never used; it enters the twin's own constant for that.
        activation_growth: Activations that profiling missed, as a share of the peak at 32,768 tokens; less below.
    """

    thrash: float = 0.0
    eager: float = 0.0
    host_ms: float = 0.0
    fragmentation: float = 0.0
    activation_growth: float = 0.0


@dataclass(frozen=True, eq=False)
class RandomField:
    """A smooth Gaussian field over d ladders, by random Fourier features: waves (F, d), phases (F,)."""

    waves: Array
    phases: Array
    sigma: float

    def factor(self, unit: Array) -> Array:
        """exp(field) at points (n, d)."""
        cosines = np.cos(unit @ self.waves.T + self.phases)
        return np.asarray(np.exp(self.sigma * np.sqrt(2.0 / len(self.phases)) * cosines.sum(axis=1)))


@dataclass(frozen=True, eq=False)
class Surface:
    """What launches of n configurations would show: mean metrics (W, n), NaN where one would not serve all workloads.

    `fits` is False where memory runs out at any stage, (n,).
    """

    output_tok_per_s: Array
    ttft_ms: Array
    tpot_ms: Array
    fits: NDArray[np.bool_]

    @property
    def runs(self) -> NDArray[np.bool_]:
        """True where every workload is served, (n,)."""
        return np.asarray(np.isfinite(self.output_tok_per_s).all(axis=0))


@dataclass(frozen=True, eq=False)
class DrawnTruth:
    """A server with its own constants, effects and latency spreads.

    Attributes:
        problem: What contenders are told.
        twin: The server itself, under its own constants.
        effects: What it does beyond the twin's form.
        fields: One random field per metric of `SPEEDS` and workload; empty without.
        spreads: Statistic over mean, by latency and statistic.
        seed: Of the noise.
    """

    problem: Problem
    twin: Twin
    effects: Effects
    fields: tuple[tuple[RandomField, ...], ...]
    spreads: dict[str, dict[str, float]]
    seed: tuple[int, ...]

    def surface(self, configs: Sequence[ServingConfig]) -> Surface:
        """What launches of any configurations would show, on the grid or not."""
        n, workloads = len(configs), self.problem.workloads
        speeds, fits = np.full((len(SPEEDS), len(workloads), n), np.nan), np.zeros(n, dtype=bool)
        for places in _groups(configs):
            group = [configs[place] for place in places]
            deployed = self.problem.deployment.with_options(group[0].options)
            settings = _stacked([self.twin.memory_settings(deployed, config) for config in group])
            budget = self.budget(deployed, settings)
            fits[places] = budget.fits
            for w, workload in enumerate(workloads):
                ranking = rank(self.twin, self.problem.deployment, group, workload, as_if_it_fitted=True)
                plain = np.stack([ranking.output_tok_per_s, ranking.ttft_ms, ranking.tpot_ms])
                speeds[:, w, places] = plain * self._slowed(deployed, settings, budget, workload, plain[2])
        if self.fields:
            unit = unit_coordinates(self.problem.space, self.problem.deployment, configs)
            speeds *= np.stack([[field.factor(unit) for field in metric] for metric in self.fields])
        dead = ~fits | ~np.isfinite(speeds).all(axis=(0, 1))
        speeds[:, :, dead] = np.nan
        return Surface(speeds[0], speeds[1], speeds[2], fits)

    def share_that_fits(self, configs: Sequence[ServingConfig], kv_fractions: Sequence[float]) -> Array:
        """Share of the configurations whose memory suffices with each KV fraction in place of their own."""
        n_fit = np.zeros(len(kv_fractions))
        for places in _groups(configs):
            deployed = self.problem.deployment.with_options(configs[places[0]].options)
            settings = _stacked([self.twin.memory_settings(deployed, configs[place]) for place in places])
            for i, fraction in enumerate(kv_fractions):
                n_fit[i] += self.budget(deployed, dataclasses.replace(settings, kv_fraction=fraction)).fits.sum()
        return n_fit / len(configs)

    def budget(self, deployed: Deployment, settings: MemorySettings) -> MemoryBudget:
        """The memory law of this server under the heaviest load of the study."""
        terms = self.twin.memory_terms(deployed)
        budget = memory_budget(terms, settings, self.twin.constants, heaviest(deployed, self.problem.workloads))
        octaves = np.log2(np.maximum(1.0, np.asarray(settings.max_num_tokens, np.float64) / 1024))
        unseen = self.effects.activation_growth * budget.activations_gib * octaves / 5.0
        tried = budget.tried_gib.copy()
        tried[SERVE] += unseen
        return dataclasses.replace(budget, tried_gib=tried, fragmentation_gib=budget.fragmentation_gib + unseen)

    def _slowed(
        self, deployed: Deployment, settings: MemorySettings, budget: MemoryBudget, workload: Workload, tpot_ms: Array
    ) -> Array:
        """Factors on `SPEEDS` by the effects, (3, n)."""
        load = memory_load(deployed, workload)
        assert load is not None
        slots = np.maximum(budget.kv_tokens / np.asarray(load.request_tokens, np.float64), 0.05)
        wanted = np.minimum(np.asarray(settings.max_batch_size, np.float64), np.asarray(load.requests, np.float64))
        running = np.maximum(1.0, np.minimum(slots, wanted))
        uncovered = 1.0 / (1.0 + (np.asarray(settings.largest_graph) / running) ** 8)
        host = 1.0 + self.effects.host_ms * (running / 64.0) ** 1.5 / tpot_ms
        slower = (1.0 + self.effects.eager * uncovered) * host
        kept = 1.0 - self.effects.thrash * np.clip(1.0 - slots / wanted, 0.0, 1.0)
        return np.stack([kept / slower, slower / kept, slower / kept])

    @functools.cached_property
    def grid(self) -> Surface:
        """The surface over the whole grid, in the order of `all_configs`."""
        return self.surface(all_configs(self.problem.space))

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {config.key: row for row, config in enumerate(all_configs(self.problem.space))}

    @functools.cached_property
    def _beside(self) -> dict[str, Surface]:
        return {}

    def _at(self, config: ServingConfig, workload: Workload) -> dict[str, float] | None:
        """Mean metrics of one configuration by name of `SPEEDS`, None where it does not run."""
        surface, row = self.grid, self._rows.get(config.key)
        if row is None:
            if config.key not in self._beside:
                self._beside[config.key] = self.surface([config])
            surface, row = self._beside[config.key], 0
        w = self.problem.workloads.index(workload)
        if not surface.runs[row]:
            return None
        return {name: float(getattr(surface, name)[w, row]) for name in SPEEDS}

    def value(self, config: ServingConfig, workload: Workload) -> float | None:
        """The objective without noise; None where the launch would not serve every workload."""
        speeds = self._at(config, workload)
        return None if speeds is None else self.problem.objective.value(self._metrics(speeds, workload))

    def excess(self, config: ServingConfig, workload: Workload) -> float:
        """Worst measured / limit - 1 without noise, -1 without limits; infinite where nothing runs."""
        speeds = self._at(config, workload)
        if speeds is None:
            return math.inf
        metrics = self._metrics(speeds, workload)
        return max((limit.excess(metrics) for limit in self.problem.slo.limits), default=-1.0)

    def best(self, workload: Workload) -> float:
        """The best value of the grid that keeps the SLO."""
        return self._best[workload.name]

    @functools.cached_property
    def _best(self) -> dict[str, float]:
        values, kept = self.grid_values(), self.grid_kept()
        sense = np.nanmin if self.problem.objective.direction == "minimize" else np.nanmax
        return {
            workload.name: float(sense(np.where(kept[w], values[w], np.nan)))
            for w, workload in enumerate(self.problem.workloads)
        }

    def grid_values(self) -> Array:
        """The objective over the grid, (W, n); NaN where nothing runs."""
        metric, grid = self.problem.objective.metric, self.grid
        if ":" in metric:
            return np.stack([self.latency_ms(w, *metric.split(":")) for w in range(len(self.problem.workloads))])
        osl = np.array([[_mean_osl(workload)] for workload in self.problem.workloads])
        per_token: dict[str, Array | float] = {
            "output_tok_per_s": 1.0,
            "output_tok_per_s_per_gpu": 1.0 / self.problem.deployment.gpus,
            "request_per_s": 1.0 / osl,
        }
        if metric in per_token:
            return np.asarray(grid.output_tok_per_s * per_token[metric])
        return np.asarray(1e3 * osl / (grid.ttft_ms + grid.tpot_ms * (osl - 1)))

    def grid_kept(self) -> NDArray[np.bool_]:
        """True where the SLO is kept without noise, (W, n)."""
        kept = np.tile(self.grid.runs, (len(self.problem.workloads), 1))
        for limit in self.problem.slo.limits:
            for w in range(len(self.problem.workloads)):
                kept[w] &= ~(self.latency_ms(w, limit.latency, limit.statistic) > limit.limit_ms)
        return kept

    def latency_ms(self, w: int, latency: str, statistic: str) -> Array:
        """One statistic of one latency of workload `w` over the grid, (n,)."""
        grid, workload = self.grid, self.problem.workloads[w]
        means = _means(grid.ttft_ms[w], grid.tpot_ms[w], _mean_osl(workload), self.problem.deployment.stream_interval)
        return np.asarray(means[latency] * self.spreads[latency][statistic])

    def _metrics(self, speeds: dict[str, float], workload: Workload) -> Metrics:
        osl, deployment = _mean_osl(workload), self.problem.deployment
        means = _means(speeds["ttft_ms"], speeds["tpot_ms"], osl, deployment.stream_interval)
        spread = {
            name: LatencySummary(**{stat: mean * self.spreads[name][stat] for stat in STATISTICS})
            for name, mean in means.items()
        }
        throughput, n_requests = speeds["output_tok_per_s"], workload.requests(PREDICTION_WAVES)
        return Metrics(
            output_tok_per_s=throughput,
            output_tok_per_s_per_gpu=throughput / deployment.gpus,
            output_tok_per_s_per_user=1e3 * osl / means["e2e"],
            request_per_s=throughput / osl,
            ttft_ms=spread["ttft"],
            tpot_ms=spread["tpot"],
            itl_ms=spread["itl"],
            e2e_ms=spread["e2e"],
            n_requests=n_requests,
            duration_s=n_requests * osl / throughput,
        )

    def launch(self, config: ServingConfig, number: int) -> TrialRecord:
        """The record that launch `number` of a run leaves, with noise of this truth, configuration and number."""
        rng = np.random.default_rng([_NOISE_STREAM, *self.seed, int(config.fingerprint, 16), number])
        gib_off = float(rng.normal(0.0, MEMORY_NOISE_GIB))
        pace = np.exp(SPEED_NOISE * rng.standard_normal((len(self.problem.workloads), len(SPEEDS))))
        deployed = self.problem.deployment.with_options(config.options)
        budget = self.budget(deployed, self.twin.memory_settings(deployed, config))
        outcome = self._outcome(budget, deployed, config, gib_off)
        up = not isinstance(outcome, OutOfMemory)
        outcomes = []
        for workload, factors in zip(self.problem.workloads, pace, strict=True):
            speeds = self._at(config, workload) if isinstance(outcome, Measured) else None
            if speeds is not None:
                noisy = {name: speeds[name] * float(factor) for name, factor in zip(SPEEDS, factors, strict=True)}
                metrics = self._metrics(noisy, workload)
                outcomes.append(WorkloadOutcome(workload=workload.name, metrics=metrics, seed=number))
        return TrialRecord(
            number=number,
            role="baseline" if number == 0 else "search",
            origin="benchmark",
            config=config,
            source="simulated",
            engine_label=LABEL,
            seed=number,
            outcome=outcome,
            workloads=tuple(outcomes),
            effective=self._effective(budget, deployed, config) if up else None,
            memory_predicted_gib=self._predicted(config),
            memory_measured_gib=_off_by(memory_report(budget), gib_off) if up else None,
        )

    def _outcome(self, budget: MemoryBudget, deployed: Deployment, config: ServingConfig, gib_off: float) -> Outcome:
        """As the simulated engine ends a launch: the start, then whether it can serve, then its load."""
        stage = int(budget.failing_stage)
        if stage in (-1, SERVE):
            refusal = next(
                filter(None, (unservable(budget, deployed, config, w) for w in self.problem.workloads)), None
            )
            if refusal is not None or stage == -1:
                return refusal or Measured()
        tried, free = float(budget.tried_gib[stage]), max(0.0, float(budget.free_gib[stage]) - gib_off)
        short = max(0.01, float(budget.tried_gib[stage] - budget.free_gib[stage]) + gib_off)
        where = STAGES[stage]
        return OutOfMemory(
            phase=where.phase, component=where.component, tried_gib=tried, free_gib=free, short_gib=short
        )

    def _effective(self, budget: MemoryBudget, deployed: Deployment, config: ServingConfig) -> EffectiveSettings:
        kv_tokens = int(budget.kv_tokens)
        return EffectiveSettings(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            max_seq_len=min(deployed.seq_len(self.problem.workloads), kv_tokens),
            kv_tokens=kv_tokens,
            cuda_graph_sizes=self.twin.graph_sizes(deployed, config),
        )

    def _predicted(self, config: ServingConfig) -> MemoryReport | None:
        forecaster = self.problem.forecaster
        return None if forecaster is None else memory_report(forecaster.budget(config))


def heaviest(deployed: Deployment, workloads: Iterable[Workload]) -> MemoryLoad:
    """Most requests of any workload, each reserving as little as the shortest request."""
    loads = [load for load in (memory_load(deployed, workload) for workload in workloads) if load is not None]
    return MemoryLoad(
        requests=max(np.max(load.requests) for load in loads),
        request_tokens=min(np.min(load.request_tokens) for load in loads),
    )


def unit_coordinates(space: SearchSpace, deployment: Deployment, configs: Sequence[ServingConfig]) -> Array:
    """Place on every ladder of the space, 0 at its first step and 1 at its last, shape (n, d).

    Values between two steps lie between them; options that a configuration leaves open are as the deployment has them.
    """
    flats = [completed(space, config, deployment).flat() for config in configs]
    return np.stack(
        [_unit(dimension, [flat.get(dimension.name) for flat in flats]) for dimension in space.active], axis=1
    )


def _unit(dimension: Dimension, values: Sequence[object]) -> Array:
    steps = dimension.values
    ends = max(1, len(steps) - 1)
    if all(isinstance(step, (int, float)) for step in steps):
        ladder = np.array(steps, np.float64)
        return np.asarray(np.interp(np.array(values, np.float64), ladder, np.arange(len(steps)) / ends))
    return np.array([steps.index(value) / ends if value in steps else 0.0 for value in values])


def _groups(configs: Sequence[ServingConfig]) -> list[list[int]]:
    """Places of configurations with equal options."""
    groups: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        groups.setdefault(repr(sorted(config.options.items())), []).append(place)
    return list(groups.values())


def _stacked(each: Sequence[MemorySettings]) -> MemorySettings:
    """Settings of n configurations as one of arrays (n,)."""
    names = ("max_batch_size", "max_num_tokens", "kv_fraction", "n_graphs", "largest_graph")
    batch, tokens, fraction, n_graphs, largest = (
        np.array([getattr(settings, name) for settings in each]) for name in names
    )
    return MemorySettings(batch, tokens, fraction, n_graphs, largest, tokens_per_block=each[0].tokens_per_block)


def _means(ttft_ms: Number, tpot_ms: Number, osl: float, stream_interval: int) -> dict[str, Number]:
    return {
        "ttft": ttft_ms,
        "tpot": tpot_ms,
        "itl": tpot_ms * stream_interval,
        "e2e": ttft_ms + tpot_ms * (osl - 1),
    }


def _mean_osl(workload: Workload) -> float:
    return ((workload.osl_min or workload.osl) + workload.osl) / 2


def _off_by(report: MemoryReport, gib_off: float) -> MemoryReport:
    """A reading of memory that is wrong by so many GiB."""
    return changed(report, other=report.other + gib_off)


# --- The draws: frozen ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TruthClass:
    """What the truths of a class have in common.

    Attributes:
        name: As on the command line.
        promise: For people.
        wrong_form: With `Effects` and random fields.
        has_twin: Contenders get a forecaster.
        n_workloads: Of one study.
        limits_share: How many of the servers drawn get an SLO.
        limited_share: Share of the box that an SLO is drawn to leave.
        feasible: Least and most share of the box that runs and keeps the SLO, per workload.
        out_of_memory: Least and most share of the box that runs out of memory.
    """

    name: str
    promise: str
    wrong_form: bool = False
    has_twin: bool = True
    n_workloads: int = 1
    limits_share: float = 0.5
    limited_share: tuple[float, float] = (0.1, 0.6)
    feasible: tuple[float, float] = (0.01, 1.0)
    out_of_memory: tuple[float, float] = (0.0, 0.6)


CLASSES: dict[str, TruthClass] = {
    each.name: each
    for each in (
        TruthClass("right-form", "the twin with every constant off by up to 30 %"),
        TruthClass("wrong-form", "right-form, effects that the twin lacks, a smooth field of 20 %", wrong_form=True),
        TruthClass("no-twin", "wrong-form, and the contender gets no twin", wrong_form=True, has_twin=False),
        TruthClass(
            "tight",
            "right-form, SLO kept by under 8 % of the box, 25-45 % out of memory",
            limits_share=1.0,
            limited_share=(0.01, 0.07),
            feasible=(0.002, 0.08),
            out_of_memory=(0.25, 0.45),
        ),
        TruthClass("multi", "right-form, three workloads in one study", n_workloads=3),
    )
}


@functools.lru_cache(maxsize=4)
def draw_truth(class_name: str, seed: int) -> DrawnTruth:
    """Truth `seed` of a class: servers in order, and for each some limits, until one is `accepted`."""
    for attempt in itertools.count():
        truth = attempted(class_name, seed, attempt)
        if truth is not None:
            return truth
    raise AssertionError("draws do not end")


def attempted(class_name: str, seed: int, attempt: int) -> DrawnTruth | None:
    """One server of a class under the first limits with which it is accepted, None where it never is."""
    kind, place = CLASSES[class_name], list(CLASSES).index(class_name)
    rng = np.random.default_rng([_TRUTH_STREAM, place, seed, attempt])
    server = _draw_server(rng, kind, (place, seed))
    if server is None or not server.grid.runs.any():
        return None
    limited = rng.random() < kind.limits_share
    for _ in range(LIMIT_DRAWS if limited else 1):
        truth = _with_limits(server, _draw_slo(rng, server, kind)) if limited else server
        if accepted(truth, kind):
            return truth
    return None


def accepted(truth: DrawnTruth, kind: TruthClass) -> bool:
    """True where the box is as the class promises, and one workload at least is worth searching for.

    For every workload something runs and keeps the SLO. For one, the best of that is at least 5 % above the median of
    what runs; at most a tenth of the box comes within 5 % of it; and the baseline does not.
    """
    if not kind.out_of_memory[0] <= float(np.mean(~truth.grid.fits)) <= kind.out_of_memory[1]:
        return False
    values, kept, runs = truth.grid_values(), truth.grid_kept(), truth.grid.runs
    if not all(kind.feasible[0] <= float(keeps.mean()) <= kind.feasible[1] for keeps in kept):
        return False
    return any(
        _worth_searching(value, keeps, runs) and _baseline_misses(truth, workload)
        for value, keeps, workload in zip(values, kept, truth.problem.workloads, strict=True)
    )


def _worth_searching(value: Array, keeps: NDArray[np.bool_], runs: NDArray[np.bool_]) -> bool:
    best = float(value[keeps].max())
    near = float((keeps & (value > NEAR * best)).mean())
    return best >= LEAST_SPREAD * float(np.median(value[runs])) and near <= MOST_NEAR_BEST


def _baseline_misses(truth: DrawnTruth, workload: Workload) -> bool:
    baseline = truth.problem.baseline
    value = truth.value(baseline, workload)
    return value is None or truth.excess(baseline, workload) > 0 or value < NEAR * truth.best(workload)


def _draw_server(rng: np.random.Generator, kind: TruthClass, seed: tuple[int, ...]) -> DrawnTruth | None:
    """A server without limits; None where no ladder of its KV fraction runs out of memory as often as promised."""
    problem = draw_problem(rng, kind.n_workloads)
    assert problem.forecaster is not None
    constants = draw_constants(rng)
    effects = _draw_effects(rng) if kind.wrong_form else Effects()
    used = (1.0 - constants.kv_block_reserve) * (1.0 - effects.fragmentation)
    twin = dataclasses.replace(
        problem.forecaster.twin, constants=dataclasses.replace(constants, kv_block_reserve=1.0 - used)
    )
    fields = _draw_fields(rng, problem) if kind.wrong_form else ()
    if not kind.has_twin:  # the size of a checkpoint is no guess
        weights_gib = problem.weights_gib * constants.weights_factor
        problem = dataclasses.replace(problem, forecaster=None, weights_gib=weights_gib)
    truth = DrawnTruth(problem, twin, effects, fields, _draw_spreads(rng), seed)
    return truth if kind.out_of_memory[0] == 0.0 else _with_edge(rng, truth, kind.out_of_memory)


def _with_edge(rng: np.random.Generator, truth: DrawnTruth, share: tuple[float, float]) -> DrawnTruth | None:
    """The truth with ten neighbouring `EDGE_FRACTIONS` as its ladder, so that a drawn share of the box does not fit."""
    problem = truth.problem
    others = all_configs(restrict(problem.space, fixed={KV_FRACTION: 0.5}))
    fits = truth.share_that_fits(others, EDGE_FRACTIONS)
    shares = 1.0 - np.convolve(fits, np.full(EDGE_STEPS, 1.0 / EDGE_STEPS), mode="valid")
    first = int(np.argmin(np.abs(shares - rng.uniform(*share))))
    if not share[0] <= shares[first] <= share[1]:
        return None
    ladder = EDGE_FRACTIONS[first : first + EDGE_STEPS]
    dimensions = tuple(
        changed(each, values=ladder) if each.name == KV_FRACTION else each for each in problem.space.dimensions
    )
    space = changed(problem.space, name=f"{problem.space.name}-edge", dimensions=dimensions)
    return dataclasses.replace(truth, problem=dataclasses.replace(problem, space=space))


def _with_limits(truth: DrawnTruth, slo: Slo) -> DrawnTruth:
    """The same server under an SLO, which changes nothing of what it does."""
    limited = dataclasses.replace(truth, problem=dataclasses.replace(truth.problem, slo=slo))
    limited.__dict__["grid"] = truth.grid
    return limited


def draw_constants(rng: np.random.Generator) -> TwinConstants:
    """Every constant off by up to 30 %, uniform in its logarithm; the tilt, nominally 0, by as much in effect.

    Those of vLLM alone (its HTTP process, what PyTorch keeps cached) came after the truths were frozen, and no truth is
    a vLLM: a draw would shift the rest.
    """
    drawn = {}
    for field in dataclasses.fields(TwinConstants):
        if field.name.startswith(VLLM_ALONE):
            continue
        off = float(rng.uniform(-1.0, 1.0))
        nominal = getattr(NOMINAL, field.name)
        drawn[field.name] = off * TILT_OFF if field.name == "decode_tilt" else nominal * (1 + CONSTANTS_OFF) ** off
    return TwinConstants(**drawn)


def _draw_effects(rng: np.random.Generator) -> Effects:
    return Effects(
        thrash=float(rng.uniform(0.1, 0.4)),
        eager=float(rng.uniform(0.1, 0.6)),
        host_ms=float(rng.uniform(0.0, 0.3)),
        fragmentation=float(rng.uniform(0.0, 0.2)),
        activation_growth=float(rng.uniform(0.0, 0.4)),
    )


def _draw_fields(rng: np.random.Generator, problem: Problem) -> tuple[tuple[RandomField, ...], ...]:
    d = len(problem.space.active)

    def field() -> RandomField:
        waves = rng.normal(0.0, FIELD_SHARPNESS, (FIELD_WAVES, d))
        return RandomField(waves, rng.uniform(0.0, 2 * math.pi, FIELD_WAVES), FIELD)

    return tuple(tuple(field() for _ in problem.workloads) for _ in SPEEDS)


def _draw_spreads(rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Statistic over mean: first tokens spread widely, gaps between tokens hardly."""
    width = {"ttft": 1.0, "tpot": 0.15, "itl": 0.6, "e2e": 0.2}
    spreads = {}
    for name in LATENCIES:
        steps = width[name] * rng.uniform([0.0, 0.2, 0.05, 0.1], [0.3, 0.8, 0.4, 0.8])
        p50, p90 = 1.0 - steps[0], 1.0 + steps[1]
        p95 = p90 * (1.0 + steps[2])
        spreads[name] = dict(zip(STATISTICS, map(float, (1.0, p50, p90, p95, p95 * (1.0 + steps[3]))), strict=True))
    return spreads


def _draw_slo(rng: np.random.Generator, truth: DrawnTruth, kind: TruthClass) -> Slo:
    """A TPOT limit at a drawn quantile of what runs, and the TTFT limit that leaves a drawn share of the box.

    Each is that of the workload it is loosest for; three digits, as people write them.
    """
    runs, workloads = truth.grid.runs, range(len(truth.problem.workloads))
    tpot_ms = [truth.latency_ms(w, "tpot", "mean") for w in workloads]
    ttft_ms = [truth.latency_ms(w, "ttft", "p95") for w in workloads]
    quantile, share = float(rng.uniform(*TPOT_QUANTILES)), float(rng.uniform(*kind.limited_share))
    tpot_limit = max(float(np.quantile(each[runs], quantile)) for each in tpot_ms)
    left = [runs & (each <= tpot_limit) for each in tpot_ms]
    ttft_limit = max(
        float(np.quantile(each[kept], min(1.0, share / float(kept.mean()))))
        for each, kept in zip(ttft_ms, left, strict=True)
    )
    return Slo(
        limits=(
            SloLimit(latency="ttft", statistic="p95", limit_ms=float(f"{ttft_limit:.3g}")),
            SloLimit(latency="tpot", statistic="mean", limit_ms=float(f"{tpot_limit:.3g}")),
        )
    )
