"""What `/metrics` of trtllm-serve tells of a benchmark: iterations counted up, and what held requests back.

Each entry is one iteration; entries are gone once read, so they are polled while the benchmark runs. Every key may be
missing: releases and back ends differ. Source: TensorRT-LLM `serve/openai_server.py`, its `_test_openai_metrics.py`,
and `_torch/pyexecutor/py_executor.py` (`_update_iter_stats`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from advisor.domain.measurement import LimitedBy
from advisor.engines.polling import PollingThread

QUEUED_SHARE = 0.5  # of the iterations, as the twin judges it
NEARLY_FULL = 0.95
POLL_S = 0.25
PATIENCE_S = 0.5


class Blocks(NamedTuple):
    """KV blocks looked for since the server started: found in the cache, and not."""

    reused: int
    missed: int


@dataclass
class IterationStats:
    """Iterations counted up; `before` is what the running counters of the cache stood at before the first of them."""

    before: Blocks | None = None
    last: Blocks | None = None
    n_iterations: int = 0
    active: int = 0
    peak_active: int = 0
    peak_kv_share: float = 0.0
    n_paused: int = 0
    n_wait_for_kv: int = 0
    n_wait_for_batch: int = 0
    n_wait_for_tokens: int = 0

    def take(self, entries: Iterable[Any]) -> None:
        """Count iterations in; what is no mapping is passed over."""
        for entry in entries:
            if isinstance(entry, Mapping):
                self._take(entry)

    def summary(self) -> dict[str, Any]:
        """What the iterations say; keys are absent where they say nothing."""
        said: dict[str, Any] = {"n_iterations": self.n_iterations}
        if self.n_iterations:
            said["mean_active_requests"] = self.active / self.n_iterations
            said["peak_active_requests"] = self.peak_active
            said["peak_kv_cache_share"] = self.peak_kv_share
            said["n_paused_iterations"] = self.n_paused
            held_by = self._held_by()
            if held_by is not None:
                said["limited_by"] = held_by
        if self.before is not None and self.last is not None:
            reused, missed = self.last.reused - self.before.reused, self.last.missed - self.before.missed
            if reused + missed > 0:
                said["kv_cache_hit_rate"] = reused / (reused + missed)
        return said

    def _take(self, entry: Mapping[str, Any]) -> None:
        cache, batch = _mapping(entry, "kvCacheStats"), _mapping(entry, "inflightBatchingStats")
        active, queued = _count(entry, "numActiveRequests"), _count(entry, "numQueuedRequests")
        scheduled = _count(batch, "numScheduledRequests") or active
        self.n_iterations += 1
        self.active += active
        self.peak_active = max(self.peak_active, active)
        self.n_paused += _count(batch, "numPausedRequests") > 0
        blocks, free = _count(cache, "maxNumBlocks"), _count(cache, "freeNumBlocks")
        if blocks:
            self.peak_kv_share = max(self.peak_kv_share, 1.0 - free / blocks)
        if queued + active > scheduled:
            self._count_waiting(entry, scheduled, _count(batch, "numCtxTokens") + _count(batch, "numGenRequests"))
        if "reusedBlocks" in cache or "missedBlocks" in cache:
            self.last = Blocks(_count(cache, "reusedBlocks"), _count(cache, "missedBlocks"))
            self.before = self.before or self.last

    def _count_waiting(self, entry: Mapping[str, Any], scheduled: int, tokens: int) -> None:
        most_batch = _count(entry, "maxBatchSizeRuntime") or _count(entry, "maxBatchSizeStatic")
        most_tokens = _count(entry, "maxNumTokensRuntime") or _count(entry, "maxNumTokensStatic")
        if most_batch and scheduled >= most_batch:
            self.n_wait_for_batch += 1
        elif most_tokens and tokens >= NEARLY_FULL * most_tokens:
            self.n_wait_for_tokens += 1
        else:
            self.n_wait_for_kv += 1

    def _held_by(self) -> LimitedBy | None:
        queues: dict[LimitedBy, int] = {
            "kv_capacity": self.n_wait_for_kv,
            "max_batch_size": self.n_wait_for_batch,
            "max_num_tokens": self.n_wait_for_tokens,
        }
        longest = max(queues, key=lambda name: queues[name])
        return longest if queues[longest] >= QUEUED_SHARE * self.n_iterations else None


def _mapping(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = entry.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _count(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    return int(value) if isinstance(value, (int, float)) else 0


class StatsPoller(PollingThread):
    """Reads every iteration; nothing is lost and nothing grows on the server."""

    def __init__(self, base_url: str) -> None:
        self._stats = IterationStats()
        super().__init__(base_url, POLL_S)

    def since_last(self) -> dict[str, Any]:
        """What the server counted since the last call. An idle server answers late, and is not waited for."""
        with self.polled:
            self.polled.wait(PATIENCE_S)
            stats, self._stats = self._stats, IterationStats(before=self._stats.last, last=self._stats.last)
        return stats.summary()

    def take(self, page: bytes) -> None:
        """Count the iterations of a page in."""
        entries = json.loads(page)
        self._stats.take(entries if isinstance(entries, list) else [])
