"""What `/metrics` of vLLM tells of a benchmark, in the Prometheus text format: gauges sampled, counters compared.

Source: vLLM `v1/metrics/loggers.py`. Several engines (data parallel) have a line each.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advisor.domain.measurement import LimitedBy
from advisor.engines.polling import PollingThread

POLL_S = 0.5
QUEUED_SHARE = 0.5  # of the samples, as the twin judges it
FULL_BATCH = 0.98
FULL_KV = 0.95

_LINE = re.compile(r"^vllm:(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_ENGINE = re.compile(r'engine="([^"]*)"')
_RUNNING, _WAITING, _KV = "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"
_PREEMPTED = "num_preemptions_total"
_QUERIES, _HITS = "prefix_cache_queries_total", "prefix_cache_hits_total"
_STEPS = "iteration_tokens_total_count"
_READ = (_RUNNING, _WAITING, _KV, _PREEMPTED, _QUERIES, _HITS, _STEPS)

Reading = Mapping[str, Mapping[str, float]]
"""Metric to engine to value."""


def read_metrics(text: str) -> Reading:
    """The metrics that are read here, as the page has them; what is no number is passed over."""
    found: dict[str, dict[str, float]] = {name: {} for name in _READ}
    for match in _LINE.finditer(text):
        name, labels, value = match.groups()
        if name in found:
            engine = _ENGINE.search(labels or "")
            with contextlib.suppress(ValueError):
                found[name][engine[1] if engine else ""] = float(value)
    return found


@dataclass
class Samples:
    """Readings counted up; `before` and `last` are the counters at the ends.

    Args:
        max_num_seqs: Of one engine; a queue beside a full batch is the batch's.
    """

    max_num_seqs: int
    before: Reading | None = None
    last: Reading | None = None
    n_samples: int = 0
    running: float = 0.0
    peak_running: float = 0.0
    peak_kv_share: float = 0.0
    waits: dict[LimitedBy, int] = field(
        default_factory=lambda: {"kv_capacity": 0, "max_batch_size": 0, "max_num_tokens": 0}
    )

    def take(self, reading: Reading) -> None:
        """Count a reading in; an idle server's counts for its counters alone."""
        self.before, self.last = self.before or reading, reading
        running, waiting = reading[_RUNNING], reading[_WAITING]
        if not any(running.values()) and not any(waiting.values()):
            return
        self.n_samples += 1
        self.running += sum(running.values())
        self.peak_running = max(self.peak_running, sum(running.values()))
        self.peak_kv_share = max([self.peak_kv_share, *reading[_KV].values()])
        busiest = max(waiting, key=lambda engine: waiting[engine], default=None)
        if busiest is not None and waiting[busiest] > 0:
            self.waits[self._held_by(running.get(busiest, 0.0), reading[_KV].get(busiest, 0.0))] += 1

    def _held_by(self, running: float, kv_share: float) -> LimitedBy:
        if running >= FULL_BATCH * self.max_num_seqs:
            return "max_batch_size"
        return "kv_capacity" if kv_share >= FULL_KV else "max_num_tokens"

    def summary(self) -> dict[str, Any]:
        """What the readings say; keys are absent where they say nothing."""
        said: dict[str, Any] = {"n_iterations": round(self._counted(_STEPS))}
        if self.n_samples:
            said["mean_active_requests"] = self.running / self.n_samples
            said["peak_active_requests"] = self.peak_running
            said["peak_kv_cache_share"] = self.peak_kv_share
            said["n_preemptions"] = self._counted(_PREEMPTED)
            longest = max(self.waits, key=lambda name: self.waits[name])
            if self.waits[longest] >= QUEUED_SHARE * self.n_samples:
                said["limited_by"] = longest
        queries = self._counted(_QUERIES)
        if queries > 0:
            said["kv_cache_hit_rate"] = self._counted(_HITS) / queries
        return said

    def _counted(self, name: str) -> float:
        if self.before is None or self.last is None:
            return 0.0
        return sum(self.last[name].values()) - sum(self.before[name].values())


class MetricsPoller(PollingThread):
    """Samples gauges, and reads the counters once more when asked."""

    def __init__(self, base_url: str, max_num_seqs: int) -> None:
        self._max_num_seqs = max_num_seqs
        self._samples = Samples(max_num_seqs)
        super().__init__(base_url, POLL_S)
        self.ask()

    def since_last(self) -> dict[str, Any]:
        """What the server counted since the last call, counters as they stand now."""
        self.ask()
        with self.polled:
            samples = self._samples
            self._samples = Samples(self._max_num_seqs, before=samples.last, last=samples.last)
        return samples.summary()

    def take(self, page: bytes) -> None:
        """Count a page in."""
        self._samples.take(read_metrics(page.decode("utf-8", "replace")))
