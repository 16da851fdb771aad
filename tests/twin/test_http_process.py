"""Streaming through a process of its own: hand arithmetic, and laws that hold whatever it costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.workload import Workload
from advisor.twin.http_process import HttpCosts, HttpProcess
from advisor.twin.predict import limited_by
from advisor.twin.scheduler import SchedulerSettings, simulate
from advisor.twin.simulation import Simulation
from advisor.twin.step_times import StepTimes
from tests.twin.conftest import QUIET

MakeTimes = Callable[..., StepTimes]
BESIDE = SchedulerSettings(max_batch_size=64, max_num_tokens=2048, kv_tokens=10**7, own_http_process=True)
LONG = Workload(isl=500, osl=256, concurrency=8)
WITHIN = replace(BESIDE, own_http_process=False)


def played(
    make_times: MakeTimes,
    beside: SchedulerSettings = BESIDE,
    *,
    request_ms: float = 0.0,
    token_ms: float = 0.0,
    chunk_ms: float = 0.0,
    step_ms: float = 0.0,
    prompt_ms: float = 0.0,
    n: int = 24,
    concurrency: int = 8,
    osl: int = 16,
    jump: bool = True,
) -> Simulation:
    constants = replace(
        QUIET,
        http_per_request_ms=request_ms,
        http_per_token_ms=token_ms,
        http_per_chunk_ms=chunk_ms,
        http_per_step_ms=step_ms,
        prompt_step_ms=prompt_ms,
        host_base_ms=0.0,
    )
    times = make_times(constants, decode_ms=4.0, per_token_ms=0.01)
    return simulate(times, beside, np.full(n, 500), np.full(n, osl), concurrency=concurrency, jump=jump)


@given(
    st.lists(st.floats(0.0, 20.0), min_size=1, max_size=8), st.floats(0.0, 9.0), st.integers(1, 30), st.integers(0, 40)
)
def test_many_equal_steps_at_once_are_as_one_by_one(
    owed_ms: list[float], step_ms: float, n_steps: int, n_tokens: int
) -> None:
    at_once, singly = (HttpProcess(HttpCosts(1.0, 0.1, step_ms=2.0, half_at=5.0)) for _ in range(2))
    for each in (at_once, singly):
        for k, sent_ms in enumerate(owed_ms):
            each.take_in(k, sent_ms)
    at_once.send(n_tokens, 5.0, step_ms, n_steps)
    for i in range(n_steps):
        singly.send(n_tokens, 5.0 + i * step_ms, step_ms)
    assert at_once.clock_ms == pytest.approx(singly.clock_ms)


def test_a_request_waits_for_no_token_of_others_but_for_turns_as_long_as_a_step_takes_it() -> None:
    process = HttpProcess(HttpCosts(request_ms=2.0, token_ms=0.5, step_ms=6.0, half_at=4.0, request_turns=5.0))
    process.take_in(0, 10.0)
    assert process.next_ms == 12.0  # idle: no loop is turning
    process.send(4, begin_ms=12.0, step_ms=3.0)
    assert process.clock_ms == 15.0 + 4 * 0.5 + 3.0
    process.take_in(1, 15.0)
    process.take_in(2, 16.0)
    assert process.passed_on(11.9) == []
    assert process.passed_on(12.0) == [0]
    assert process.next_ms == 20.0 + 2.0 + 5 * 3.0
    process.send(4, begin_ms=15.0, step_ms=3.0)
    assert process.passed_on(39.0) == [1, 2]
    assert process.next_ms == math.inf
    assert process.passed_on(1e9) == []


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(0, 40)), min_size=1, max_size=12), st.floats(0.0, 20.0))
def test_requests_reach_the_engine_once_in_order_and_not_before_they_were_sent(
    sent: list[tuple[float, int]], turns: float
) -> None:
    process, now_ms, reached = HttpProcess(HttpCosts(1.0, 0.1, 2.0, 5.0, turns)), 0.0, []
    for k, (gap_ms, n_tokens) in enumerate(sent):
        process.send(n_tokens, now_ms, gap_ms)
        now_ms += gap_ms
        process.take_in(k, now_ms)
        reached += process.passed_on(now_ms)
        assert k not in reached  # taking it in costs time
    while process.next_ms < math.inf:
        reached += process.passed_on(process.next_ms)
    assert reached == list(range(len(sent)))


@given(st.integers(1, 5000), st.floats(0.0, 1.0), st.floats(0.0, 50.0), st.floats(0.5, 100.0))
def test_the_tokens_of_a_step_cost_more_the_more_they_are_and_a_step_no_more_than_its_own(
    n_tokens: int, token_ms: float, step_ms: float, half_at: float
) -> None:
    costs = HttpCosts(1.0, token_ms, step_ms, half_at)
    assert costs.of_step(n_tokens) <= costs.of_step(n_tokens + 1) * (1 + 1e-12)
    assert n_tokens * token_ms <= costs.of_step(n_tokens) <= n_tokens * token_ms + step_ms
    assert costs.of_step(0) == 0
    assert HttpCosts(1.0, 0.0, step_ms, n_tokens).of_step(n_tokens) == pytest.approx(step_ms / 2)


def test_long_steps_leave_it_time_and_requests_spread_over_them(make_times: MakeTimes) -> None:
    """Prompts of 500 tokens in steps of 100: as many steps of prefill as answers have tokens, so prompts never rest."""
    small = replace(BESIDE, max_num_tokens=128, chunked_prefill=True)
    quick, slow = (played(make_times, small, step_ms=ms, n=64, osl=40) for ms in (0.5, 40.0))
    later = slice(32, 56)  # after the ramps
    waits = [run.first_token_ms[later] - run.arrival_ms[later] for run in (quick, slow)]
    assert np.median(waits[0]) < 0.5 * np.median(waits[1])


def test_every_step_with_prompts_takes_so_much_longer_and_no_other(make_times: MakeTimes) -> None:
    """Eight prompts of 500 tokens in steps of 2,048 beside the decodes: two steps with prompts, whatever decodes."""
    plain, longer = (played(make_times, n=8, osl=40, prompt_ms=ms) for ms in (0.0, 7.0))
    assert longer.n_steps == plain.n_steps
    assert float(longer.duration_ms - plain.duration_ms) == pytest.approx(2 * 7.0)
    np.testing.assert_allclose(longer.done_ms - longer.first_token_ms.max(), plain.done_ms - plain.first_token_ms.max())
    within = played(make_times, WITHIN, n=8, osl=40, prompt_ms=7.0)
    assert within.duration_ms == played(make_times, WITHIN, n=8, osl=40).duration_ms


def test_a_process_that_costs_nothing_changes_nothing(make_times: MakeTimes) -> None:
    beside, within = played(make_times), played(make_times, WITHIN)
    for name in ("arrival_ms", "first_token_ms", "done_ms", "duration_ms"):
        np.testing.assert_allclose(getattr(beside, name), getattr(within, name))


def test_where_sending_is_the_limit_tokens_come_at_its_rate(make_times: MakeTimes) -> None:
    run = played(make_times, token_ms=2.0, n=64, osl=64)  # 8 streams x 2 ms a token against steps of 4 ms
    rate = run.n_output.sum() / float(run.done_ms.max())
    assert 0.8 / 2.0 < rate <= 1 / 2.0
    quick = played(make_times, n=64, osl=64)
    assert float(run.done_ms.max()) > 2 * float(quick.done_ms.max())


def test_a_longer_stream_interval_takes_the_limit_away(make_times: MakeTimes) -> None:
    ends = [
        float(played(make_times, replace(BESIDE, stream_interval=interval), chunk_ms=2.0).done_ms.max())
        for interval in (1, 2, 4, 16)
    ]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < 0.6 * ends[0]


def test_answers_that_come_late_keep_the_requests_of_a_wave_together(make_times: MakeTimes) -> None:
    run = played(make_times, token_ms=1.0, n=32)
    second = run.arrival_ms[8:16]
    first_tokens = run.first_token_ms[8:16]
    assert first_tokens.min() >= second.max()  # none begins before the last answer of the wave before was sent


COSTS = st.floats(0.0, 3.0)


@given(COSTS, COSTS, COSTS, st.integers(1, 12), st.integers(1, 40), st.booleans())
@settings(max_examples=40)
def test_whatever_it_costs_every_request_is_served_in_order_and_never_sooner(
    make_times: MakeTimes,
    request_ms: float,
    token_ms: float,
    chunk_ms: float,
    concurrency: int,
    osl: int,
    jump: bool,
) -> None:
    run = played(
        make_times,
        request_ms=request_ms,
        token_ms=token_ms,
        chunk_ms=chunk_ms,
        concurrency=concurrency,
        osl=osl,
        jump=jump,
    )
    assert run.n_finished == 24
    assert (run.arrival_ms <= run.first_token_ms).all()
    assert (run.first_token_ms <= run.done_ms).all()
    open_at_once = [int(((run.arrival_ms <= t) & (run.done_ms > t)).sum()) for t in run.arrival_ms]
    assert max(open_at_once) <= concurrency
    least_ms = 24 * (request_ms + osl * (token_ms + chunk_ms))
    assert float(run.done_ms.max()) >= least_ms * (1 - 1e-9)


@given(chunk_ms=st.floats(0.6, 3.0))
@settings(max_examples=15, deadline=None)
def test_more_chunks_than_the_process_sends_are_the_limit_and_a_longer_stream_interval_is_the_remedy(
    make_times: MakeTimes, chunk_ms: float
) -> None:
    def limit(interval: int) -> str:
        beside = replace(BESIDE, stream_interval=interval)
        run = played(make_times, beside, chunk_ms=chunk_ms, n=32, osl=256)
        return limited_by(run, make_times(QUIET, decode_ms=4.0, per_token_ms=0.01), LONG)

    # Eight streams of one chunk a step of 4 ms are more than 0.5 ms a chunk can bear; one in 64 steps is not.
    assert limit(1) == "streaming"
    assert limit(64) != "streaming"


def test_what_has_no_process_of_its_own_is_never_said_to_wait_for_it(make_times: MakeTimes) -> None:
    run = played(make_times, WITHIN, chunk_ms=9.0)
    assert run.http_share is None
    assert limited_by(run, make_times(QUIET), LONG) != "streaming"
