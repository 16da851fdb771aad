"""From a server that came up to its end: HTTP, the executor loop, signals, and the ways in which serving ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from advisor.twin.scheduler import SchedulerSettings
from advisor.twin.step_times import StepTimes
from tests.standin import explain
from tests.standin.api import Api
from tests.standin.context import Context
from tests.standin.dial import Fault
from tests.standin.engine import Engine
from tests.standin.http import Connection
from tests.standin.memory import Law, LoadMemory, OutOfMemory, RankMemory
from tests.standin.scheduler import Scheduler
from tests.standin.startup import Started
from tests.standin.workers import Workers

SEGFAULT_EXIT = 139
_LOOK_AGAIN_S = 0.02


@dataclass(frozen=True)
class Ended:
    """How serving ended; `signal` where one asked for it."""

    outcome: str
    exit_code: int
    signal: int | None = None


class Serving:
    """One server, up."""

    def __init__(
        self, context: Context, started: Started, times: StepTimes, law: Law, ranks: list[RankMemory], workers: Workers
    ) -> None:
        self.context, self.started, self.times, self.law = context, started, times, law
        self.ranks, self.workers, self.log = ranks, workers, context.log
        self.ended: asyncio.Future[Ended] | None = None
        self.n_signals = 0

    async def run(self, listener: socket.socket, ready: Callable[[], None]) -> Ended:
        """Serve until a signal, a crash, or a worker's death."""
        loop = asyncio.get_running_loop()
        self.ended = loop.create_future()
        engine = self._engine()
        api = self.api(engine)
        connections: set[Connection] = set()
        server = await loop.create_server(
            lambda: Connection(api.route, self.log.raw, connections), sock=listener, backlog=2048
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        steps = loop.create_task(engine.run())
        steps.add_done_callback(self._loop_ended)
        self._child_ended()  # one may have ended before anybody listened
        ready()
        ended = await self.ended
        server.close()
        if ended.signal is not None:
            await self._let_finish(connections)
        for connection in list(connections):
            connection.close()
        steps.cancel()
        return ended

    def api(self, engine: Engine) -> Api:
        """The routes."""
        return Api(self.context, self.started, engine)

    async def _let_finish(self, connections: set[Connection]) -> None:
        """As uvicorn does: answers under way are waited for, however long, unless a second signal comes."""
        self.log.raw("INFO:     Shutting down")
        if any(connection.exchange for connection in connections):
            self.log.raw("INFO:     Waiting for connections to close. (CTRL+C to force quit)")
        while any(connection.exchange for connection in connections) and self.n_signals < 2:
            await asyncio.sleep(_LOOK_AGAIN_S)
        self.log.raw("INFO:     Waiting for application shutdown.")
        self.log.raw(f"INFO:     Application shutdown complete.\nINFO:     Finished server process [{os.getpid()}]")

    def _engine(self) -> Engine:
        s = self.context.settings
        forced = self.context.faults.get("oom", stage="serve")
        memory = LoadMemory(self.law, self.ranks, each_its_own=s.attention_dp, forced=forced)
        scheduler = Scheduler(
            self.times,
            SchedulerSettings(
                max_batch_size=s.max_batch_size,
                max_num_tokens=s.max_num_tokens,
                kv_tokens=self.started.kv_tokens,
                graph_sizes=self.started.graph_sizes,
                graph_padding=s.graph_padding,
                chunked_prefill=s.chunked_prefill,
                overlap=s.overlap,
                n_ranks=s.tp if s.attention_dp else 1,
                tokens_per_block=s.tokens_per_block,
                stream_interval=s.stream_interval,
            ),
            reuse=s.block_reuse and os.environ.get("FORCE_DETERMINISTIC") != "1",
            check_rows=memory.check,
        )
        return Engine(self.context, scheduler, self._out_of_memory, self._crash)

    def _end(self, ended: Ended) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(ended)

    def _asked_to_stop(self, number: int) -> None:
        """uvicorn ends in order and then raises the signal again; click makes 1 of an interrupt."""
        self.n_signals += 1
        code = 1 if number == signal.SIGINT else -number
        self._end(Ended(f"stopped by {signal.Signals(number).name}", code, number))

    def _child_ended(self) -> None:
        dead = self.workers.dead()
        if dead:
            self.log.raw("-" * 74)
            self.log.raw(f"mpirun noticed that process rank {dead[0]} exited on signal 9 (Killed).\n{'-' * 74}")
            self._end(Ended("worker died", 1))

    def _loop_ended(self, steps: asyncio.Task[None]) -> None:
        if not steps.cancelled() and steps.exception() is not None:
            self._end(Ended("bug in the stand-in", 70))
            raise steps.exception() or RuntimeError

    def _out_of_memory(self, error: OutOfMemory) -> None:
        explain.loop_died(self.log, error)
        if self.context.settings.release.dies_with_loop:
            self._end(Ended("out of memory: serve", 1))

    def _crash(self, fault: Fault) -> None:
        """The process is gone in the middle of whatever it was sending."""
        if fault["kind"] == "host_kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.log.raw(f"[{os.uname().nodename}:{os.getpid()}] *** Process received signal ***")
        self.log.raw(f"[{os.uname().nodename}:{os.getpid()}] Signal: Segmentation fault (11)")
        os._exit(SEGFAULT_EXIT)
