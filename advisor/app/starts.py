"""Where the search begins: the twin's best configurations, far enough apart to teach different things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from advisor.app.context import StudyContext
from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.app.tuner import Admission
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.space import all_configs, indices_of

KV_FRACTION = "kv_cache_free_gpu_memory_fraction"
N_STARTS = 6
CONSIDERED = 400
LEAST_STEPS_APART = 2
LOG_GAIN_PER_STEP = 0.0005  # among equals the twin begins near the baseline: 0.05 % a ladder step


class TwinStarts:
    """The twin's best over all workloads together, each at least two ladder steps from whatever was launched.

    The KV fraction does not count as a step: where it fits and does not limit, it teaches nothing about speed. Which
    start is next depends on the records alone, and so on what their memory taught.
    """

    def __init__(self, context: StudyContext, forecaster: Forecaster, admission: Admission, n: int = N_STARTS) -> None:
        self.context, self.forecaster, self.admission, self.n = context, forecaster, admission, n

    def next_start(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """The next start, or None when there were enough or nothing is left that is worth one."""
        n_made = sum(record.role == "start" and not record.infrastructure for record in records)
        if n_made >= self.n:
            return None
        launched = [self._indices(record.config) for record in records if record.launched]
        for rank, config in enumerate(self.order, start=1):
            here = self._indices(config)
            apart = all(np.abs(here - other).sum() >= LEAST_STEPS_APART for other in launched)
            if apart and self.admission.admit(config, records) is None:
                return Proposal(config=config, origin=f"twin's choice {n_made + 1}, rank {rank}")
        return None

    @cached_property
    def order(self) -> list[ServingConfig]:
        """The best configurations of the whole grid, best first."""
        configs, context = all_configs(self.context.space), self.context
        scores = np.mean(
            [log_scores(self.forecaster.rank(configs, w), context.objective, w) for w in context.workloads], axis=0
        )
        near = best_first(scores)[:CONSIDERED]
        home = context.baseline.config
        steps = [
            0.0 if home is None else float(np.abs(self._indices(configs[i]) - self._indices(home)).sum()) for i in near
        ]
        ranked = np.argsort(LOG_GAIN_PER_STEP * np.array(steps) - scores[near], kind="stable")
        return [configs[near[int(place)]] for place in ranked]

    def _indices(self, config: ServingConfig) -> NDArray[np.int64]:
        indices = indices_of(self.context.space, config)
        return np.array([index for name, index in indices.items() if name != KV_FRACTION])
