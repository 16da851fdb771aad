"""Whole studies against a drawn truth: search, stop rule, race and confirmation, as `app/tuner.py` runs them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.domain.errors import BadInput
from advisor.domain.measurement import LatencySummary, Metrics
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Budget
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.workload import Workload
from advisor.engines.trtllm.dialects import default_config, dialect
from advisor.metrics.confidence import ratio_interval
from advisor.search.racing import LEVEL, MARGIN, Array, Race
from advisor.search.standings import standings
from advisor.search.stopping import (
    confirmation_launches,
    expected_gains,
    is_drift_check_due,
    no_gain_expected,
    noise,
    repeats,
    search_launches,
)
from benchmarks.search.contenders import own_proposer, value_of
from benchmarks.search.play import breaks
from benchmarks.search.problems import Problem
from benchmarks.search.truths import Truth


@dataclass(frozen=True)
class Verdict:
    """How a study ended under one workload, and how that is in truth.

    Attributes:
        p_best: What the study says of its winner; None without one.
        announced: It says "best with 95 % confidence".
        better: How much better, in truth, the best of those launched that keep the SLO is; at most 0 where nobody is.
        regret: 1 - value(winner) / best of the grid; below 0 where the winner breaks the SLO for its lead.
        expected_distance: The study's own prediction of the regret; None where it makes none.
        breaks: The winner breaks the SLO in truth by over 3 %.
        covered: The interval of its gain over the baseline holds the true one; None without an interval.
        n_launches: Of the whole study.
    """

    p_best: float | None
    announced: bool
    better: float
    regret: float
    expected_distance: float | None
    breaks: bool
    covered: bool | None
    n_launches: int

    @property
    def honest(self) -> bool:
        """True where nothing that was launched is truly more than 1 % better."""
        return self.better <= MARGIN


NOTHING = Verdict(None, False, math.inf, 1.0, None, False, None, 0)
"""Of a study that found nothing."""


@dataclass(frozen=True)
class Drifting:
    """A truth whose pace changes from launch to launch, as clocks do: by `log_pace` in 24 launches.

    What is true of it is what it does before it drifts; a drift moves all configurations alike.
    """

    truth: Truth
    log_pace: float

    @property
    def problem(self) -> Problem:
        """That of the truth."""
        return self.truth.problem

    def launch(self, config: ServingConfig, number: int) -> TrialRecord:
        """The record, its times and rates as the pace is by then."""
        record, pace = self.truth.launch(config, number), math.exp(self.log_pace * number / 24)
        measured = [
            changed(each, metrics=None if each.metrics is None else paced(each.metrics, pace))
            for each in record.workloads
        ]
        return changed(record, workloads=tuple(measured))

    def value(self, config: ServingConfig, workload: Workload) -> float | None:
        """Before the drift."""
        return self.truth.value(config, workload)

    def excess(self, config: ServingConfig, workload: Workload) -> float:
        """Before the drift."""
        return self.truth.excess(config, workload)

    def best(self, workload: Workload) -> float:
        """Before the drift."""
        return self.truth.best(workload)


def paced(metrics: Metrics, pace: float) -> Metrics:
    """Metrics of the same run on a server that is `pace` times as fast."""

    def scaled(summary: LatencySummary | None) -> LatencySummary | None:
        if summary is None:
            return None
        return LatencySummary(**{name: value / pace for name, value in summary.model_dump().items()})

    rates = ("output_tok_per_s", "output_tok_per_s_per_gpu", "output_tok_per_s_per_user", "request_per_s")
    latencies = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")
    return changed(
        metrics,
        **{name: getattr(metrics, name) * pace for name in rates},
        **{name: scaled(getattr(metrics, name)) for name in latencies},
    )


def play_study(truth: Truth, seed: int, budget: Budget) -> tuple[Verdict, ...]:
    """One study by advisor's own sampler to its end, by workload."""
    problem, n_workloads, value = truth.problem, len(truth.problem.workloads), value_of(truth.problem)
    proposer, records = own_proposer(problem), list[TrialRecord]()

    def launch(config: ServingConfig, role: Role, expected_gain: float | None = None) -> None:
        record = truth.launch(config, len(records))
        records.append(changed(record, role=role, expected_gain=expected_gain))

    launch(problem.baseline, "baseline")
    while len(records) < search_launches(budget, n_workloads):
        if no_gain_expected(expected_gains(records), noise(repeats(records, value))):
            break
        if is_drift_check_due(records):
            launch(problem.baseline, "baseline")
            continue
        try:
            proposal = proposer.propose(records, seed)
        except BadInput:
            break
        launch(proposal.config, "search", proposal.expected_gain)
    race = Race(proposer.sought, default_config(dialect(problem.deployment.engine_version)))
    end = budget.max_launches if confirmation_launches(budget, n_workloads) else len(records)
    while (repeat := race.next(records, end - len(records))) is not None:
        launch(repeat.config, "confirmation")
    prior = proposer.sought.prior.over_grid()
    p_fits = proposer.frontier(records).p_fits(prior.margin_slopes, prior.margin_gib)
    return tuple(_judged(truth, race, records, workload, p_fits) for workload in problem.workloads)


def _judged(truth: Truth, race: Race, records: list[TrialRecord], workload: Workload, p_fits: Array) -> Verdict:
    decision, gain = race.decision(records, workload), truth.problem.objective.gain
    if decision.standing is None or decision.winner is None or decision.p_best is None:
        return NOTHING
    config = decision.standing.config
    value = truth.value(config, workload)
    assert value is not None, "the winner was measured"
    launched = {record.config for record in records if truth.excess(record.config, workload) <= 0}
    values = [found for found in (truth.value(each, workload) for each in launched) if found is not None]
    return Verdict(
        p_best=decision.p_best,
        announced=len(decision.standing.values) > 1 and decision.p_best >= LEVEL,
        better=max((gain(each, value) - 1 for each in values), default=0.0),
        regret=1 - gain(value, truth.best(workload)),
        expected_distance=race.expected_distance(records, workload, decision.winner, p_fits),
        breaks=breaks(truth, config, workload),
        covered=_covered(truth, records, config, workload),
        n_launches=len(records),
    )


def _covered(truth: Truth, records: list[TrialRecord], winner: ServingConfig, workload: Workload) -> bool | None:
    """True where the interval of the gain, from the confirmation alone, holds the true gain."""
    problem = truth.problem
    again = [record for record in records if record.role == "confirmation"]
    values = {each.config: each.values for each in standings(again, workload.name, problem.objective, problem.slo)}
    ours, theirs = values.pop(winner, ()), values.pop(problem.baseline, ())
    interval = ratio_interval(ours, theirs, list(values.values()))
    base, best = truth.value(problem.baseline, workload), truth.value(winner, workload)
    if interval is None or base is None or best is None:
        return None
    return interval.low <= best / base <= interval.high
