"""The streaming load client: sends the requests of one benchmark, closed or open loop, and records every answer.

One thread, one event loop, one connection per lane. Everything on the hot path happens in the callbacks of
`stream.Connection`; the coroutine that waits wakes a few dozen times per run. The clock is `time.monotonic`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from advisor.domain.errors import EngineFailed
from advisor.domain.ports import PartialResult, Stop
from advisor.load.pulse import Pulse
from advisor.load.record import StreamRecord
from advisor.load.requests import Load
from advisor.load.run import LoadRun, shortfall
from advisor.load.stream import READ_BYTES, Connection
from advisor.load.target import Target

LOOKS = 50  # times that a run tells where it stands, if its requests end evenly
LOOK_INTERVAL_S = 10.0  # and at least so often
ASK_INTERVAL_S = 0.1
MAX_CONNECTING = 256  # at once; a server's backlog is finite
SPARE_FILES = 64
MOST_WRONG = 64  # answers that are wrong in good order, until the rest is not worth sending


def run_load(
    target: Target,
    load: Load,
    stop: Stop,
    on_progress: Callable[[PartialResult], None] = lambda partial: None,
    is_dead: Callable[[], bool] = lambda: False,
) -> LoadRun:
    """Send all requests of a load and wait for their answers.

    Args:
        target: The server.
        load: What to send; a closed loop keeps `concurrency` requests in flight, an open loop sends on time.
        stop: Sees partial results a few dozen times; True ends the run and closes what is open.
        on_progress: Sees the same.
        is_dead: Asked ten times a second, so that nobody waits for a server of which more is known here than it says.

    Raises:
        EngineFailed: the server cannot be reached, hangs up, falls silent, or is dead. The first such trouble ends the
            run.
    """
    allow_open_files(must=load.nominal_open, may=load.n_requests)

    async def run() -> LoadRun:
        with _signals_between_callbacks(asyncio.get_running_loop()):
            return await _Run(target, load, stop, on_progress, is_dead).run()

    return asyncio.run(run())


@contextmanager
def _signals_between_callbacks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have this process's own handlers of SIGINT and SIGTERM called by the loop, and not in the middle of a task.

    A handler that raises, to end everything at once, would else leave half a connection that nobody can close.
    """
    own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    kept = {number: handler for number, handler in own.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or signal.default_int_handler in kept.values():
        kept = {}
    for number, handler in kept.items():
        loop.add_signal_handler(number, handler, number, None)
    try:
        yield
    finally:
        for number, handler in kept.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def allow_open_files(must: int, may: int) -> None:
    """Raise this process's limit of open files for `must` connections at once, and for up to `may` where that is free.

    Raises:
        EngineFailed: the hard limit is too low for what must be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    if most < must + SPARE_FILES:
        raise EngineFailed(
            f"The load needs {must + SPARE_FILES:,} open files and this process may have {most:,}: raise the hard "
            "limit (ulimit -Hn, or LimitNOFILE of the service) or lower the concurrency."
        )
    wanted = min(max(must, may) + SPARE_FILES, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Run:
    """State of one run. `heard`, `on_answer` and `on_lost` are called by its connections."""

    def __init__(
        self,
        target: Target,
        load: Load,
        stop: Stop,
        on_progress: Callable[[PartialResult], None],
        is_dead: Callable[[], bool],
    ) -> None:
        self.target, self.load, self.stop, self.on_progress, self.is_dead = target, load, stop, on_progress, is_dead
        self.records = tuple(StreamRecord() for _ in load.requests)
        self.shortfalls: dict[int, str] = {}
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.in_flight: dict[Connection, int] = {}
        self.connections: set[Connection] = set()
        self.idle: list[Connection] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.next_place = 0
        self.n_done = self.n_chunks = self.peak_open = 0
        self.sent_ms, self.first_token_ms, self.done_ms = np.full((3, load.n_requests), np.nan)
        self.n_output = np.zeros(load.n_requests, np.int64)
        self.open_ms = self.accounted_ms = 0.0
        self.mean_open: float | None = None
        self.ended_by: str | None = None
        self.trouble: EngineFailed | None = None
        self.closing = False
        self.heard_ms = self.looked_ms = self.asked_ms = 0.0

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> LoadRun:
        self.loop = asyncio.get_running_loop()
        self.wake = asyncio.Event()
        self.start_s = self.loop.time()
        pulse = Pulse(self.loop, self.on_beat)
        try:
            await self.connect_lanes()
            self.start_s = self.loop.time()
            self.heard_ms = self.looked_ms = self.asked_ms = self.accounted_ms = 0.0
            pulse.restart()
            self.send_first()
            await self.watch()
            return LoadRun(
                records=self.records,
                shortfalls=self.shortfalls,
                ended_by=self.ended_by,
                start_s=self.start_s,
                duration_s=self.now_ms() / 1e3,
                peak_open=self.peak_open,
                mean_open=self.mean_open,
                lag_p99_ms=pulse.lag_p99_ms(),
                cpu_share=pulse.cpu_share(),
            )
        finally:
            pulse.stop()
            await self.close()

    async def watch(self) -> None:
        """Wait for the end; look at the run now and then on the way."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            if self.trouble is not None:
                raise self.trouble
            if self.n_done == self.load.n_requests or self.ended_by:
                return
            self.looked_ms = self.now_ms()
            partial = self.partial()
            self.on_progress(partial)
            if self.stop(partial):
                self.ended_by = "stop"
                return

    def partial(self) -> PartialResult:
        """Where the run stands; only what is in flight is read anew, the rest was noted as it ended."""
        tokens_a_chunk = float(self.n_output.sum()) / max(1, self.n_chunks)  # of what ended; before that a guess
        n_output = self.n_output.copy()
        for place in self.in_flight.values():
            self.note(place)
            so_far = len(self.records[place].chunk_ms) * max(1.0, tokens_a_chunk)
            n_output[place] = min(so_far, self.load.osl[place])
        return PartialResult(
            elapsed_s=max(self.looked_ms, 1e-3) / 1e3,
            sent_ms=self.sent_ms,
            first_token_ms=self.first_token_ms,
            done_ms=self.done_ms,
            n_output=n_output,
            osl=self.load.osl,
        )

    def note(self, place: int) -> None:
        record = self.records[place]
        self.sent_ms[place], self.first_token_ms[place] = record.sent_ms, record.first_token_ms

    async def close(self) -> None:
        """Close every connection and wait until it is gone."""
        self.closing = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in self.connections:
            connection.abort()
        while self.connections:
            await asyncio.sleep(0)

    def now_ms(self) -> float:
        return (self.loop.time() - self.start_s) * 1e3

    def end(self, trouble: str) -> None:
        """The server cannot be measured: nothing else is waited for."""
        self.trouble = self.trouble or EngineFailed(trouble)
        self.wake.set()

    # -- sending ---------------------------------------------------------------------------------------------------

    async def connect_lanes(self) -> None:
        """Open the connections of a closed loop, before the clock starts."""
        for first in range(0, self.load.nominal_open, MAX_CONNECTING):
            n_now = min(MAX_CONNECTING, self.load.nominal_open - first)
            opened = await asyncio.gather(*(self.connect() for _ in range(n_now)), return_exceptions=True)
            for result in opened:
                if isinstance(result, BaseException):
                    raise result
                self.idle.append(result)

    async def connect(self) -> Connection:
        host, port = self.target.host, self.target.port
        opening = self.loop.create_connection(lambda: Connection(self), host, port)
        try:
            _, connection = await asyncio.wait_for(opening, self.target.silence_timeout_s)
        except asyncio.TimeoutError:
            text = f"no answer within {self.target.silence_timeout_s:g} s"
            raise EngineFailed(f"No connection to {host}:{port}: {text}. Is the server up?") from None
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            raise EngineFailed(f"No connection to {host}:{port}: {text}. Is the server up?") from None
        if not connection.reusable:  # lost before this coroutine came to know of it
            raise EngineFailed(f"The server at {host}:{port} closed a connection as soon as it was open.")
        self.connections.add(connection)
        return connection

    def send_first(self) -> None:
        if self.load.send_ms is not None:
            self.send_due()
            return
        for _ in range(self.load.nominal_open):  # a lane that was lost meanwhile is opened again
            self.send_next(self.idle.pop() if self.idle else None)

    def send_next(self, connection: Connection | None) -> None:
        """Send the next request, on this connection if it still serves, else on a new one."""
        if self.next_place < self.load.n_requests and not (self.ended_by or self.trouble):
            self.next_place += 1
            self.send(self.next_place - 1, connection)

    def send_due(self) -> None:
        """Open loop: send what is due, and come back when the next request is."""
        assert self.load.send_ms is not None
        while self.next_place < self.load.n_requests and not (self.closing or self.ended_by or self.trouble):
            due_ms = float(self.load.send_ms[self.next_place])
            if due_ms > self.now_ms():
                self.loop.call_at(self.start_s + due_ms / 1e3, self.send_due)
                return
            self.send_next(self.idle.pop() if self.idle else None)

    def send(self, place: int, connection: Connection | None) -> None:
        if connection is None or not connection.reusable:
            task = self.loop.create_task(self.send_anew(place))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        now_ms = self.account()
        if not self.in_flight:
            self.heard_ms = now_ms
        self.in_flight[connection] = place
        self.peak_open = max(self.peak_open, len(self.in_flight))
        if place == self.load.n_requests - 1 and self.peak_open <= place:
            self.mean_open = self.open_ms / now_ms
        connection.send(self.load.requests[place], self.records[place], now_ms)

    def account(self) -> float:
        """Add up the requests in flight over time, up to now."""
        now_ms = self.now_ms()
        self.open_ms += len(self.in_flight) * (now_ms - self.accounted_ms)
        self.accounted_ms = now_ms
        return now_ms

    async def send_anew(self, place: int) -> None:
        try:
            self.send(place, await self.connect())
        except EngineFailed as error:
            self.end(str(error))

    # -- told by the connections -----------------------------------------------------------------------------------

    def heard(self) -> float:
        self.heard_ms = self.now_ms()
        return self.heard_ms

    def on_answer(self, connection: Connection, record: StreamRecord) -> None:
        if self.closing:
            return
        self.account()
        place = self.in_flight.pop(connection)
        self.n_done += 1
        self.note(place)
        self.done_ms[place], self.n_output[place] = record.done_ms, record.n_output or 0
        self.n_chunks += len(record.chunk_ms)
        wrong = shortfall(record, int(self.load.isl[place]), int(self.load.osl[place]))
        if wrong is not None:
            self.shortfalls[place] = wrong
            if record.alarm or len(self.shortfalls) >= MOST_WRONG:
                self.ended_by = self.ended_by or "wrong"
        if self.ended_by or self.n_done % max(1, self.load.n_requests // LOOKS) == 0:
            self.wake.set()
        if self.load.send_ms is None:
            self.send_next(connection)
        elif connection.reusable:
            self.idle.append(connection)
        if self.n_done == self.load.n_requests:
            self.wake.set()

    def on_lost(self, connection: Connection, record: StreamRecord | None, error: Exception | None) -> None:
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if self.closing or record is None:
            return
        self.account()
        place = self.in_flight.pop(connection)
        if connection.may_retry:
            self.send(place, None)
            return
        how = f"reset it ({error})" if error else "closed it without an answer"
        self.end(f"The server at {self.target.host}:{self.target.port} took a request and {how}.")

    def on_beat(self) -> None:
        """Find a server that is silent, and see to it that a slow run is looked at."""
        now_ms = self.now_ms()
        if now_ms - self.looked_ms > LOOK_INTERVAL_S * 1e3:
            self.wake.set()
        if not self.in_flight:
            return
        if now_ms - self.asked_ms > ASK_INTERVAL_S * 1e3:
            self.asked_ms = now_ms
            if self.is_dead():
                self.end("The server has died.")
                return
        open_ms = now_ms - self.records[next(iter(self.in_flight.values()))].sent_ms  # the oldest: dicts keep order
        if now_ms - self.heard_ms > self.target.silence_timeout_s * 1e3:
            self.end(
                f"The server has said nothing for {self.target.silence_timeout_s:g} s with {len(self.in_flight):,} "
                "requests open."
            )
        elif open_ms > self.target.request_timeout_s * 1e3:
            self.end(f"A request has been open for more than {self.target.request_timeout_s:g} s.")
