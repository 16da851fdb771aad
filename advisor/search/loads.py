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

FINE_ENOUGH = 1.25  # between a load that keeps the limits and one that breaks them
MAX_LOADS = 8


def next_load(kept: Mapping[int, bool], most: int) -> int | None:
    """The concurrency to measure next, None when the answer is known well enough.

    Begins at `most` and halves the remaining range on a logarithmic scale.

    Args:
        kept: By concurrency measured so far, whether every limit was kept.
        most: The highest concurrency that is of interest, >= 1.
    """
    if not kept:
        return most
    breaking = min((load for load, fine in kept.items() if not fine), default=None)
    if breaking is None or len(kept) >= MAX_LOADS:
        return None
    keeping = max((load for load, fine in kept.items() if fine and load < breaking), default=None)
    middle = round(math.sqrt(breaking * (keeping or 1)))
    enough = keeping is not None and breaking <= FINE_ENOUGH * keeping
    return None if enough or middle in kept else middle


def best_load(tried: Mapping[int, WorkloadOutcome], objective: Objective, slo: Slo) -> int:
    """The load with the best objective among those that keep every limit; among all where none does."""

    def rank(load: int) -> tuple[bool, float]:
        metrics = tried[load].metrics
        return (False, 0.0) if metrics is None else (slo.met(metrics), objective.value(metrics) or 0.0)

    return max(tried, key=rank)


def at_load(workload: Workload, concurrency: int | None) -> Workload:
    """The workload at another concurrency (None: its own load); a number of requests asked for is cut in proportion."""
    if concurrency is None:
        return workload
    if workload.n_requests is None or workload.concurrency is None:
        return changed(workload, concurrency=concurrency)
    n_requests = math.ceil(workload.n_requests * concurrency / workload.concurrency)
    return changed(workload, concurrency=concurrency, n_requests=n_requests)
