"""Which benchmark to repeat on a launch that is there already: where noise within it hides who is better.

Symbols: y log objective of k benchmarks of one workload on one launch; s their deviation, of which `noise` is the
posterior mean. A contender is undecided while the incumbent lies within mean(y) -+ t s / sqrt(k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Objective, Slo
from advisor.domain.ports import Incumbent
from advisor.metrics.confidence import student_t_quantile
from advisor.search.stopping import FLOOR_DOF, noise

MAX_RUNS = 3  # of one workload on one launch: what launches differ by, no repeat on this one tells


def next_repeat(
    runs: Mapping[str, Sequence[Metrics]],
    incumbents: Sequence[Incumbent],
    objective: Objective,
    slo: Slo,
    seconds_left: float,
) -> str | None:
    """The workload to measure once more, the least decided one; None when all are decided or it would take too long.

    Args:
        runs: By workload, its benchmarks on this launch so far, all of them whole.
        incumbents: What is to beat; a workload without one is decided.
        objective: Of the study.
        slo: Its limits; a contender keeps them.
        seconds_left: That repeats may take; the last benchmark of a workload tells how long one more does.
    """
    doubts = {
        each.workload: doubt(runs[each.workload], each, objective)
        for each in incumbents
        if each.workload in runs
        and len(runs[each.workload]) < MAX_RUNS
        and runs[each.workload][-1].duration_s <= seconds_left
        and all(map(slo.met, runs[each.workload]))
    }
    undecided = [name for name, share in doubts.items() if share <= 1]
    return min(undecided, key=lambda name: doubts[name], default=None)


def doubt(runs: Sequence[Metrics], incumbent: Incumbent, objective: Objective) -> float:
    """How far the incumbent is from what was measured, in half widths of its 95 % interval: up to 1 is undecided."""
    values = [value for each in runs if (value := objective.value(each)) is not None and value > 0]
    if not values:
        return math.inf
    logs = [math.log(value) for value in values]
    half = student_t_quantile(0.975, FLOOR_DOF + len(logs) - 1) * noise([logs]) / math.sqrt(len(logs))
    return abs(sum(logs) / len(logs) - math.log(incumbent.value)) / half
