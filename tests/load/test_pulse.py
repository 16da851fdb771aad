"""A client that is late or busy says so; the rule that calls it saturated."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from advisor.load.pulse import PERIOD_S, ClientLimits, Pulse, judge_client

HELD_S = 0.3


async def held(hold: float) -> tuple[Pulse, int]:
    """A pulse over a loop that one callback holds up for so long; and the beats it called."""
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            time.sleep(hold)
        if beats == 6:
            enough.set()

    enough = asyncio.Event()
    pulse = Pulse(asyncio.get_running_loop(), beat)
    await enough.wait()
    pulse.stop()
    return pulse, beats


def test_a_loop_that_is_held_up_is_late_by_as_much() -> None:
    pulse, beats = asyncio.run(held(HELD_S))
    assert beats == 6
    # Missed beats count one by one: 30 of some 36, from nearly nothing to nearly all of the time.
    assert pulse.lag_p99_ms() >= 0.9 * HELD_S * 1e3
    assert pulse.cpu_share() < 0.5, "waiting is no work"


def test_restarting_forgets() -> None:
    async def restarted() -> Pulse:
        pulse, _ = await held(HELD_S)
        pulse.restart()
        pulse.stop()
        return pulse

    assert asyncio.run(restarted()).lag_p99_ms() == 0.0


def test_work_of_this_thread_is_its_share_of_a_core() -> None:
    async def busy() -> float:
        pulse = Pulse(asyncio.get_running_loop(), lambda: None)
        done_s = time.thread_time() + 10 * PERIOD_S
        while time.thread_time() < done_s:
            pass
        pulse.stop()
        return pulse.cpu_share()

    assert 0 < asyncio.run(busy()) <= 1.01


FINE: dict[str, Any] = {
    "lag_p99_ms": 20.0, "cpu_share": 0.5, "mean_open": 64.0, "nominal_open": 64, "ttft_p50_ms": 10.0
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"cpu_share": 0.81}, "it used 81% of a core, limit 80%"),
        ({"lag_p99_ms": 26.0}, "its loop was 26 ms late (p99), limit 25 ms"),
        ({"lag_p99_ms": 90.0, "ttft_p50_ms": 400.0}, None),  # a quarter of 400 ms is allowed
        ({"lag_p99_ms": 110.0, "ttft_p50_ms": 400.0}, "its loop was 110 ms late (p99), limit 100 ms"),
        ({"mean_open": 57.0}, "only 57.0 of 64 streams were open on average"),
        ({"mean_open": None}, None),  # one wave: nothing to average over
        ({"mean_open": 3.0, "nominal_open": 0}, None),  # open loop: nobody says how many
    ],
)
def test_saturation(change: dict[str, Any], reason: str | None) -> None:
    report, reasons = judge_client(**{**FINE, **change}, limits=ClientLimits())
    assert reasons == (() if reason is None else (reason,))
    assert report.saturated == (reason is not None)
