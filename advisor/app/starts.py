"""Where the search begins: the twin's best configurations, far enough apart to teach different things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from advisor.app.admission import MemoryGate
from advisor.app.context import StudyContext
from advisor.app.forecast import KV_FRACTION, Forecaster, best_first
from advisor.app.load_scores import expected_scores
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.proposer import LOG_GAIN_PER_STEP
from advisor.search.space import all_configs, indices_of

N_STARTS = 6
CONSIDERED = 2000
LEAST_STEPS_APART = 2


class NoStarts:
    """For a sampler that knows the twin itself."""

    def next_start(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """None, ever."""
        return None


class TwinStarts:
    """What the twin expects most of over all workloads together, each at least two ladder steps from what was launched.

    Expected is the predicted gain times P(fits), so that nothing crashes for a percent. The KV fraction does not count
    as a step: where it fits and does not limit, it teaches nothing about speed. Which start is next depends on the
    records alone, and so on what their memory taught.
    """

    def __init__(self, context: StudyContext, forecaster: Forecaster, gate: MemoryGate, n: int = N_STARTS) -> None:
        self.context, self.forecaster, self.gate, self.n = context, forecaster, gate, n

    def next_start(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """The next start, or None when there were enough or nothing is left that is worth one."""
        n_made = sum(record.role == "start" and not record.infrastructure for record in records)
        if n_made >= self.n:
            return None
        configs, scores, places = self.considered
        margins_gib, slopes = self.slopes
        expected = scores + np.log(np.maximum(self.gate.frontier(records).p_fits(slopes, margins_gib), 1e-9))
        launched = [self._place(record.config) for record in records if record.launched]
        for rank in np.argsort(-expected, kind="stable"):
            apart = all(np.abs(places[rank] - other).sum() >= LEAST_STEPS_APART for other in launched)
            if apart and self.gate.admit(configs[rank], records) is None:
                return Proposal(config=configs[rank], origin=f"twin's choice {n_made + 1}")
        return None

    @cached_property
    def considered(self) -> tuple[list[ServingConfig], NDArray[np.float64], NDArray[np.int64]]:
        """The best of the whole grid: configurations, log scores (n,), ladder places (n, all but the fraction)."""
        everything, context = all_configs(self.context.space), self.context
        scores = np.mean(
            [
                expected_scores(self.forecaster, everything, w, context.objective, context.slo)
                for w in context.workloads
            ],
            axis=0,
        )
        near = best_first(scores)[:CONSIDERED]
        configs = [everything[place] for place in near]
        width = len(context.space.active) - 1
        places = np.array([self._place(config) for config in configs], dtype=np.int64).reshape(len(configs), width)
        home = context.baseline.config
        steps = 0 if home is None else np.abs(places - self._place(home)).sum(axis=1)
        return configs, scores[near] - LOG_GAIN_PER_STEP * steps, places

    @cached_property
    def slopes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Memory margins of those considered, and how they move with the law's constants."""
        return self.forecaster.slopes(self.considered[0])

    def _place(self, config: ServingConfig) -> NDArray[np.int64]:
        indices = indices_of(self.context.space, config)
        return np.array([index for name, index in indices.items() if name != KV_FRACTION])
