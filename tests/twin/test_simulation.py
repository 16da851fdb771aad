"""Gaps between stream events, by hand and by the law that they add up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from advisor.twin.scheduler import SchedulerSettings, simulate
from advisor.twin.simulation import Simulation, gaps_ms, itl_ms
from advisor.twin.step_times import StepTimes

MakeTimes = Callable[..., StepTimes]


def made_up(ends_ms: list[float], counts: list[int], running: list[int]) -> Simulation:
    nothing = np.zeros(0)
    return Simulation(
        arrival_ms=nothing,
        first_token_ms=nothing,
        done_ms=nothing,
        n_output=np.zeros(0, dtype=np.int64),
        n_finished=0,
        stopped=False,
        duration_ms=ends_ms[-1] if ends_ms else 0.0,
        n_steps=sum(counts),
        n_iterations=len(counts),
        peak_running=max(running, default=0),
        mean_running=0.0,
        prefill_share=0.0,
        kv_share=0.0,
        batch_share=0.0,
        tokens_share=0.0,
        host_share=0.0,
        http_share=None,
        step_end_ms=np.array(ends_ms),
        step_count=np.array(counts, dtype=np.int64),
        step_running=np.array(running, dtype=np.int64),
    )


def test_gaps_are_weighted_by_the_requests_that_see_them() -> None:
    # Ten steps of 2 ms seen by three requests, ten of 5 ms seen by one.
    gaps = itl_ms(made_up([20.0, 70.0], [10, 10], [3, 1]))
    assert float(np.mean(gaps == 2.0)) == pytest.approx(0.75, abs=0.01)
    assert float(np.mean(gaps == 5.0)) == pytest.approx(0.25, abs=0.01)


def test_an_event_of_four_tokens_spans_four_steps() -> None:
    gaps = itl_ms(made_up([2000.0, 2500.0], [1000, 100], [4, 4]), stream_interval=4)
    assert float(np.median(gaps)) == pytest.approx(8.0)
    assert float(gaps.max()) == pytest.approx(20.0)


def test_nothing_ran_or_too_little_for_one_gap() -> None:
    assert itl_ms(made_up([], [], [])).size == 0
    assert itl_ms(made_up([2.0], [3], [1]), stream_interval=4).size == 0
    assert itl_ms(made_up([2.0, 4.0], [3, 3], [0, 0])).size == 0


@pytest.mark.parametrize("stream_interval", [1, 4, 10])
def test_mean_gap_is_the_interval_times_the_mean_tpot(make_times: MakeTimes, stream_interval: int) -> None:
    times = make_times(decode_ms=3.0, per_row_ms=0.1, per_kv_token_ms=1e-5)
    settings = SchedulerSettings(
        max_batch_size=32, max_num_tokens=4096, kv_tokens=10**6, stream_interval=stream_interval
    )
    run = simulate(times, settings, [500] * 200, [300] * 200, concurrency=32)
    tpot = float(((run.done_ms - run.first_token_ms) / (run.n_output - 1)).mean())
    assert float(itl_ms(run, stream_interval).mean()) == pytest.approx(stream_interval * tpot, rel=0.02)


@pytest.mark.parametrize("stream_interval", [1, 4])
def test_the_gaps_of_a_request_run_from_its_first_to_its_last_token(
    make_times: MakeTimes, stream_interval: int
) -> None:
    settings = SchedulerSettings(max_batch_size=4, max_num_tokens=512, kv_tokens=10**6, stream_interval=stream_interval)
    osl = np.array([9, 17, 33, 5, 1, 21])
    arrival = np.array([0.0, 3.0, 40.0, 41.0, 900.0, 5000.0])  # the last ones meet an idle server
    times = make_times(decode_ms=2.0, per_token_ms=0.01, per_kv_token_ms=0.0001)
    run = simulate(times, settings, np.full(6, 300), osl, concurrency=6, arrival_ms=arrival)
    walked = simulate(times, settings, np.full(6, 300), osl, concurrency=6, arrival_ms=arrival, jump=False)
    for place, (gaps, exact) in enumerate(
        zip(gaps_ms(run, stream_interval), gaps_ms(walked, stream_interval), strict=True)
    ):
        assert len(gaps) == len(exact) == (osl[place] - 1) // stream_interval
        assert gaps.sum() == pytest.approx(exact.sum(), rel=1e-3), "a run of steps has its mean time"
        if stream_interval == 1:
            assert gaps.sum() == pytest.approx(float(run.done_ms[place] - run.first_token_ms[place]))
