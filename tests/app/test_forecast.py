"""Scores order the grid, limits come before gains, and memory slopes of many configurations are those of each."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.app.setup import Question, resolve
from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.workload import parse_workload
from advisor.search.space import all_configs

RESOLVED = resolve(Question(study="llama4-maverick-fp8-h100", workloads=("1k1k", "4k1k_c256")))
FORECASTER = Forecaster(RESOLVED.deployment, RESOLVED.workloads)
SAMPLE = all_configs(RESOLVED.space)[::701]


def test_slopes_of_many_are_those_of_each() -> None:
    margins, rows = FORECASTER.slopes(SAMPLE)
    for place in range(0, len(SAMPLE), 9):
        margin, row = FORECASTER.slopes([SAMPLE[place]])
        assert margin[0] == pytest.approx(margins[place])
        assert row[0] == pytest.approx(rows[place])
        assert margin[0].min() == pytest.approx(float(FORECASTER.budget(SAMPLE[place]).headroom_gib))


def test_the_margin_is_never_more_hopeful_than_that_of_any_single_workload() -> None:
    margins, _ = FORECASTER.slopes(SAMPLE)
    for workload in RESOLVED.workloads:
        alone, _ = Forecaster(RESOLVED.deployment, (workload,)).slopes(SAMPLE)
        assert np.all(margins <= alone + 1e-9)


def test_best_first_orders_and_leaves_out_what_cannot_serve() -> None:
    assert best_first(np.array([0.1, np.nan, 0.3, -np.inf])) == [2, 0]


def test_a_kept_limit_outranks_any_gain() -> None:
    workload = parse_workload("1k1k")
    ranking = FORECASTER.rank(SAMPLE, workload)
    slo = parse_slo("tpot:mean<15ms")
    order = best_first(log_scores(ranking, Objective(), slo, workload))
    kept = [bool(ranking.tpot_ms[place] <= 15) for place in order]
    assert any(kept) and not all(kept)
    assert kept == sorted(kept, reverse=True)
    free = best_first(log_scores(ranking, Objective(), Slo(), workload))
    assert np.all(np.diff(ranking.output_tok_per_s[free]) <= 0)


def test_latency_objectives_are_minimised() -> None:
    workload = parse_workload("1k1k")
    ranking = FORECASTER.rank(SAMPLE, workload)
    order = best_first(log_scores(ranking, Objective(metric="tpot:mean"), Slo(), workload))
    assert np.all(np.diff(ranking.tpot_ms[order]) >= 0)
