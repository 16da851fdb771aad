"""The nominal twin as a prior: its ranking of the whole grid, and how that moves when one of its constants is off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from advisor.app.forecast import Forecaster, log_predicted
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.workload import Workload
from advisor.search.prior import OBJECTIVE, Prior, joined, outputs
from advisor.search.space import all_configs
from advisor.twin.constants import ABSOLUTE_ERROR, KNOWN_ERROR, NOMINAL, TwinConstants
from advisor.twin.ranking import rank

Array = NDArray[np.float64]
Key = tuple[str, str]

LEFT_OUT = np.array([0.08, 0.08, 0.0])
LEFT_OUT_SD = np.array([0.12, 0.12, 0.1])
MANY = 1024

PROBED = 200  # configurations on which a constant shows whether it matters at all
LEAST_EFFECT = 1e-3
MOST_SLOPE = 0.3  # beyond that a step over an edge, not a slope


class TwinPrior:
    """Implements `PriorSource` for one study."""

    def __init__(self, forecaster: Forecaster, space: SearchSpace, objective: Objective, slo: Slo) -> None:
        self.forecaster, self.space, self.objective, self.slo = forecaster, space, objective, slo
        self._known: dict[ServingConfig, Prior] = {}

    def over_grid(self) -> Prior:
        """Of the whole space, rows as in `all_configs`."""
        return self._grid

    @cached_property
    def _grid(self) -> Prior:
        return self._computed(all_configs(self.space))

    def at(self, configs: Sequence[ServingConfig]) -> Prior:
        """Of some configurations, on the grid or not."""
        for config in configs:
            if config not in self._known:
                self._known[config] = self._computed([config])
        return joined([self._known[config] for config in configs], like=self._grid)

    def _computed(self, configs: Sequence[ServingConfig]) -> Prior:
        nominal = self._logs(configs, NOMINAL)
        moved = [self._logs(configs, constants) for constants in self._that_matter]
        log_values, slopes = {}, {}
        for workload in self.forecaster.workloads:
            strain = self._strain(configs, workload)
            for name in outputs(self.slo):
                key, worse = (workload.name, name), -1.0 if name == OBJECTIVE else 1.0
                with np.errstate(invalid="ignore"):
                    by_constant = np.stack([each[key] - nominal[key] for each in moved], axis=1)
                log_values[key] = nominal[key] + worse * strain @ LEFT_OUT
                by_constant = np.clip(np.nan_to_num(by_constant), -MOST_SLOPE, MOST_SLOPE)
                slopes[key] = np.concatenate([by_constant, strain * LEFT_OUT_SD], axis=1)
        margin_gib, margin_slopes = self.forecaster.slopes(configs)
        return Prior(
            log_values=log_values,
            slopes=slopes,
            margin_gib=margin_gib,
            margin_slopes=margin_slopes,
        )

    def _strain(self, configs: Sequence[ServingConfig], workload: Workload) -> Array:
        """What the twin leaves out and can only hurt, shape (n, 3): see `LEFT_OUT`."""
        deployed = [self.forecaster.deployment.with_options(config.options) for config in configs]
        ranks = np.array([each.ranks_with_own_queue for each in deployed], float)
        batch = np.array([config.max_batch_size for config in configs], float)
        graphs = np.array([config.cuda_graph_max_batch_size for config in configs], float)
        kv_tokens = self.forecaster.rank(configs, workload, as_if_it_fitted=True).kv_tokens
        wanted = np.minimum(batch, np.ceil((workload.concurrency or MANY) / ranks))
        slots = np.maximum(kv_tokens / (workload.isl + workload.osl / 2), 0.1)
        running = np.maximum(1.0, np.minimum(wanted, slots))
        uncovered = 1.0 / (1.0 + (graphs / running) ** 8)
        return np.stack([uncovered, np.clip(1.0 - slots / wanted, 0.0, 1.0), np.log2(running) / 10], axis=1)

    @cached_property
    def _that_matter(self) -> tuple[TwinConstants, ...]:
        """The nominal constants with one of them off by a standard deviation, for each that moves anything here."""
        everything = all_configs(self.space)
        probed = everything[:: max(1, len(everything) // PROBED)]
        nominal, found = self._logs(probed, NOMINAL), []
        for name, error in KNOWN_ERROR.items():
            at = getattr(NOMINAL, name)
            moved = replace(NOMINAL, **{name: at + error if name in ABSOLUTE_ERROR else at * math.exp(error)})
            logs = self._logs(probed, moved)
            if any(np.nanmax(np.abs(logs[key] - nominal[key]), initial=0.0) > LEAST_EFFECT for key in nominal):
                found.append(moved)
        return tuple(found)

    def _logs(self, configs: Sequence[ServingConfig], constants: TwinConstants) -> Mapping[Key, Array]:
        forecaster, found, gpus = self.forecaster, {}, self.forecaster.deployment.gpus
        twin = replace(forecaster.twin, constants=constants)
        for workload in forecaster.workloads:
            ranking = rank(twin, forecaster.deployment, configs, workload, as_if_it_fitted=True)
            for name in outputs(self.slo):
                found[workload.name, name] = log_predicted(name, ranking, self.objective, workload, gpus)
        return found
