"""One run: a contender against a truth, what it picks after so many launches, and how good that truly is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.definitions import average
from advisor.search.standings import pick, standings
from benchmarks.search.contenders import Contender
from benchmarks.search.truths import Truth

MARKS = (8, 12, 20)
OOM_MARK = 12
NEAR = 0.95
BROKEN = 0.03
CONFIRMATIONS, CANDIDATES = 2, 4
CONFIRMATION_NUMBER = 1000
"""Launch number of the first confirmation, beyond any search, so that its noise is the same for all contenders."""


@dataclass(frozen=True)
class Score:
    """How one run went; tuples are by workload.

    Attributes:
        regret: 1 - value(pick) / best after so many launches, 1 where nothing that keeps the SLO was found.
        broken: True where the pick after the last launch breaks the SLO in truth by over 3 %.
        n_oom: Launches of the first 12 that ran out of memory.
        n_to_near: Launches until one comes within 5 % of the best, of the workload that waited longest; None = never.
        n_launches: Made in all.
        ask_ms: Mean time of a proposal.
    """

    regret: dict[int, tuple[float, ...]]
    broken: tuple[bool, ...]
    n_oom: int
    n_to_near: int | None
    n_launches: int
    ask_ms: float


def play(truth: Truth, contender: Contender) -> Score:
    """Let a contender make its launches, the baseline before them, and score it."""
    history, asking_s = [truth.launch(truth.problem.baseline, 0)], []
    while len(history) < max(MARKS):
        started = time.perf_counter()
        config = contender.next(history)
        asking_s.append(time.perf_counter() - started)
        if config is None:
            break
        history.append(truth.launch(config, len(history)))
    picks = {
        mark: [confirmed(truth, history[:mark], workload) for workload in truth.problem.workloads] for mark in MARKS
    }
    last = picks[max(MARKS)]
    workloads = truth.problem.workloads
    return Score(
        regret={mark: tuple(map(_regret, [truth] * len(workloads), picks[mark], workloads)) for mark in MARKS},
        broken=tuple(breaks(truth, config, workload) for config, workload in zip(last, workloads, strict=True)),
        n_oom=sum(record.out_of_memory for record in history[:OOM_MARK]),
        n_to_near=launches_to_near(truth, history),
        n_launches=len(history),
        ask_ms=1e3 * sum(asking_s) / max(1, len(asking_s)),
    )


def confirmed(truth: Truth, history: Sequence[TrialRecord], workload: Workload) -> ServingConfig | None:
    """The pick of the study's rule that two further launches agree with; after four candidates, nothing."""
    problem = truth.problem
    table = standings(history, workload.name, problem.objective, problem.slo)
    for _ in range(CANDIDATES):
        leader = pick(table, problem.objective)
        if leader is None:
            return None
        again = [
            truth.launch(leader.config, CONFIRMATION_NUMBER + i).workload(workload.name) for i in range(CONFIRMATIONS)
        ]
        metrics = [each.metrics for each in again if each is not None and each.metrics is not None]
        if metrics and problem.slo.met(average(metrics)):
            return leader.config
        table = [standing for standing in table if standing.config != leader.config]
    return None


def breaks(truth: Truth, config: ServingConfig | None, workload: Workload) -> bool:
    """True where a pick breaks the SLO in truth by over 3 %."""
    return config is not None and truth.excess(config, workload) > BROKEN


def _regret(truth: Truth, config: ServingConfig | None, workload: Workload) -> float:
    value = None if config is None else truth.value(config, workload)
    if config is None or value is None or breaks(truth, config, workload):
        return 1.0
    return max(0.0, 1.0 - truth.problem.objective.gain(value, truth.best(workload)))


def launches_to_near(truth: Truth, history: Sequence[TrialRecord]) -> int | None:
    """Launches until every workload has had one that truly keeps the SLO and is within 5 % of the best."""
    counts = [
        next((n for n, record in enumerate(history, 1) if _near(truth, record.config, workload)), None)
        for workload in truth.problem.workloads
    ]
    reached = [count for count in counts if count is not None]
    return max(reached) if len(reached) == len(counts) else None


def _near(truth: Truth, config: ServingConfig, workload: Workload) -> bool:
    value = truth.value(config, workload)
    if value is None or truth.excess(config, workload) > 0:
        return False
    return truth.problem.objective.gain(value, truth.best(workload)) >= NEAR
