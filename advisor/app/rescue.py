"""`advisor tune --rescue FILE`: from a configuration that does not run to the nearest one that does.

The file is launched as it is. What that launch says about GiB corrects the memory law, and the candidate that costs
least throughput among those that should fit is launched next, until one serves every workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advisor.app.admission import MemoryGate
from advisor.app.forecast import Forecaster, log_scores
from advisor.app.trial_maker import TrialMaker
from advisor.domain.ports import CancelToken, Proposal
from advisor.domain.serving_config import OptionValue, ServingConfig, config_from_flat
from advisor.domain.strict import StrictModel
from advisor.domain.trial import TrialRecord
from advisor.search.nearest import cheapest_first, log_cost, n_changed
from advisor.search.space import all_configs, indices_of

Ending = Literal["rescued", "budget", "hours", "gpu_hours", "exhausted", "cancelled", "infrastructure", "no_remedy"]
MOST_ASKED = 2000  # candidates that are held against the rules before the rescue gives up


class RescueChange(StrictModel):
    """One setting that was changed, in the order in which the costs add up."""

    setting: str
    before: OptionValue
    after: OptionValue
    frees_gib: float = Field(description="Of one GPU at the tightest moment, by the memory law")
    predicted_cost: float | None = Field(
        description="Share of the objective lost by it, as the twin predicts; null where the twin cannot tell"
    )


class RescueReport(StrictModel):
    """What was done to a configuration that did not run."""

    asked: ServingConfig
    outcome: str = Field(description="How the launch of the file ended")
    n_launches: int
    rescued: ServingConfig | None = Field(description="Null when nothing that was tried serves the workload")
    changes: tuple[RescueChange, ...] = Field(description="Cheapest first; empty when the file itself runs")


@dataclass(frozen=True)
class Rescuer:
    """Launches the file, then the cheapest candidate that should fit, until one is measured."""

    trials: TrialMaker
    gate: MemoryGate
    forecaster: Forecaster
    cancel: CancelToken

    def run(self) -> Ending:
        """Run to the first configuration that serves, or until nothing more may or can be tried."""
        home = self.original
        name = self.trials.context.baseline.name
        while not self.trials.has("baseline", home):
            stopped = self._stopped()
            if stopped is not None:
                return stopped
            self.trials.launch("baseline", Proposal(config=home, origin=f"as in {name}"))
        while True:
            records = self.trials.ledger.records()
            if any(record.measured for record in records):
                return "rescued"
            if not _of_memory(records):
                return "no_remedy"
            stopped = self._stopped()
            if stopped is not None:
                return stopped
            near = self.next_candidate(records)
            if near is None:
                return "exhausted"
            self.trials.launch("search", Proposal(config=near, origin=f"rescue of {name}"))

    def _stopped(self) -> Ending | None:
        if self.cancel.cancelled:
            return "cancelled"
        if self.trials.infrastructure_down():
            return "infrastructure"
        if self.trials.starts_left() <= 0:
            return "budget"
        context = self.trials.context
        return context.budget.binds(context.deployment.gpus) if self.trials.hours_left() <= 0 else None

    @property
    def original(self) -> ServingConfig:
        """What the file says."""
        config = self.trials.context.baseline.config
        assert config is not None
        return config

    @cached_property
    def candidates(self) -> tuple[ServingConfig, ...]:
        """The whole grid, the original one of its points."""
        return all_configs(self.trials.context.space)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """What each candidate costs against the original, log units of the objective."""
        space, scores = self.trials.context.space, self._scores(self.candidates)
        home = np.array(list(indices_of(space, self.original).values()))
        steps = np.array(
            [np.abs(np.array(list(indices_of(space, each).values())) - home).sum() for each in self.candidates]
        )
        changes = n_changed(self.original, self.candidates)
        return log_cost(scores, float(self._scores([self.original])[0]), changes, steps.astype(float))

    def next_candidate(self, records: Sequence[TrialRecord]) -> ServingConfig | None:
        """The cheapest candidate that should fit after what was learned; None when the rules refuse all of them."""
        tried = {record.config for record in records}
        margins_gib, slopes = self._memory
        p_fits = self.gate.frontier(records).p_fits(slopes, margins_gib)
        p_fits = np.where(self._kv_tokens(records) >= self._longest, p_fits, 0.0)
        for place in cheapest_first(self.costs, p_fits)[:MOST_ASKED]:
            config = self.candidates[place]
            if config not in tried and self.gate.admit(config, records) is None:
                return config
        return None

    def report(self, records: Sequence[TrialRecord]) -> RescueReport:
        """What was changed, and what each change costs by itself on top of the cheaper ones."""
        own = next((r for r in records if r.role == "baseline" and r.config == self.original), None)
        saved = next((r.config for r in records if r.measured), None)
        return RescueReport(
            asked=self.original,
            outcome="not launched" if own is None else own.ending,
            n_launches=sum(record.n_attempts for record in records),
            rescued=saved,
            changes=() if saved is None else tuple(self._changes(saved)),
        )

    def _changes(self, saved: ServingConfig) -> list[RescueChange]:
        home, there = self.original.flat(), saved.flat()
        differing = [name for name in there if there[name] != home.get(name)]
        alone = [config_from_flat({**home, name: there[name]}) for name in differing]
        order: list[int] = np.argsort(-self._scores(alone), kind="stable").tolist() if alone else []
        steps = [self.original]
        for place in order:
            steps.append(config_from_flat({**steps[-1].flat(), differing[place]: there[differing[place]]}))
        scores, margins_gib = self._scores(steps), self.forecaster.slopes(steps)[0].min(axis=1)
        costs = 1.0 - np.exp(np.diff(scores))
        return [
            RescueChange(
                setting=differing[place],
                before=home[differing[place]],
                after=there[differing[place]],
                frees_gib=round(float(freed), 2),
                predicted_cost=float(cost) if np.isfinite(cost) else None,
            )
            for place, cost, freed in zip(order, costs, np.diff(margins_gib), strict=True)
        ]

    def _scores(self, configs: Sequence[ServingConfig]) -> NDArray[np.float64]:
        """Log score of the objective, mean over the workloads, as if everything fitted into memory."""
        context = self.trials.context
        rankings = [(self.forecaster.rank(configs, w, as_if_it_fitted=True), w) for w in context.workloads]
        return np.asarray(
            np.mean([log_scores(ranking, context.objective, context.slo, w) for ranking, w in rankings], axis=0)
        )

    @cached_property
    def _memory(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.forecaster.slopes(self.candidates)

    @cached_property
    def _longest(self) -> int:
        return max(workload.max_tokens_per_request for workload in self.trials.context.workloads)

    @cached_property
    def _predicted_kv_tokens(self) -> NDArray[np.float64]:
        workload = self.trials.context.workloads[0]
        return self.forecaster.rank(self.candidates, workload).kv_tokens.astype(float)

    def _kv_tokens(self, records: Sequence[TrialRecord]) -> NDArray[np.float64]:
        """KV capacity as predicted, scaled down to what the launches so far really had."""
        had = [
            record.effective.kv_tokens / max(1, int(self.forecaster.budget(record.config).kv_tokens))
            for record in records
            if record.effective is not None
        ]
        return self._predicted_kv_tokens * min([1.0, *had])


def _of_memory(records: Sequence[TrialRecord]) -> bool:
    """True while the last launch failed for lack of memory or room in the KV pool: what settings can mend."""
    last = [record for record in records if not record.infrastructure][-1:]
    return all(record.outcome.kind in ("out_of_memory", "unhealthy") for record in last)
