"""How far the winner is expected to be from the best of the whole space: a prediction, told apart from confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from advisor.app.context import StudyContext
from advisor.app.results import Result, StudySummary
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.memory.frontier import Frontier


def with_expected_distances(
    summary: StudySummary,
    context: StudyContext,
    records: Sequence[TrialRecord],
    frontier: Callable[[Sequence[TrialRecord]], Frontier],
) -> StudySummary:
    """The summary with the expected distance of each best that was sought on a grid that the prior knows."""
    prior = context.prior.over_grid()
    p_fits = frontier(records).p_fits(prior.margin_slopes, prior.margin_gib)

    def told(result: Result) -> Result:
        contest = context.race.contest(records, result.workload)
        place = None if contest is None or result.best is None else contest.place_of(result.best.serving_config)
        if place is None:
            return result
        distance = context.race.expected_distance(records, result.workload, place, p_fits)
        return changed(result, confidence=changed(result.confidence, expected_distance=distance))

    return changed(summary, results=tuple(map(told, summary.results)))
