"""TTFT, TPOT, E2E, throughput and goodput: one formula each, equal to TensorRT-LLM's `benchmark_serving`.

Symbols, all per request, float64 of shape (n_requests,), in ms on one clock:
    sent_ms        the client sent the request
    first_ms       its first output token arrived
    done_ms        its last output token arrived
    n_output       output tokens it returned
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import LatencySummary, Metrics
from advisor.domain.objective import Slo

Array = NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
GAP_POINTS = 2000  # that stand for all gaps of a run


def summarise(values: Array) -> LatencySummary | None:
    """Mean and linearly interpolated percentiles; None without values, so that a failed run never looks fast."""
    if values.size == 0:
        return None
    p50, p90, p95, p99 = (float(p) for p in np.percentile(values, PERCENTILES))
    return LatencySummary(mean=float(values.mean()), p50=p50, p90=p90, p95=p95, p99=p99)


def ttft(sent_ms: Array, first_ms: Array) -> Array:
    """Time to first token, ms: first token minus send."""
    return first_ms - sent_ms


def e2e(sent_ms: Array, done_ms: Array) -> Array:
    """End-to-end latency, ms: last token minus send."""
    return done_ms - sent_ms


def tpot(first_ms: Array, done_ms: Array, n_output: NDArray[np.int64]) -> Array:
    """Time per output token after the first, ms; only requests with at least two output tokens have one."""
    many = n_output > 1
    return np.asarray((done_ms[many] - first_ms[many]) / (n_output[many] - 1), dtype=np.float64)


def spread(values: Array) -> Array:
    """Evenly spaced quantiles that stand for all values, ascending, shape (GAP_POINTS,); empty without values.

    Each stands for as much, so those of several runs together are the quantiles of the runs together, counted alike.
    """
    places = ((np.arange(GAP_POINTS) + 0.5) / GAP_POINTS * values.size).astype(np.int64)
    return np.sort(values)[places] if values.size else values


def compute(
    sent_ms: Array,
    first_ms: Array,
    done_ms: Array,
    n_output: NDArray[np.int64],
    n_gpus: int,
    slo: Slo | None = None,
    itl_ms: Array | None = None,
    gaps_ms: Sequence[Array] | None = None,
    energy_j: float | None = None,
    began_ms: float | None = None,
) -> Metrics:
    """All metrics of one benchmark whose requests all succeeded.

    The run lasts from the first send, or from `began_ms`, to the last token. User throughput is the mean over requests
    of output tokens over end-to-end latency, as upstream's. `itl_ms` are single gaps between stream events of all
    requests together, where they were recorded; `gaps_ms` are the same by request, which only goodput under a limit on
    ITL needs. `energy_j` is what the GPUs of the launch used meanwhile, where they told.

    Raises:
        ValueError: no request at all.
    """
    if sent_ms.size == 0:
        raise ValueError("no request succeeded: there is nothing to compute")
    duration_s = float(done_ms.max() - (sent_ms.min() if began_ms is None else began_ms)) / 1000
    e2e_ms = e2e(sent_ms, done_ms)
    output_tok_per_s = float(n_output.sum()) / duration_s
    good = good_requests(sent_ms, first_ms, done_ms, n_output, slo or Slo(), gaps_ms)
    ttft_summary, e2e_summary = summarise(ttft(sent_ms, first_ms)), summarise(e2e_ms)
    assert ttft_summary is not None and e2e_summary is not None
    return Metrics(
        output_tok_per_s=output_tok_per_s,
        output_tok_per_s_per_gpu=output_tok_per_s / n_gpus,
        output_tok_per_s_per_user=float((n_output / e2e_ms).mean() * 1000),
        request_per_s=sent_ms.size / duration_s,
        ttft_ms=ttft_summary,
        tpot_ms=summarise(tpot(first_ms, done_ms, n_output)),
        itl_ms=None if itl_ms is None else summarise(itl_ms),
        e2e_ms=e2e_summary,
        goodput_request_per_s=None if good is None else float(good.sum()) / duration_s,
        energy_j=energy_j,
        energy_j_per_million_tok=None if energy_j is None else energy_j / float(n_output.sum()) * 1e6,
        n_requests=int(sent_ms.size),
        duration_s=duration_s,
    )


def good_requests(
    sent_ms: Array,
    first_ms: Array,
    done_ms: Array,
    n_output: NDArray[np.int64],
    slo: Slo,
    gaps_ms: Sequence[Array] | None = None,
) -> NDArray[np.bool_] | None:
    """Which requests keep every limit by themselves, shape (n_requests,); goodput is their number per second.

    A request has one TTFT, TPOT and E2E, so the statistic of a limit does not matter for it: `ttft:p95<2s` asks for a
    TTFT of at most 2 s. It has many gaps: `itl:p95<50ms` asks for a p95 over its own gaps of at most 50 ms. A latency
    that a request does not have (TPOT of one token) keeps its limit. TTFT, TPOT and E2E are those of `benchmark_serving
    --goodput`, which knows no ITL.

    Returns:
        None without limits, and with a limit on ITL where gaps were not recorded by request.
    """
    if not slo.limits:
        return None
    good = np.ones(sent_ms.size, dtype=bool)
    for limit in slo.limits:
        if limit.latency == "itl":
            if gaps_ms is None:
                return None
            own = (summarise(gaps) for gaps in gaps_ms)
            good &= np.array([each is None or getattr(each, limit.statistic) <= limit.limit_ms for each in own])
        elif limit.latency == "tpot":
            good[n_output > 1] &= tpot(first_ms, done_ms, n_output) <= limit.limit_ms
        else:
            latency = ttft(sent_ms, first_ms) if limit.latency == "ttft" else e2e(sent_ms, done_ms)
            good &= latency <= limit.limit_ms
    return good


def average(runs: Sequence[Metrics]) -> Metrics:
    """Mean of every metric over repeats of one benchmark; undefined where any of them is.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("no run to average")
    merged = _mean([run.model_dump() for run in runs])
    return Metrics.model_validate({**merged, "n_requests": round(merged["n_requests"])})


def _mean(values: Sequence[Any]) -> Any:
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return float(np.mean(values))
