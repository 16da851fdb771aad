"""Whole studies against drawn truths: drift moves what it says, and targets follow from verdicts."""

from __future__ import annotations

import dataclasses
import math

import pytest

from advisor.domain.study import Budget
from benchmarks.confidence import lines, targets
from benchmarks.search.truths import draw_truth
from benchmarks.search.whole import Drifting, Verdict, play_study

pytestmark = pytest.mark.xdist_group("search truths")

GOOD = Verdict(0.97, True, better=0.0, regret=0.01, expected_distance=0.02, breaks=False, covered=True, n_launches=20)


def test_a_drift_moves_rates_and_times_of_later_launches_alike() -> None:
    truth = draw_truth("right-form", 2)
    config, (workload,) = truth.problem.baseline, truth.problem.workloads
    steady = truth.launch(config, 12).workload(workload.name)
    moved = Drifting(truth, math.log(1.1)).launch(config, 12).workload(workload.name)
    assert steady is not None and moved is not None and steady.metrics is not None and moved.metrics is not None
    assert moved.metrics.output_tok_per_s == pytest.approx(steady.metrics.output_tok_per_s * math.sqrt(1.1))
    assert moved.metrics.ttft_ms.p95 == pytest.approx(steady.metrics.ttft_ms.p95 / math.sqrt(1.1))
    assert Drifting(truth, 0.1).launch(config, 0) == truth.launch(config, 0)


def test_a_study_keeps_its_budget_and_says_what_it_is_sure_of() -> None:
    (verdict,) = play_study(draw_truth("right-form", 2), 2, Budget(max_launches=9))
    assert verdict.n_launches <= 9
    assert verdict.p_best is not None and 0 <= verdict.p_best <= 1
    assert verdict.honest == (verdict.better <= 0.01)
    assert verdict.expected_distance is not None and verdict.expected_distance >= 0


def test_targets_follow_from_verdicts() -> None:
    lying = dataclasses.replace(GOOD, better=0.02)
    silent = dataclasses.replace(GOOD, announced=False, p_best=0.9)
    assert all(targets("right-form", [GOOD, silent]).values())
    assert list(targets("right-form", [GOOD, lying]).values()) == [False, True, True]
    assert list(targets("right-form", [silent, silent, GOOD]).values()) == [True, True, False]
    assert list(targets("tight", [dataclasses.replace(GOOD, breaks=True)]).values()) == [True, False]
    assert any("announced 1 of 2, honest 1 of 1" in line for line in lines("right-form", [GOOD, silent]))
