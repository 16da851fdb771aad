"""Whole studies against a drawn truth: search, stop rule, race and confirmation, as `app/tuner.py` runs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Budget
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.workload import Workload
from advisor.engines.trtllm.dialects import default_config, dialect
from advisor.search.expectation import Sought
from advisor.search.proposer import OwnProposer
from advisor.search.racing import LEVEL, MARGIN, Race
from advisor.search.stopping import (
    confirmation_launches,
    expected_gains,
    is_drift_check_due,
    no_gain_expected,
    noise,
    repeats,
    search_launches,
)
from benchmarks.search.contenders import value_of
from benchmarks.search.play import breaks
from benchmarks.search.truths import Truth


@dataclass(frozen=True)
class Verdict:
    """How a study ended under one workload, and how that is in truth.

    Attributes:
        p_best: What the study says of its winner; None without one.
        announced: It says "best with 95 % confidence".
        better: How much better, in truth, the best of those launched that keep the SLO is; 0 where the winner is it.
        regret: 1 - value(winner) / best of the grid, without limits on its sign.
        expected_distance: The study's own prediction of the regret.
        breaks: The winner breaks the SLO in truth by over 3 %.
        n_launches: Of the whole study.
    """

    p_best: float | None
    announced: bool
    better: float
    regret: float
    breaks: bool
    n_launches: int

    @property
    def honest(self) -> bool:
        """True where nothing that was launched is truly more than 1 % better."""
        return self.better <= MARGIN


Launch = Callable[[ServingConfig, Role], TrialRecord]


def play_study(truth: Truth, sought: Sought, proposer: OwnProposer, budget: Budget) -> tuple[Verdict, ...]:
    """One study to its end, by workload."""
    problem, n_workloads = truth.problem, len(truth.problem.workloads)
    value, records = value_of(problem), list[TrialRecord]()

    def launch(config: ServingConfig, role: Role, expected_gain: float | None = None) -> None:
        record = truth.launch(config, len(records))
        records.append(changed(record, role=role, expected_gain=expected_gain))

    launch(problem.baseline, "baseline")
    while len(records) < search_launches(budget, n_workloads):
        if is_drift_check_due(records):
            launch(problem.baseline, "baseline")
        elif no_gain_expected(expected_gains(records), noise(repeats(records, value))):
            break
        else:
            try:
                proposal = proposer.propose(records)
            except BadInput:
                break
            launch(proposal.config, "search", proposal.expected_gain)
    race = Race(sought, default_config(dialect(problem.deployment.engine_version)))
    end = min(budget.max_launches, len(records) + confirmation_launches(budget, n_workloads))
    while (repeat := race.next(records, end - len(records))) is not None:
        launch(repeat.config, "confirmation")
    return tuple(_judged(truth, race, records, workload) for workload in problem.workloads)


def _judged(truth: Truth, race: Race, records: list[TrialRecord], workload: Workload) -> Verdict:
    decision = race.decision(records, workload)
    config = None if decision.standing is None else decision.standing.config
    value = None if config is None else truth.value(config, workload)
    if config is None or value is None or decision.p_best is None:
        return Verdict(None, announced=False, better=math.inf, regret=1.0, breaks=False, n_launches=len(records))
    gain = truth.problem.objective.gain
    launched = {record.config for record in records if truth.excess(record.config, workload) <= 0}
    values = [found for found in (truth.value(each, workload) for each in launched) if found is not None]
    again = any(record.config == config and record.role == "confirmation" for record in records)
    return Verdict(
        p_best=decision.p_best,
        announced=again and decision.p_best >= LEVEL,
        better=max((gain(each, value) - 1 for each in values), default=0.0),
        regret=1 - gain(value, truth.best(workload)),
        breaks=breaks(truth, config, workload),
        n_launches=len(records),
    )
