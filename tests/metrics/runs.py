"""Closed loops of known pace, and where they stand at any moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.domain.ports import PartialResult

Array = NDArray[np.float64]


def closed_loop(
    rng: np.random.Generator, lanes: int, n: int, ms_per_token: float = 10.0, noise: float = 0.2
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Sent, done and output tokens of requests that each lane serves one after the other."""
    free_ms, rows = np.zeros(lanes), []
    for n_output in rng.integers(200, 400, n):
        lane = int(free_ms.argmin())
        sent_ms = float(free_ms[lane])
        free_ms[lane] += n_output * ms_per_token * (1 + noise * np.clip(rng.standard_normal(), -3, 3))
        rows.append((sent_ms, float(free_ms[lane]), int(n_output)))
    sent, done, tokens = np.array(rows, np.float64).T
    return sent, done, tokens.astype(np.int64)


def seen_at(now_ms: float, sent: Array, first: Array, done: Array, tokens: NDArray[np.int64]) -> PartialResult:
    """A run as it stands at a moment; the moment itself is over."""
    sent_ms, first_ms, done_ms = (np.where(each <= now_ms, each, np.nan) for each in (sent, first, done))
    share = np.clip((now_ms - first) / np.maximum(done - first, 1e-9), 0, 1)
    return PartialResult(now_ms / 1e3, sent_ms, first_ms, done_ms, (share * tokens).astype(np.int64), tokens)
