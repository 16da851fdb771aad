"""What the nominal twin says about the configurations of a study; the one place where the use cases ask it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from advisor.app.setup import Resolved
from advisor.app.stand_in import StandIn, stand_in_here
from advisor.domain.deployment import KV_BLOCK_TOKENS, Deployment
from advisor.domain.errors import NothingFeasible
from advisor.domain.measurement import MemoryReport
from advisor.domain.objective import COST, Objective, Slo
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.units import round_up
from advisor.domain.workload import Workload
from advisor.engines.spoken import spoken_by
from advisor.memory.frontier import MOMENTS, N_FEATURES, Frontier, Law, margins
from advisor.memory.known import SPELLINGS
from advisor.memory.law import STAGES, MemoryBudget, memory_budget
from advisor.memory.pricing import Price, Pricing
from advisor.memory.terms import MemoryLoad, MemorySettings
from advisor.search.baselines import Baseline
from advisor.search.prior import OBJECTIVE
from advisor.search.relaxation import Relaxation, Room, help_text, memory_relaxations
from advisor.search.space import all_configs
from advisor.store import catalog
from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.graphs import LadderRule, captured_sizes
from advisor.twin.predict import TablesFor, Twin, memory_load, memory_report
from advisor.twin.ranking import Alike, Ranking, grouped, rank

KV_FRACTION = "kv_cache_free_gpu_memory_fraction"
OUTSIDE_GRAPH = frozenset({"stream_interval"})  # options that no compiled graph depends on
BROKEN_LIMIT = 20.0  # log units, beyond what any objective spans


class Forecaster:
    """Predictions for one deployment and its workloads, nominal ones unless other constants or tables are given.

    Guesses where a stand-in takes the twin's place.
    """

    def __init__(
        self,
        deployment: Deployment,
        workloads: Sequence[Workload],
        slo: Slo | None = None,
        stand_in: StandIn | None = None,
        constants: TwinConstants = NOMINAL,
        tables_for: TablesFor = catalog.step_tables,
    ) -> None:
        self.slo, self.stand_in, self.workloads = slo, stand_in, tuple(workloads)
        self.dialect = spoken_by(deployment)
        self.deployment = deployment if stand_in is None else stand_in.deployment
        self.facts = catalog.model_facts(deployment.model) if stand_in is None else stand_in.facts
        self.gpu = catalog.gpu_facts(deployment.gpu) if stand_in is None else stand_in.gpu
        self.twin = Twin(
            self.facts,
            tables_for if stand_in is None else stand_in.tables_for,
            constants,
            ladder_rule=self.dialect.graph_ladder,
            engine_memory=self.dialect.memory,
        )
        self.predict = functools.lru_cache(maxsize=4096)(self._predict)
        self.budget = functools.lru_cache(maxsize=65536)(self._budget)

    @property
    def kernels(self) -> str | None:
        """Engine and release whose kernel times the twin goes by; None where it has none."""
        return self.twin.tables_for(self.deployment).kernels if self.stand_in is None else None

    def shown(self, config: ServingConfig, workload: Workload) -> Prediction | None:
        """What may be called a prediction: nothing that a stand-in guesses."""
        return self.predict(config, workload) if self.stand_in is None else None

    def memory_of_launch(self, config: ServingConfig, earlier: Sequence[TrialRecord]) -> MemoryReport | None:
        """What may be called a prediction of a launch's memory under the first workload, after others of its run.

        They may have compiled its graph: that is safe to go by for this one launch, and for nothing that is chosen.
        """
        prediction = self.shown(config, self.workloads[0])
        if prediction is None or not self.dialect.memory.compiling_gib or not self._has_compiled(config, earlier):
            return None if prediction is None else prediction.memory_gib
        return memory_report(self.law(config, compiled=True)(self.twin.constants))

    def _has_compiled(self, config: ServingConfig, earlier: Sequence[TrialRecord]) -> bool:
        """Whether a real server of these has profiled the same graph: by tokens of a step, captured sizes, options."""
        profiled = [
            record.config
            for record in earlier
            if record.source == "measured" and record.profiled_gib and record.profiled_gib.activations is not None
        ]
        return self._graph_of(config) in map(self._graph_of, profiled)

    def _graph_of(self, config: ServingConfig) -> tuple[object, ...]:
        deployed = self.deployment.with_options(config.options)
        options = sorted((name, str(value)) for name, value in config.options.items() if name not in OUTSIDE_GRAPH)
        return config.max_num_tokens, self.twin.graph_sizes(deployed, config), tuple(options)

    def _predict(self, config: ServingConfig, workload: Workload) -> Prediction:
        return self.twin.predict(self.deployment, config, workload, slo=self.slo)

    def _budget(self, config: ServingConfig) -> MemoryBudget:
        """The memory law under the heaviest load of the study."""
        return self.law(config)(self.twin.constants)

    def law(self, config: ServingConfig, *, compiled: bool = False) -> Law:
        """The memory law of a configuration as a function of its constants, under the heaviest load of the study.

        Args:
            config: Of the launch.
            compiled: Whether its graph is in the engine's compile cache.
        """
        deployed = self.deployment.with_options(config.options)
        return self._law(deployed, replace(self.twin.memory_settings(deployed, config), compiled=compiled))

    def slopes(self, configs: Sequence[ServingConfig]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted memory margins in GiB at every moment (n, m), and how the law's constants move them (n, m, D)."""
        return self.slopes_of(grouped(self.twin, self.deployment, configs))

    def slopes_of(self, groups: Sequence[Alike]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same of configurations that are grouped already."""
        n = sum(len(group.places) for group in groups)
        margins_gib, rows = np.empty((n, len(MOMENTS))), np.empty((n, len(MOMENTS), N_FEATURES))
        for group in groups:
            law = self._law(group.deployed, group.memory)
            margins_gib[group.places], rows[group.places] = margins(law, self.twin.constants)
        return margins_gib, rows

    def prices(self, config: ServingConfig, frontier: Frontier) -> tuple[Price, ...]:
        """What the last step of each of the four settings takes and gives, after what launches taught."""
        deployed = self.deployment.with_options(config.options)
        pricing = Pricing(
            terms=self.twin.memory_terms(deployed),
            constants=self.twin.constants,
            settings={
                "fraction": config.kv_cache_free_gpu_memory_fraction,
                "tokens": config.max_num_tokens,
                "batch": config.max_batch_size,
                "graphs": config.cuda_graph_max_batch_size,
            },
            captured=functools.partial(captured, deployed, self.dialect.graph_ladder),
            tokens_per_block=KV_BLOCK_TOKENS,
            load=self._envelope(deployed),
            frontier=frontier,
        )
        return pricing.prices(lambda setting: SPELLINGS["trtllm"][setting].name)

    def _law(self, deployed: Deployment, settings: MemorySettings) -> Law:
        load = self._envelope(deployed)
        return functools.partial(memory_budget, self.twin.memory_terms(deployed), settings, load=load)

    def _envelope(self, deployed: Deployment) -> MemoryLoad | None:
        """The most requests of any workload, each reserving as little as the shortest; None where nothing bounds it."""
        loads = [memory_load(deployed, workload) for workload in self.workloads]
        known = [load for load in loads if load is not None]
        if len(known) < len(loads):
            return None
        return MemoryLoad(
            requests=max(np.max(load.requests) for load in known),
            request_tokens=min(np.min(load.request_tokens) for load in known),
        )

    def rank(self, configs: Sequence[ServingConfig], workload: Workload, *, as_if_it_fitted: bool = False) -> Ranking:
        """The whole grid at once, approximately."""
        return rank(self.twin, self.deployment, configs, workload, as_if_it_fitted=as_if_it_fitted)

    def references(
        self, baselines: Sequence[Baseline], launched: Sequence[str], objective: Objective, space: SearchSpace
    ) -> dict[str, float]:
        """Predicted objective at the baseline by workload; where it would not run, at a configuration that would.

        Without a twin 1: gains are then logarithms of what was measured.

        Raises:
            NothingFeasible: the twin finds no configuration that serves the workload.
        """
        if self.stand_in is not None:
            return {workload.name: 1.0 for workload in self.workloads}
        configs = [entry.config for name in launched for entry in baselines if entry.name == name and entry.config]
        return {workload.name: self._reference(configs, workload, objective, space) for workload in self.workloads}

    def _reference(
        self, configs: Sequence[ServingConfig], workload: Workload, objective: Objective, space: SearchSpace
    ) -> float:
        for config in configs:
            value = self._value(config, workload, objective)
            if value is not None:
                return value
        everything = all_configs(space)
        scores = log_scores(self.rank(everything, workload), objective, Slo(), workload)
        for place in best_first(scores)[:50]:
            value = self._value(everything[place], workload, objective)
            if value is not None:
                return value
        raise NothingFeasible(
            f"the twin finds no configuration of search space {space.name!r} that serves {workload.name} on "
            f"{self.deployment.gpus} x {self.deployment.gpu}: {self.nearest_miss(space)}"
        )

    def nearest_miss(self, space: SearchSpace) -> str:
        """What the configuration with most room lacks, and the smallest change of GPUs or weights that would help."""
        nearest = self.roomiest(all_configs(space))
        short_gib = max(0.0, -float(self.budget(nearest).headroom_gib))
        return f"{self.why_not(nearest)} {help_text(self.relaxations(nearest, short_gib, space))}"

    def roomiest(self, configs: Sequence[ServingConfig]) -> ServingConfig:
        """Of those that the memory law lets run the one with the largest KV pool, else the one that lacks least."""
        margins_gib = self.slopes(configs)[0].min(axis=1)
        pools = np.where(margins_gib >= 0, self.rank(configs, self.workloads[0]).kv_tokens, -1)
        return configs[int(np.argmax(pools if (pools >= 0).any() else margins_gib))]

    @property
    def needed_tokens(self) -> int:
        """KV tokens of the longest request, in whole blocks."""
        return round_up(max(workload.max_tokens_per_request for workload in self.workloads), KV_BLOCK_TOKENS)

    def relaxations(self, config: ServingConfig, short_gib: float, space: SearchSpace) -> tuple[Relaxation, ...]:
        """More GPUs, or smaller weights, with which a configuration that lacked so many GiB should fit.

        Its KV fraction may be another one there: what is left over for the other terms depends on it most. A stand-in
        knows none.
        """
        if self.stand_in is not None:
            return ()
        ladder = next((each.values for each in space.active if each.name == KV_FRACTION), ())
        alike = [config, *(changed(config, **{KV_FRACTION: value}) for value in ladder)]

        def rooms(deployment: Deployment) -> list[Room]:
            budgets = map(Forecaster(deployment, self.workloads).budget, alike)
            return [Room(float(budget.headroom_gib), int(budget.kv_tokens)) for budget in budgets]

        too_hopeful_gib = max(0.0, float(self.budget(config).headroom_gib) + short_gib) if short_gib else 0.0
        return memory_relaxations(self.deployment, self.facts, self.gpu, rooms, too_hopeful_gib, self.needed_tokens)

    def why_not(self, config: ServingConfig) -> str:
        """One sentence on what a configuration lacks."""
        budget = self.budget(config)
        stage, short = int(budget.failing_stage), -float(budget.headroom_gib)
        if stage < 0:
            return f"the KV pool holds {int(budget.kv_tokens):,} tokens."
        return f"{STAGES[stage].component} lacks {short:.1f} GiB of {float(budget.capacity_gib):.0f} GiB per GPU."

    def _value(self, config: ServingConfig, workload: Workload, objective: Objective) -> float | None:
        metrics = self.predict(config, workload).metrics
        return None if metrics is None else objective.scale(metrics)


def captured(deployed: Deployment, rule: LadderRule, largest: int, batch: int, tokens: int) -> tuple[int, ...]:
    """Batch sizes that get a CUDA graph, with the largest asked for and the two limits that cut it."""
    padding = deployed.graph_padding
    return captured_sizes(largest, padding=padding, rule=rule, max_batch_size=batch, max_num_tokens=tokens)


def log_scores(ranking: Ranking, objective: Objective, slo: Slo, workload: Workload) -> NDArray[np.float64]:
    """Logarithm of the objective per configuration, larger is better; NaN where it could not serve.

    Output per second stands for goodput, for cost (its inverse at a given price) and for energy, which idles poorly.
    A limit that the estimated mean latency breaks costs more than any objective can win, and the more the further it
    is broken: configurations that keep the limits come first, then the nearest misses.
    """
    scores = log_predicted(OBJECTIVE, ranking, objective, workload)
    for limit in slo.limits:
        excess = log_predicted(limit.name, ranking, objective, workload) - math.log(limit.limit_ms)
        scores = scores - np.where(excess > 0, BROKEN_LIMIT * (1 + excess), 0.0)
    return np.asarray(scores)


def log_predicted(
    output: str, ranking: Ranking, objective: Objective, workload: Workload, gpus: int = 1
) -> NDArray[np.float64]:
    """Natural logarithm of the objective (larger is better) or of a limit's latency, by its mean; shape (n,)."""
    e2e_ms = ranking.ttft_ms + ranking.tpot_ms * (workload.osl - 1)
    latency_ms = {"ttft": ranking.ttft_ms, "tpot": ranking.tpot_ms, "itl": ranking.itl_ms, "e2e": e2e_ms}
    if output != OBJECTIVE:
        return np.asarray(np.log(latency_ms[output.partition(":")[0]]))
    if objective.latency is not None:
        return np.asarray(-np.log(latency_ms[objective.latency]))
    if objective.metric == "output_tok_per_s_per_user":
        return np.asarray(np.log(1e3 * workload.osl / e2e_ms))
    log_tok_per_s = np.log(ranking.output_tok_per_s)
    if objective.metric in ("request_per_s", "goodput"):
        return np.asarray(log_tok_per_s - math.log(workload.osl))
    if objective.metric == COST:
        return np.asarray(log_tok_per_s - math.log(gpus * 1e6 / 3600 * (objective.gpu_price_usd_per_hour or 1.0)))
    return np.asarray(log_tok_per_s - (math.log(gpus) if objective.metric == "output_tok_per_s_per_gpu" else 0.0))


def best_first(scores: NDArray[np.float64]) -> list[int]:
    """Places of all configurations that can serve, best first."""
    order = np.argsort(-scores, kind="stable")
    return [int(place) for place in order if np.isfinite(scores[place])]


def forecaster_of(resolved: Resolved) -> Forecaster:
    """The twin of a study, or what stands in for it where the study is served on this machine."""
    substitute = stand_in_here(resolved.deployment) if resolved.here else None
    return Forecaster(resolved.deployment, resolved.workloads, resolved.slo, substitute)
