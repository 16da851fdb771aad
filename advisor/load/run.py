"""What one run showed, and what is wrong with an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import ClientReport
from advisor.load.pulse import ClientLimits, judge_client
from advisor.load.record import StreamRecord


def shortfall(record: StreamRecord, isl: int, osl: int) -> str | None:
    """What is wrong with a finished answer, as the end of the sentence "this request ..."; None when nothing is."""
    if record.error is not None:
        return record.error
    if record.n_output is None or record.n_prompt is None:
        return "got no usage: its tokens cannot be counted"
    if record.n_output < osl and record.finish_reason in ("length", None):
        return f"returned {record.n_output} of {osl} tokens: the server clamps to its max_seq_len"
    if record.n_output != osl:
        return f"returned {record.n_output} of {osl} tokens (finish_reason {record.finish_reason})"
    if record.n_prompt != isl:
        return f"counted {record.n_prompt} prompt tokens where {isl} were sent"
    if record.finish_reason != "length":
        return f"ended with finish_reason {record.finish_reason}, not length"
    return None if record.chunk_ms else "streamed no chunk"


@dataclass(frozen=True)
class LoadRun:
    """What one run showed.

    Attributes:
        records: One per request of the load, in its order; blank where a run that ended early never got.
        shortfalls: By place in the load, what is wrong with an answer.
        ended_by: `stop` when the caller's rule said so, `wrong` when the answers did, None when all were sent.
        start_s: `time.monotonic()` at zero of the records' clock.
        duration_s: From the start to the end of the run.
        peak_open: Most requests in flight at once.
        mean_open: Requests in flight on average until the last one was sent; None where all were sent at once.
        lag_p99_ms: How late the client's timer fired.
        cpu_share: Of one core, by the client's thread.
    """

    records: tuple[StreamRecord, ...]
    shortfalls: dict[int, str]
    ended_by: str | None
    start_s: float
    duration_s: float
    peak_open: int
    mean_open: float | None
    lag_p99_ms: float
    cpu_share: float

    @property
    def n_finished(self) -> int:
        """Requests whose answer ended, right or wrong."""
        return sum(record.saw_done or record.error is not None for record in self.records)

    @property
    def alarmed(self) -> bool:
        """True when an answer looks as if the server were dying."""
        return any(record.alarm for record in self.records)

    def samples(self) -> dict[str, NDArray[Any]]:
        """Per-request arrays, shape (n_requests,); NaN or 0 where nothing came."""
        rows = self.records
        return {
            "sent_ms": np.array([row.sent_ms for row in rows], np.float64),
            "first_token_ms": np.array([row.first_token_ms for row in rows], np.float64),
            "done_ms": np.array([row.done_ms for row in rows], np.float64),
            "n_output": np.array([row.n_output or 0 for row in rows], np.int64),
            "n_prompt": np.array([row.n_prompt or 0 for row in rows], np.int64),
            "n_cached": np.array([np.nan if row.n_cached is None else row.n_cached for row in rows], np.float64),
            "n_chunks": np.array([len(row.chunk_ms) for row in rows], np.int64),
        }

    def ttft_p50_ms(self) -> float:
        """Median time to the first token of what was answered, ms; 0 when nothing was."""
        waits = [row.first_token_ms - row.sent_ms for row in self.records if row.chunk_ms]
        return float(np.median(waits)) if waits else 0.0

    def judged(self, nominal_open: int, limits: ClientLimits) -> tuple[ClientReport, tuple[str, ...]]:
        """How the client fared and, where it was saturated, by what.

        Args:
            nominal_open: Streams that the load holds open.
            limits: Of the client.
        """
        return judge_client(
            lag_p99_ms=self.lag_p99_ms,
            cpu_share=self.cpu_share,
            mean_open=self.mean_open,
            nominal_open=nominal_open,
            ttft_p50_ms=self.ttft_p50_ms(),
            limits=limits,
        )

    def gaps_ms(self) -> list[NDArray[np.float64]]:
        """Gaps between consecutive chunks, by request."""
        return [np.diff(np.frombuffer(row.chunk_ms)) for row in self.records]

    def itl_ms(self) -> NDArray[np.float64]:
        """Of all requests."""
        return np.concatenate([np.zeros(0), *self.gaps_ms()])
