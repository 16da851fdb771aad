"""Which load to try next on one launch: the highest concurrency that still keeps every limit.

Latencies are taken to grow with the load, so that one concurrency which breaks a limit rules out all above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.objective import Objective, Slo
from advisor.domain.strict import changed
from advisor.domain.workload import Workload

FINE_ENOUGH = 1.06  # between a load that keeps the limits and one that breaks them
INNER = 0.25  # of the range, on a logarithmic scale: nearer to its ends nothing is tried
USUAL_LOADS, MAX_LOADS = 6, 8


def next_load(excess: Mapping[int, float], most: int) -> int | None:
    """The concurrency to measure next, None when the answer is known well enough.

    Begins at `most`. Until a load keeps the limits, the logarithm of the load is halved; then the next one is where a
    straight line between the highest load that keeps them and the lowest that breaks them, in logarithms of load and
    latency, meets the limit.

    Args:
        excess: By concurrency measured so far, the largest measured / limit - 1: above zero breaks a limit.
        most: The highest concurrency that is of interest, >= 1.
    """
    if not excess:
        return most
    breaking = min((load for load, over in excess.items() if over > 0), default=None)
    if breaking is None or len(excess) >= MAX_LOADS:
        return None
    keeping = max((load for load, over in excess.items() if over <= 0 and load < breaking), default=None)
    if keeping is None:
        load = round(math.sqrt(breaking))
    elif breaking <= FINE_ENOUGH * keeping:
        return None
    else:
        low, high = math.log1p(max(excess[keeping], -0.999)), math.log1p(excess[breaking])
        share = min(max(low / (low - high), INNER), 1 - INNER)
        load = round(keeping * (breaking / keeping) ** share)
        load = min(max(load, keeping + 1), breaking - 1)
    return None if load in excess else load


def best_load(tried: Mapping[int, WorkloadOutcome], objective: Objective, slo: Slo) -> int:
    """The load with the best objective among those that keep every limit; where none does, the nearest to that."""

    def rank(load: int) -> tuple[bool, float]:
        metrics, over = tried[load].metrics, worst_excess(tried[load], slo)
        value = None if metrics is None else objective.value(metrics)
        return (True, value or 0.0) if over <= 0 else (False, -over)

    return max(tried, key=rank)


def worst_excess(outcome: WorkloadOutcome, slo: Slo) -> float:
    """The largest measured / limit - 1 of one measurement; infinite where there are no metrics."""
    if outcome.metrics is None:
        return math.inf
    return max((limit.excess(outcome.metrics) for limit in slo.limits), default=0.0)


def at_load(workload: Workload, concurrency: int | None) -> Workload:
    """The workload at another concurrency (None: its own load); a number of requests asked for is cut in proportion."""
    if concurrency is None:
        return workload
    if workload.n_requests is None or workload.concurrency is None:
        return changed(workload, concurrency=concurrency)
    n_requests = math.ceil(workload.n_requests * concurrency / workload.concurrency)
    return changed(workload, concurrency=concurrency, n_requests=n_requests)
