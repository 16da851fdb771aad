"""What can be said of a benchmark before its end: the best way it could still end, and what its batches foretell.

Everything is told as metrics by the definitions of a whole run. Gaps between stream events are not looked at, so there
is no ITL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Slo
from advisor.domain.ports import PartialResult
from advisor.metrics.confidence import Interval, steady_interval
from advisor.metrics.definitions import compute

LEAST_MS = 1e-3  # so that what takes no time has a speed


def at_best(run: PartialResult, n_gpus: int, slo: Slo) -> Metrics:
    """Metrics if all that is open or not sent ended now: no ending of the run has a higher rate or a lower latency.

    Args:
        run: Where it stands.
        n_gpus: Of the deployment.
        slo: What goodput goes by.
    """
    now_ms = run.elapsed_s * 1e3
    sent_ms = np.where(np.isfinite(run.sent_ms), run.sent_ms, now_ms)
    first_ms = np.where(np.isfinite(run.first_token_ms), run.first_token_ms, now_ms)
    done_ms = np.where(np.isfinite(run.done_ms), run.done_ms, now_ms + LEAST_MS)
    return compute(sent_ms, first_ms, done_ms, run.osl, n_gpus, slo=slo)


@dataclass(frozen=True)
class Batch:
    """Requests that ended between two looks at a run, and the tokens of all requests in the meantime."""

    metrics: Metrics
    seconds: float
    tokens: int
    n_done: int
    """Of the run, at the end of the batch."""

    @property
    def tok_per_s(self) -> float:
        """Of output: tokens as they came, whether their requests ended or not."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Batches:
    """The batches of one run so far. Each closes at the first look that finds `per_batch` more requests ended."""

    per_batch: int
    n_gpus: int
    slo: Slo
    closed: tuple[Batch, ...] = ()

    @property
    def seconds(self) -> float:
        """Of the run, at the end of the last batch."""
        return sum(each.seconds for each in self.closed)

    def seen(self, run: PartialResult) -> Batches:
        """With one more batch, if it is complete. Nothing that an earlier look counted is counted again."""
        n_before = self.closed[-1].n_done if self.closed else 0
        if run.n_done < n_before + self.per_batch:
            return self
        order = np.argsort(run.done_ms, kind="stable")[n_before : run.n_done]
        batch = Batch(
            metrics=_of(run, order, self.n_gpus, self.slo),
            seconds=run.elapsed_s - self.seconds,
            tokens=int(run.n_output.sum()) - sum(each.tokens for each in self.closed),
            n_done=run.n_done,
        )
        return Batches(self.per_batch, self.n_gpus, self.slo, (*self.closed, batch))

    def foretold_tok_per_s(self, n_tokens: int) -> Interval | None:
        """Output tok/s of the whole run if it goes on as it does; its tail can only make it less.

        Args:
            n_tokens: Of the whole run.

        Returns:
            None before the second batch.
        """
        steady = steady_interval([each.tok_per_s for each in self.closed], [each.seconds for each in self.closed])
        if steady is None:
            return None
        left = n_tokens - sum(each.tokens for each in self.closed)
        rates = (max(rate, LEAST_MS) for rate in (steady.low, steady.estimate, steady.high))
        low, estimate, high = (n_tokens / (self.seconds + left / rate) for rate in rates)
        return Interval(estimate=estimate, low=low, high=high, level=steady.level)

    def metrics(self, run: PartialResult, tok_per_s: float | None = None) -> Metrics:
        """Of all that ended so far, at least one request, as if the run had this rate of output tokens."""
        return _of(run, np.flatnonzero(np.isfinite(run.done_ms)), self.n_gpus, self.slo, tok_per_s)


def _of(run: PartialResult, rows: NDArray[np.int64], n_gpus: int, slo: Slo, tok_per_s: float | None = None) -> Metrics:
    """Metrics of some requests; their rates are those of a run with so many output tok/s."""
    sent_ms, done_ms, osl = run.sent_ms[rows], run.done_ms[rows], run.osl[rows]
    end_ms = float(done_ms.max())
    lasted_ms = end_ms - float(sent_ms.min()) if tok_per_s is None else float(osl.sum()) / tok_per_s * 1e3
    began_ms = end_ms - max(lasted_ms, LEAST_MS)
    return compute(sent_ms, run.first_token_ms[rows], done_ms, osl, n_gpus, slo=slo, began_ms=began_ms)
