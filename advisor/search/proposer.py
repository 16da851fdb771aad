"""advisor's own sampler: from the history to the configuration that is most worth a launch.

A launch is worth the improvement expected of it times the probability that every limit is kept, summed over the
workloads, times the probability that it fits into memory and that nothing else kills it. The first proposal of a search
goes by `search/opening.py` instead.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.errors import BadInput
from advisor.domain.outcome import BadConfig, Crashed, TimedOut, Unhealthy
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.memory.frontier import Frontier
from advisor.search.admission import LEAST_P_FITS
from advisor.search.expectation import Expectation, Rows, Sought, expectations
from advisor.search.opening import N_ASKED, Drawing, is_opening, p_near_best, plausible
from advisor.search.prior import OBJECTIVE, places_of, steps_along
from advisor.search.space import all_configs, rows_by_config

Array = NDArray[np.float64]

LOOKED_AT = 600  # configurations whose deviation is computed, best by an optimistic bound
LOG_GAIN_PER_STEP = 0.0005  # among equals the nearest to the baseline: a file should differ only where that pays
FAILURE_LENGTH = 0.15  # ladders around a crash in which others are suspected
FAILURE_WEIGHT = 3.0


@dataclass(frozen=True)
class OwnProposer:
    """Implements `Proposer`. Between calls nothing is remembered but the prior and the grid.

    Attributes:
        sought: Space, workloads, objective, limits and prior.
        frontier: What records taught about memory.
        admissible: False for what a static rule refuses.
        drawing: Servers that agree with the first launches, for the first proposal; None does without.
    """

    sought: Sought
    frontier: Callable[[Sequence[TrialRecord]], Frontier]
    admissible: Callable[[ServingConfig], bool] = lambda config: True
    drawing: Drawing | None = None
    name: str = "advisor"

    def propose(self, history: Sequence[TrialRecord], seed: int = 0, running: Sequence[ServingConfig] = ()) -> Proposal:
        """The next configuration. The same history gives the same one, whatever the seed.

        Args:
            history: All trials so far.
            seed: Of the study.
            running: Launched elsewhere and not ended yet.

        Raises:
            BadInput: nothing is left to try.
        """
        records = [record for record in history if not record.infrastructure]
        chance, views = self._chance(records, running), expectations(self.sought, records, running)
        opening = None if running else self._opening(records, chance)
        rows = self._most_hoped(chance, views) if opening is None else opening[0]
        gains = chance[rows] * sum(view.expected_gain(rows) for view in views) / len(views)
        worth = gains if opening is None else opening[1]
        configs = all_configs(self.sought.space)
        for place in np.argsort(LOG_GAIN_PER_STEP * self._steps_from_home[rows] - worth, kind="stable"):
            config = configs[rows[place]]
            if chance[rows[place]] > 0 and self.admissible(config):
                return Proposal(config=config, origin=self.name, expected_gain=math.expm1(gains[place]))
        raise BadInput(
            f"Nothing is left to try among the {len(configs):,} configurations of search space "
            f"{self.sought.space.name!r}: widen a ladder or vary a further dimension to search on."
        )

    def _most_hoped(self, chance: Array, views: Sequence[Expectation]) -> Rows:
        """The rows with the highest optimistic bound."""
        hoped = chance * sum(view.hoped_gain() for view in views)
        return np.sort(np.argpartition(-hoped, min(LOOKED_AT, len(hoped) - 1))[:LOOKED_AT])

    def _opening(self, records: Sequence[TrialRecord], chance: Array) -> tuple[Rows, Array] | None:
        """Some rows, and how likely each is near the best, of servers that agree with the first launches.

        None after the first proposal, and where earlier studies know more.
        """
        sought = self.sought
        if self.drawing is None or not is_opening(records) or sought.lessons():
            return None
        log_limits = {limit.name: math.log(limit.limit_ms) for limit in sought.slo.limits}
        may = plausible(sought.prior.over_grid().log_values, sought.workloads, log_limits) & (chance > 0)
        configs = all_configs(sought.space)
        shuffled = np.random.default_rng(0).permutation(np.flatnonzero(may)).tolist()
        rows = list(itertools.islice((row for row in shuffled if self.admissible(configs[row])), N_ASKED))
        drawn = self.drawing(records, [configs[row] for row in rows]) if rows else None
        if drawn is None:
            return None
        asked = np.array(rows)
        return asked, chance[asked] * p_near_best(drawn, sought.workloads, log_limits)

    def _chance(self, records: Sequence[TrialRecord], running: Sequence[ServingConfig]) -> Array:
        """Probability that a launch is measured at all, shape (N,); 0 where one was tried or nothing can be served."""
        prior, frontier = self.sought.prior.over_grid(), self.frontier(records)
        chance = frontier.p_fits(prior.margin_slopes, prior.margin_gib) * self._p_survives(records)
        row_of = rows_by_config(self.sought.space)
        tried = (row_of.get(config) for config in (*(record.config for record in records), *running))
        chance[[row for row in tried if row is not None]] = 0.0
        for workload in self.sought.workloads:
            chance[~np.isfinite(prior.log_values[workload.name, OBJECTIVE])] = 0.0
        likely = chance >= LEAST_P_FITS
        return np.where(likely, chance, 0.0) if likely.any() else chance

    def _p_survives(self, records: Sequence[TrialRecord]) -> Array:
        """Probability that nothing but memory kills a launch, shape (N,): a crash makes its neighbours suspect."""
        dead = [r for r in records if isinstance(r.outcome, (BadConfig, Crashed, TimedOut, Unhealthy))]
        if not dead:
            return np.ones(len(self.sought.ladders.places))
        lived, died = self._nearness([record for record in records if record.served]), self._nearness(dead)
        return (1 + lived) / (1 + lived + FAILURE_WEIGHT * died)

    def _nearness(self, records: Sequence[TrialRecord]) -> Array:
        """Sum of Gaussians around some launches, shape (N,)."""
        others = places_of(self.sought.space, [record.config for record in records])
        lengths = np.full(others.shape[1], FAILURE_LENGTH)
        return self.sought.ladders.sums(
            lambda distance: np.exp(-0.5 * distance**2), lengths, others, np.ones(len(others))
        )

    @functools.cached_property
    def _steps_from_home(self) -> Array:
        """Ladders between every configuration of the grid and the baseline, in steps, shape (N,)."""
        if self.sought.home is None:
            return np.zeros(len(self.sought.ladders.places))
        steps = steps_along(self.sought.space)
        return np.asarray(np.abs(self.sought.ladders.places - places_of(self.sought.space, [self.sought.home])) @ steps)
