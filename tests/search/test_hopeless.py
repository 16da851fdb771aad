"""When a benchmark is stopped: never one that would have won, and soon one that is far behind."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.objective import COST, Objective, Slo, parse_slo
from advisor.domain.outcome import Hopeless, Measured
from advisor.domain.ports import Asked, Incumbent
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.metrics.definitions import compute
from advisor.search.hopeless import SURE, Watch, incumbents
from tests.metrics.runs import closed_loop, seen_at
from tests.store.servers import BASELINE, measurement, record

LANES, N, NOISE = 8, 64, 0.01
THROUGHPUT = Objective(metric="output_tok_per_s")
A, B = parse_workload("1k1k_c8"), parse_workload("4k1k_c8")


@functools.cache
def play(
    seed: int, pace: float, value: float, objective: Objective = THROUGHPUT, slo: Slo | None = None
) -> tuple[Watch, float, float]:
    """A run watched twenty-five times: the watch, the share of its time that it took, and the value at its end."""
    sent, done, tokens = closed_loop(np.random.default_rng(seed), LANES, N, ms_per_token=10 * pace, noise=0.02)
    first = sent + 0.1 * (done - sent)
    watch = Watch(
        Incumbent(workload=A.name, value=value, log_noise=NOISE), objective, slo or Slo(), n_gpus=1, concurrency=LANES
    )
    ended = objective.value(compute(sent, first, done, tokens, 1, slo=slo))
    assert ended is not None
    for share in np.linspace(0.04, 1, 25):
        if watch(seen_at(share * float(done.max()), sent, first, done, tokens)):
            return watch, float(share), ended
    return watch, 1.0, ended


NORMAL = play(0, 1.0, 1e-9)[2]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), pace=st.floats(0.5, 4.0), metric=st.sampled_from(["output_tok_per_s", "e2e:mean"]))
def test_what_was_stopped_would_not_have_won(seed: int, pace: float, metric: str) -> None:
    objective = Objective(metric=metric)
    to_beat = play(0, 1.0, 1e-9 if metric == "output_tok_per_s" else 1e9, objective)[2]
    watch, share, ended = play(seed, pace, to_beat, objective)
    if watch.reason is None:
        assert share == 1.0
        assert watch.so_far is None
    else:
        assert objective.gain(ended, to_beat) < 1.0
        assert watch.so_far is not None
        assert watch.so_far.n_done < N or share == 1.0


@pytest.mark.parametrize("metric", ["ttft:p95", "tpot:mean", "e2e:p50", "output_tok_per_s_per_user", COST])
def test_every_kind_of_objective_is_stopped_when_far_behind_and_never_when_ahead(metric: str) -> None:
    objective = Objective(metric=metric, gpu_price_usd_per_hour=2.0)
    to_beat = play(0, 1.0, 1e-9 if objective.direction == "maximize" else 1e9, objective)[2]
    assert play(1, 1.6, to_beat, objective)[1] < 0.7
    assert play(1, 0.9, to_beat, objective)[0].reason is None


@pytest.mark.parametrize(("pace", "latest"), [(1.15, 0.75), (1.5, 0.5), (4.0, 0.45)])
def test_the_further_behind_the_sooner_it_is_stopped(pace: float, latest: float) -> None:
    shares = [play(seed, pace, NORMAL)[1] for seed in range(10)]
    assert float(np.median(shares)) <= latest


def test_what_it_showed_is_near_to_what_it_would_have_come_to() -> None:
    watch, share, ended = play(1, 1.5, NORMAL)
    assert share < 1
    assert watch.so_far is not None
    assert watch.so_far.interval is not None
    assert not watch.so_far.bound
    assert watch.so_far.metrics.output_tok_per_s == pytest.approx(ended, rel=0.1)
    assert watch.so_far.interval[1] * math.exp(SURE * NOISE) < NORMAL
    assert "output_tok_per_s of at most" in (watch.reason or "")


def test_before_the_first_batch_only_what_is_certain_stops_a_run_and_a_bound_is_kept() -> None:
    sent, done, tokens = closed_loop(np.random.default_rng(1), LANES, N, ms_per_token=1000)
    watch = Watch(
        Incumbent(workload=A.name, value=NORMAL, log_noise=NOISE), THROUGHPUT, Slo(), n_gpus=1, concurrency=LANES
    )
    certain_ms = tokens.sum() / NORMAL * 1e3 * math.exp(SURE * NOISE)
    assert not watch(seen_at(0.99 * certain_ms, sent, sent, done, tokens))
    assert watch(seen_at(1.01 * certain_ms, sent, sent, done, tokens))
    assert watch.so_far is not None
    assert (watch.so_far.bound, watch.so_far.interval, watch.so_far.n_done) == (True, None, 0)


@pytest.mark.parametrize("slo", ["ttft:p95<200ms", "ttft:mean<200ms"])
def test_a_limit_that_cannot_be_kept_ends_a_run_however_fast_it_is(slo: str) -> None:
    watch, share, _ = play(1, 1.0, NORMAL / 3, slo=parse_slo(slo))
    assert share < 0.5
    assert slo.partition("<")[0] in (watch.reason or "")
    assert play(1, 1.0, NORMAL / 3, slo=parse_slo("ttft:p95<900ms"))[0].reason is None


def trial(number: int, a: float, b: float, ttft_ms: float = 100.0) -> TrialRecord:
    asked = Asked(number=number, config=changed(BASELINE, max_batch_size=8 + number), role="search", origin="")
    return record(asked, Measured(), measurement(a, ttft_ms, A.name), measurement(b, ttft_ms, B.name))


def test_with_one_workload_the_best_that_keeps_the_limits_is_to_beat() -> None:
    history = [trial(0, 100, 1), trial(1, 120, 1), trial(2, 900, 1, ttft_ms=5000)]
    (found,) = incumbents(history, [A], Objective(), parse_slo("ttft:p95<1s"))
    assert (found.workload, found.slack) == (A.name, 1.0)
    assert found.value == pytest.approx(120)
    assert incumbents(history[2:], [A], Objective(), parse_slo("ttft:p95<1s")) == (), "nothing kept them"


def test_with_several_workloads_as_much_may_be_lost_as_the_robust_one_loses() -> None:
    history = [trial(0, 100, 40), trial(1, 80, 80), trial(2, 40, 100)]
    found = incumbents(history, [A, B], Objective(), Slo())
    assert [each.value for each in found] == pytest.approx([100, 100])
    assert [each.slack for each in found] == pytest.approx([1.25, 1.25])


def test_until_something_serves_every_workload_nothing_is_to_beat() -> None:
    only_a = changed(trial(0, 100, 1), workloads=(measurement(100, 1, A.name),), outcome=Hopeless(reason="B"))
    stopped = WorkloadOutcome(workload=B.name, metrics=None, seed=0, stopped_early=True)
    history = [only_a, changed(only_a, number=1, workloads=(*only_a.workloads, stopped))]
    assert incumbents(history, [A, B], Objective(), Slo()) == ()
    assert [each.workload for each in incumbents(history, [A], Objective(), Slo())] == [A.name]


def test_where_the_load_is_searched_nothing_is_stopped() -> None:
    slo, goodput = parse_slo("ttft:p95<1s"), Objective(metric="goodput")
    served = changed(trial(0, 1, 1).workloads[0], workload=A.name)
    assert served.metrics is not None
    served = changed(served, metrics=changed(served.metrics, goodput_request_per_s=3.0))
    history = [changed(trial(0, 1, 1), workloads=(served,))]
    assert incumbents(history, [A], goodput, slo) == ()
    rate = parse_workload("1k1k_r2")
    by_rate = [changed(history[0], workloads=(changed(served, workload=rate.name),))]
    assert [each.value for each in incumbents(by_rate, [rate], goodput, slo)] == pytest.approx([3.0])
