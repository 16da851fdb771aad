"""What a simulated benchmark leaves behind, and the gaps between stream events that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.metrics.definitions import GAP_POINTS

Array = NDArray[np.float64]
CLOCK_SLACK_MS = 1e-6  # summing step times up anew rounds otherwise


@dataclass(frozen=True, eq=False)
class Simulation:
    """What happened.

    Per-request arrays have shape (n_requests,), ms of virtual time; NaN where a stopped run never got.
    Shares are fractions of the time: some request waited for KV blocks, for a batch slot, or admitted for token budget;
    `host_share` is time in which the GPU waited for the host (launches of eager steps included), `http_share` time in
    which the HTTP process worked, None where there is none. Step arrays describe
    runs of steps for `itl_ms`.
    """

    arrival_ms: Array
    first_token_ms: Array
    done_ms: Array
    n_output: NDArray[np.int64]
    n_finished: int
    stopped: bool
    duration_ms: float
    n_steps: int
    n_iterations: int
    peak_running: int
    mean_running: float
    prefill_share: float
    kv_share: float
    batch_share: float
    tokens_share: float
    host_share: float
    http_share: float | None
    step_end_ms: Array
    step_count: NDArray[np.int64]
    step_running: NDArray[np.int64]

    @property
    def output_tok_per_s(self) -> float:
        """Output tokens of finished requests over the whole duration."""
        return (
            float(self.n_output[np.isfinite(self.done_ms)].sum()) / self.duration_ms * 1e3 if self.duration_ms else 0.0
        )


def itl_ms(simulation: Simulation, stream_interval: int = 1) -> Array:
    """Gaps between consecutive stream events of running requests, ms: `GAP_POINTS` evenly spaced quantiles of all gaps.

    A request emits one token per step and one event per `stream_interval` tokens, so a gap is the time of that many
    consecutive steps, weighted by the requests running through it. Long runs of like steps are thinned.
    """
    counts, n = simulation.step_count, stream_interval
    walls = np.diff(simulation.step_end_ms, prepend=0.0) / np.maximum(counts, 1)
    kept = np.minimum(counts, 4 * n)
    gaps = np.repeat(walls, kept)
    # Gaps that cross into the next run of steps happen once; those inside stand for all that were left out.
    inside = np.repeat(np.cumsum(kept), kept) - np.arange(len(gaps)) > n
    thinning = np.repeat(np.maximum(counts - n, 1) / np.maximum(kept - n, 1), kept)
    weights = np.repeat(simulation.step_running, kept) * np.where(inside, thinning, 1.0)
    if len(gaps) <= stream_interval:
        return np.zeros(0)
    clock = np.concatenate([[0.0], np.cumsum(gaps)])
    gaps = clock[stream_interval:] - clock[:-stream_interval]
    order = np.argsort(gaps)
    share = np.cumsum(weights[: len(gaps)][order])
    if share[-1] <= 0.0:
        return np.zeros(0)
    at = np.searchsorted(share, (np.arange(GAP_POINTS) + 0.5) / GAP_POINTS * share[-1])
    return np.asarray(gaps[order][np.minimum(at, len(gaps) - 1)])


def _answer_delay_ms(simulation: Simulation) -> float:
    """From the end of a step to its tokens' arrival, ms: what every request's first and last token have in common."""
    return simulation.duration_ms - float(simulation.step_end_ms[-1]) if simulation.step_end_ms.size else 0.0


def gaps_ms(simulation: Simulation, stream_interval: int = 1) -> list[Array]:
    """Gaps between consecutive stream events, ms, of each finished request in order.

    Steps of one run have its mean time, and a request's events end at every `stream_interval`-th step after its first
    token; what is left at its end is no event of its own here.
    """
    counts = simulation.step_count
    walls = np.diff(simulation.step_end_ms, prepend=0.0) / np.maximum(counts, 1)
    clock = np.cumsum(np.repeat(walls, counts)) + _answer_delay_ms(simulation)
    done = np.isfinite(simulation.done_ms)
    first = np.searchsorted(clock, simulation.first_token_ms[done] - CLOCK_SLACK_MS)
    last = np.searchsorted(clock, simulation.done_ms[done] + CLOCK_SLACK_MS)
    return [np.diff(clock[begin:end:stream_interval]) for begin, end in zip(first, last, strict=True)]
