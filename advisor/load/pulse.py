"""The client's own pulse: how late its timer fires and how much of a core it uses; and when it was itself the limit."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

import numpy as np
from pydantic import Field

from advisor.domain.measurement import ClientReport
from advisor.domain.strict import StrictModel

PERIOD_S = 0.01


class Pulse:
    """A timer on a fixed grid, and the CPU time of this thread.

    A loop that is busy for 100 ms misses ten beats, not one: each beat that was due meanwhile counts with its lateness.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_beat: Callable[[], None]) -> None:
        self._loop = loop
        self._on_beat = on_beat
        self._timer: asyncio.TimerHandle | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the past and beat from now on."""
        self.stop()
        self._lag_s = array("d")
        self._cpu_s, self._start_s = time.thread_time(), self._loop.time()
        self._due_s = self._start_s + PERIOD_S
        self._timer = self._loop.call_at(self._due_s, self._beat)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now_s = self._loop.time()
        while self._due_s <= now_s:
            self._lag_s.append(now_s - self._due_s)
            self._due_s += PERIOD_S
        self._timer = self._loop.call_at(self._due_s, self._beat)
        self._on_beat()

    def lag_p99_ms(self) -> float:
        """99th percentile of the lateness of all beats."""
        return float(np.percentile(self._lag_s, 99)) * 1e3 if self._lag_s else 0.0

    def cpu_share(self) -> float:
        """CPU time of this thread over wall time since the restart."""
        return (time.thread_time() - self._cpu_s) / max(self._loop.time() - self._start_s, 1e-9)


class ClientLimits(StrictModel):
    """Beyond any of these the client counts as saturated: it, not the server, shaped the numbers."""

    cpu_share: float = Field(default=0.8, gt=0, description="Of one core: the loop has little time left to be on time")
    lag_ms: float = Field(default=25, gt=0, description="Lateness (p99) that is always allowed")
    lag_of_ttft: float = Field(default=0.25, gt=0, description="Lateness (p99) allowed as a share of the median TTFT")
    open_share: float = Field(default=0.9, ge=0, le=1, description="Least mean of open streams, of the nominal ones")


def judge_client(
    *,
    lag_p99_ms: float,
    cpu_share: float,
    mean_open: float | None,
    nominal_open: int,
    ttft_p50_ms: float,
    limits: ClientLimits,
) -> tuple[ClientReport, tuple[str, ...]]:
    """The client's report and, where it was saturated, by what."""
    lag_limit_ms = max(limits.lag_ms, limits.lag_of_ttft * ttft_p50_ms)
    reasons = []
    if cpu_share > limits.cpu_share:
        reasons.append(f"it used {cpu_share:.0%} of a core, limit {limits.cpu_share:.0%}")
    if lag_p99_ms > lag_limit_ms:
        reasons.append(f"its loop was {lag_p99_ms:.0f} ms late (p99), limit {lag_limit_ms:.0f} ms")
    if mean_open is not None and mean_open < limits.open_share * nominal_open:
        reasons.append(f"only {mean_open:.1f} of {nominal_open:,} streams were open on average")
    report = ClientReport(loop_lag_p99_ms=lag_p99_ms, cpu_share=cpu_share, saturated=bool(reasons))
    return report, tuple(reasons)
