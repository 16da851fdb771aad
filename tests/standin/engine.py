"""The executor loop in scaled real time: steps of the scheduler, each as long as the twin says."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.standin.context import Context
from tests.standin.dial import Fault
from tests.standin.memory import OutOfMemory
from tests.standin.scheduler import Iteration, Request, Scheduler

MAX_STATS = 1000
"""Iterations whose statistics are kept for `/metrics`."""
_WORTH_SLEEPING_S = 0.001


class Engine:
    """Runs requests. `on_death` is told of an out-of-memory error, `on_crash` when the process is to crash."""

    def __init__(
        self,
        context: Context,
        scheduler: Scheduler,
        on_death: Callable[[OutOfMemory], None],
        on_crash: Callable[[Fault], None],
    ) -> None:
        self.settings, self.scheduler = context.settings, scheduler
        self.speed, self.log, faults = context.dial.speed, context.log, context.faults
        self.on_death, self.on_crash = on_death, on_crash
        self.stats: deque[dict[str, Any]] = deque(maxlen=MAX_STATS)
        self.new_stats = asyncio.Event()
        self.dead = False
        self._work = asyncio.Event()
        self._n_tokens = 0
        self._crash = faults.get("segfault") or faults.get("host_kill", phase="serve")
        self._dead_loop = faults.get("dead_loop")
        slow = faults.get("slow_first")
        if slow:
            scheduler.slowdown_left, scheduler.slowdown = slow["requests"], slow.get("factor", 1.2)

    def submit(self, request: Request) -> None:
        """Queue a request; with a dead loop nobody will ever look at it."""
        self.scheduler.submit(request)
        self._work.set()

    async def run(self) -> None:
        """Step until the loop dies."""
        due = time.monotonic()
        while not self.dead:
            try:
                iteration = self.scheduler.step()
            except OutOfMemory as error:
                self._die(error)
                return
            if iteration is None:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
                continue
            due += iteration.duration_ms / 1e3 / self.speed
            ahead = due - time.monotonic()
            await asyncio.sleep(ahead if ahead > _WORTH_SLEEPING_S else 0)
            self._deliver(iteration)

    def _deliver(self, iteration: Iteration) -> None:
        for request, n_done in iteration.emitted:
            if not request.cancelled:
                request.on_token(n_done, n_done >= request.n_output)
        self._n_tokens += len(iteration.emitted)
        if self.settings.iter_stats:
            self.stats.append(self._stats(iteration))
            self.new_stats.set()
        if self.settings.iter_log:
            self.log.info(self._iter_line(iteration))
        if self._crash and self._n_tokens >= self._crash.get("after_tokens", 1):
            self.on_crash(self._crash)
        if self._dead_loop and self.scheduler.n_finished >= self._dead_loop.get("after_requests", 0):
            self.dead = True
            if not self._dead_loop.get("silent"):
                self.log.error("Error in event loop: Sampling failed")

    def _die(self, error: OutOfMemory) -> None:
        """Requests in flight learn why; later ones wait for ever."""
        self.dead = True
        self.on_death(error)
        for request in self.scheduler.abort_all():
            request.on_error(str(error))

    def _stats(self, iteration: Iteration) -> dict[str, Any]:
        """One entry of `/metrics`; the PyTorch backend leaves CPU memory out."""
        s, caches = self.settings, self.scheduler.caches
        reused, missed = sum(each.reused for each in caches), sum(each.missed for each in caches)
        used, blocks = caches[0].reserved, caches[0].n_blocks
        return {
            "timestamp": datetime.now().strftime("%m-%d-%Y %H:%M:%S.%f"),  # noqa: DTZ005 -- as upstream writes it
            "iter": self.scheduler.n_steps,
            "iterLatencyMS": iteration.duration_ms,
            "newActiveRequestsQueueLatencyMS": 0.0,
            "numNewActiveRequests": iteration.n_context,
            "numActiveRequests": self.scheduler.n_active,
            "numQueuedRequests": len(self.scheduler.queue),
            "numCompletedRequests": iteration.n_finished,
            "maxNumActiveRequests": s.max_batch_size,
            "maxBatchSizeStatic": s.max_batch_size,
            "maxBatchSizeTunerRecommended": 0,
            "maxBatchSizeRuntime": s.max_batch_size,
            "maxNumTokensStatic": s.max_num_tokens,
            "maxNumTokensTunerRecommended": 0,
            "maxNumTokensRuntime": s.max_num_tokens,
            "gpuMemUsage": 0,
            "kvCacheStats": {
                "maxNumBlocks": blocks,
                "freeNumBlocks": blocks - used,
                "usedNumBlocks": used,
                "tokensPerBlock": s.tokens_per_block,
                "allocTotalBlocks": sum(each.allocated for each in caches),
                "allocNewBlocks": sum(each.allocated for each in caches),
                "reusedBlocks": reused,
                "missedBlocks": missed,
                "cacheHitRate": reused / (reused + missed) if reused + missed else 0.0,
            },
            "inflightBatchingStats": {
                "numScheduledRequests": iteration.n_context + iteration.n_generation,
                "numContextRequests": iteration.n_context,
                "numGenRequests": iteration.n_generation,
                "numPausedRequests": 0,
                "numCtxTokens": iteration.context_tokens,
                "microBatchId": 0,
                "avgNumDecodedTokensPerIter": 1.0,
            },
        }

    def _iter_line(self, iteration: Iteration) -> str:
        states = {
            "num_ctx_requests": iteration.n_context,
            "num_ctx_tokens": iteration.context_tokens,
            "num_generation_tokens": iteration.n_generation,
        }
        active = self.scheduler.n_active
        return (
            f"iter = {self.scheduler.n_steps}, global_rank = 0, rank = 0, currank_total_requests = {active}/{active}, "
            f"host_step_time = {iteration.duration_ms}ms, prev_device_step_time = {iteration.duration_ms}ms, "
            f"timestamp = {time.strftime('%Y-%m-%d %H:%M:%S')}, "
            f"num_scheduled_requests: {iteration.n_context + iteration.n_generation}, states = {states}"
        )
