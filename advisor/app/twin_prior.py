"""The twin as a prior: its ranking of the whole grid, and how that moves when one of its constants is off."""

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
from advisor.search.expectation import MEAN_BELIEF
from advisor.search.prior import OBJECTIVE, Prior, joined, outputs, rows_of
from advisor.search.space import all_configs, rows_by_config
from advisor.search.surrogate import Belief
from advisor.twin.calibration import slopes
from advisor.twin.constants import KNOWN_ERROR, TwinConstants
from advisor.twin.ranking import Alike, Ranking, grouped, rank_groups

Array = NDArray[np.float64]

# Assumed: what the twin leaves out and can only hurt, as log units where a configuration is fully exposed to it: eager
# steps that no graph covers, preemption where KV capacity holds few of those who could run, host time of large batches.
LEFT_OUT = np.array([0.08, 0.08, 0.0])
LEFT_OUT_SD = np.array([0.12, 0.12, 0.1])
MANY = 1024  # requests in flight that an open loop is taken to have at most

GUESS = Belief(bias=1.0, local=0.25, constants=2.0)
"""Of a stand-in for a twin: its level says nothing, and its form little."""

PROBED = 200  # configurations on which a constant shows whether it matters at all
LEAST_EFFECT = 1e-3


def belief_of(forecaster: Forecaster) -> Belief:
    """How far a forecaster may be wrong."""
    return MEAN_BELIEF if forecaster.stand_in is None else GUESS


class TwinPrior:
    """Implements `PriorSource` for one study."""

    def __init__(
        self,
        forecaster: Forecaster,
        space: SearchSpace,
        objective: Objective,
        slo: Slo,
        constants: tuple[str, ...] | None = None,
    ) -> None:
        self.forecaster, self.space, self.objective, self.slo = forecaster, space, objective, slo
        self._constants = constants
        self._known: dict[ServingConfig, Prior] = {}

    def over_grid(self) -> Prior:
        """Of the whole space, rows as in `all_configs`."""
        return self._grid

    @cached_property
    def _grid(self) -> Prior:
        return self.computed(all_configs(self.space))

    def elsewhere(self, forecaster: Forecaster) -> TwinPrior:
        """The beliefs about another deployment or other workloads, with slopes along the same constants."""
        return TwinPrior(forecaster, self.space, self.objective, self.slo, self.that_matter)

    def at(self, configs: Sequence[ServingConfig]) -> Prior:
        """Of some configurations, on the grid or not."""
        row_of = rows_by_config(self.space)
        for config in configs:
            row = row_of.get(config)
            if config not in self._known and row is None:
                self._known[config] = self.computed([config])
            elif row is not None:
                self._known[config] = rows_of(self._grid, slice(row, row + 1))
        return joined([self._known[config] for config in configs], like=self._grid)

    def computed(self, configs: Sequence[ServingConfig]) -> Prior:
        """Of some configurations, all together."""
        groups = grouped(self.forecaster.twin, self.forecaster.deployment, configs)
        constants = self.forecaster.twin.constants
        rankings = self._rankings(groups, constants)
        at = self._logs(rankings)
        moved = slopes(lambda other: self._logs(self._rankings(groups, other)), constants, self.that_matter, at)
        strains = {
            each.name: _strain(groups, each, rankings[each.name].kv_tokens) for each in self.forecaster.workloads
        }
        log_values, by_key = {}, {}
        for row, (workload, name) in enumerate(self._outputs):
            key, worse, strain = (workload.name, name), -1.0 if name == OBJECTIVE else 1.0, strains[workload.name]
            log_values[key] = at[row] + worse * strain @ LEFT_OUT
            by_key[key] = np.concatenate([moved[row], strain * LEFT_OUT_SD], axis=1)
        margin_gib, margin_slopes = self.forecaster.slopes_of(groups)
        return Prior(log_values=log_values, slopes=by_key, margin_gib=margin_gib, margin_slopes=margin_slopes)

    @cached_property
    def that_matter(self) -> tuple[str, ...]:
        """The constants that move anything here."""
        if self._constants is not None:
            return self._constants
        everything = all_configs(self.space)
        probed = everything[:: max(1, len(everything) // PROBED)]
        groups = grouped(self.forecaster.twin, self.forecaster.deployment, probed)
        constants = self.forecaster.twin.constants
        at = self._logs(self._rankings(groups, constants))

        def matters(name: str) -> bool:
            moved = slopes(lambda other: self._logs(self._rankings(groups, other)), constants, (name,), at)
            return bool(np.abs(moved).max(initial=0.0) > LEAST_EFFECT)

        return tuple(filter(matters, KNOWN_ERROR))

    def _rankings(self, groups: Sequence[Alike], constants: TwinConstants) -> dict[str, Ranking]:
        """By name of the workload."""
        twin = replace(self.forecaster.twin, constants=constants)
        return {
            each.name: rank_groups(twin, groups, each, as_if_it_fitted=True, with_p_fits=False)
            for each in self.forecaster.workloads
        }

    @property
    def _outputs(self) -> list[tuple[Workload, str]]:
        return [(workload, name) for workload in self.forecaster.workloads for name in outputs(self.slo)]

    def _logs(self, rankings: Mapping[str, Ranking]) -> Array:
        """Of every output, shape (outputs, n)."""
        gpus = self.forecaster.deployment.gpus
        return np.stack(
            [
                log_predicted(name, rankings[workload.name], self.objective, workload, gpus)
                for workload, name in self._outputs
            ]
        )


def _strain(groups: Sequence[Alike], workload: Workload, kv_tokens: NDArray[np.int64]) -> Array:
    """How far each configuration is exposed to what the twin leaves out, shape (n, 3), columns as in `LEFT_OUT`.

    Args:
        groups: Of the configurations.
        workload: Its mean request counts.
        kv_tokens: KV capacity of one rank, shape (n,).
    """
    found = np.empty((len(kv_tokens), 3))
    for group in groups:
        ranks = group.deployed.ranks_with_own_queue
        wanted = np.minimum(np.asarray(group.memory.max_batch_size), math.ceil((workload.concurrency or MANY) / ranks))
        slots = np.maximum(kv_tokens[group.places] / (workload.isl + workload.osl / 2), 0.1)
        running = np.maximum(1.0, np.minimum(wanted, slots))
        uncovered = 1.0 / (1.0 + (group.graph_max / running) ** 8)
        waiting = np.clip(1.0 - slots / wanted, 0.0, 1.0)
        found[group.places] = np.stack([uncovered, waiting, np.log2(running) / 10], axis=1)
    return found
