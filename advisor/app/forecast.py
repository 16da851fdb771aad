"""What the nominal twin says about the configurations of a study; the one place where the use cases ask it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import Deployment
from advisor.domain.errors import NothingFeasible
from advisor.domain.objective import Objective
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.workload import Workload
from advisor.engines.trtllm.dialects import dialect
from advisor.memory.constants import MemoryConstants
from advisor.memory.frontier import Law, sensitivities
from advisor.memory.law import STAGES, MemoryBudget, memory_budget
from advisor.search.baselines import Baseline
from advisor.search.space import all_configs
from advisor.store import catalog
from advisor.twin.predict import Twin, memory_load
from advisor.twin.ranking import Ranking, rank


class Forecaster:
    """Nominal predictions for one deployment and its workloads."""

    def __init__(self, deployment: Deployment, workloads: Sequence[Workload]) -> None:
        self.deployment = deployment
        self.workloads = tuple(workloads)
        self.dialect = dialect(deployment.engine_version)
        self.facts = catalog.model_facts(deployment.model)
        self.gpu = catalog.gpu_facts(deployment.gpu)
        self.twin = Twin(self.facts, catalog.step_tables, ladder_rule=self.dialect.graph_ladder)
        self.predict = functools.lru_cache(maxsize=4096)(self._predict)
        self.slopes = functools.lru_cache(maxsize=65536)(self._slopes)
        self.budget = functools.lru_cache(maxsize=65536)(self._budget)

    def _predict(self, config: ServingConfig, workload: Workload) -> Prediction:
        return self.twin.predict(self.deployment, config, workload)

    def _budget(self, config: ServingConfig) -> MemoryBudget:
        """The memory law under the workload that fills the server most."""
        return self.law(config)(self.twin.constants)

    def _slopes(self, config: ServingConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted memory margin in GiB, and how it moves with every constant of the law."""
        return sensitivities(self.law(config), self.twin.constants)

    def law(self, config: ServingConfig) -> Law:
        """The memory law of a configuration as a function of its constants, under the heaviest workload."""
        deployed = self.deployment.with_options(config.options)
        terms, settings = self.twin.memory_terms(deployed), self.twin.memory_settings(deployed, config)
        loads = [memory_load(deployed, workload) for workload in self.workloads]

        def apply(constants: MemoryConstants) -> MemoryBudget:
            budgets = [memory_budget(terms, settings, constants, load) for load in loads]
            return min(budgets, key=lambda budget: float(budget.headroom_gib))

        return apply

    def rank(self, configs: Sequence[ServingConfig], workload: Workload) -> Ranking:
        """The whole grid at once, approximately."""
        return rank(self.twin, self.deployment, configs, workload)

    def references(
        self, baselines: Sequence[Baseline], launched: Sequence[str], objective: Objective, space: SearchSpace
    ) -> dict[str, float]:
        """Predicted objective at the baseline by workload; where it would not run, at a configuration that would.

        Raises:
            NothingFeasible: the twin finds no configuration that serves the workload.
        """
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
        scores = log_scores(self.rank(everything, workload), objective, workload)
        for place in best_first(scores)[:50]:
            value = self._value(everything[place], workload, objective)
            if value is not None:
                return value
        raise NothingFeasible(
            f"the twin finds no configuration of search space {space.name!r} that serves {workload.name} on "
            f"{self.deployment.gpus} x {self.deployment.gpu}: {self.why_not(everything[0])} "
            "More GPUs (--tp), a smaller quantization or a shorter workload would help."
        )

    def why_not(self, config: ServingConfig) -> str:
        """One sentence on what a configuration lacks."""
        budget = self.budget(config)
        stage, short = int(budget.failing_stage), -float(budget.headroom_gib)
        if stage < 0:
            return f"the KV pool holds {int(budget.kv_tokens):,} tokens."
        return f"{STAGES[stage].component} lacks {short:.1f} GiB of {float(budget.capacity_gib):.0f} GiB per GPU."

    def _value(self, config: ServingConfig, workload: Workload, objective: Objective) -> float | None:
        metrics = self.predict(config, workload).metrics
        return None if metrics is None else objective.value(metrics)


def log_scores(ranking: Ranking, objective: Objective, workload: Workload) -> NDArray[np.float64]:
    """Logarithm of the objective per configuration, larger is better; NaN where it could not serve."""
    e2e_ms = ranking.ttft_ms + ranking.tpot_ms * (workload.osl - 1)
    latency = {"ttft": ranking.ttft_ms, "tpot": ranking.tpot_ms, "itl": ranking.tpot_ms, "e2e": e2e_ms}
    if objective.direction == "minimize":
        return np.asarray(-np.log(latency[objective.metric.partition(":")[0]]))
    if objective.metric == "output_tok_per_s_per_user":
        return np.asarray(-np.log(e2e_ms))
    return np.asarray(np.log(ranking.output_tok_per_s))


def best_first(scores: NDArray[np.float64]) -> list[int]:
    """Places of all configurations that can serve, best first."""
    order = np.argsort(-scores, kind="stable")
    return [int(place) for place in order if np.isfinite(scores[place])]
