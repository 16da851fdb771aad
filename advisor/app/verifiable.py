"""How many launches must stand behind a result for its first verification to tell, and which of them are missing.

A verification compares launches with launches, so what a result stands on bounds what any later one can notice
(`docs/decisions/verify.md`). `tune --verifiable` buys what is missing once the study has decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.app.changes import gains_of, others_of, reference_of
from advisor.app.context import StudyContext
from advisor.app.results import Result, StudySummary
from advisor.domain.measurement import Metrics
from advisor.domain.objective import COST, THROUGHPUTS, Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.metrics.verdict import FALSE_ALARM, noticeable_loss, reference_needed

RATE = "output_tok_per_s"
OPEN_LOOP = "e2e:mean"  # of a fixed rate of arrivals a slower server shows in its latencies


def deciding_metrics(objective: Objective, workload: Workload) -> tuple[str, ...]:
    """What a verification goes by: output tok/s whatever the objective is, and the objective."""
    own = objective.metric
    more = [] if own in (*THROUGHPUTS[:3], COST) else [own]
    if workload.request_rate_per_s is not None and OPEN_LOOP not in more:
        more.append(OPEN_LOOP)
    return (RATE, *more)


def alarm_of_one_test(objective: Objective, workload: Workload, slo: Slo, n_results: int) -> float:
    """Probability of a false alarm that each metric and limit may spend where so many results are verified together."""
    return FALSE_ALARM / (len(deciding_metrics(objective, workload)) + len(slo.limits)) / n_results


def expected_launches(context: StudyContext) -> int:
    """Launches that must stand behind a result at the noise that is expected: the most of any workload."""
    n_results = len(context.workloads)
    alarms = [alarm_of_one_test(context.objective, each, context.slo, n_results) for each in context.workloads]
    return max(reference_needed((), alarm=alarm) for alarm in alarms)


def launches_needed(result: Result, n_results: int, own: Sequence[Metrics]) -> int:
    """Launches that must stand behind a result (one with a best) at the noise that was seen.

    Args:
        result: Of one workload.
        n_results: Workloads of its study that have a best: they are verified together.
        own: What stands behind it so far, one a launch.
    """
    alarm, seen = _tests(result, n_results, own)
    return max(reference_needed(values, others, alarm) for values, others in seen)


def with_noticeable_losses(summary: StudySummary) -> StudySummary:
    """The summary with what a verification of each result could notice."""
    n_results = _n_results(summary.results)
    return changed(
        summary,
        results=tuple(
            result if result.best is None else changed(result, noticeable_loss=_noticeable(result, n_results))
            for result in summary.results
        ),
    )


def _noticeable(result: Result, n_results: int) -> float:
    alarm, seen = _tests(result, n_results, reference_of(result))
    return max(noticeable_loss(len(values), values, others, alarm) for values, others in seen)


def _n_results(results: Sequence[Result]) -> int:
    return sum(result.best is not None for result in results)


def _tests(
    result: Result, n_results: int, own: Sequence[Metrics]
) -> tuple[float, list[tuple[list[float], list[list[float]]]]]:
    """False alarms that each test may spend; for each metric its values, with those of other configurations.

    A metric that some launch does not have decides nothing.
    """
    alarm = alarm_of_one_test(result.objective, result.workload, result.slo, n_results)
    seen = [
        (values, [others for runs in others_of(result) if (others := gains_of(name, runs))])
        for name in deciding_metrics(result.objective, result.workload)
        if (values := gains_of(name, own))
    ]
    return alarm, seen


@dataclass(frozen=True)
class Missing:
    """A recommendation that is to be launched again: `n_behind` launches are behind it, `n_needed` are needed."""

    config: ServingConfig
    n_behind: int
    n_needed: int


def next_missing(results: Sequence[Result]) -> Missing | None:
    """Whose launch is missing first; None where every verification could tell. Workloads share launches."""
    for result in results:
        if result.best is not None:
            own = reference_of(result)
            n_needed = launches_needed(result, _n_results(results), own)
            if len(own) < n_needed:
                return Missing(result.best.serving_config, len(own), n_needed)
    return None
