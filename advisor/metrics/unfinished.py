"""What can be said of a benchmark before its end: the best way it could still end, and what its batches foretell.

Everything is told as metrics by the definitions of a whole run. Gaps between stream events are not looked at, so there
is no ITL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Slo
from advisor.domain.ports import PartialResult
from advisor.metrics.confidence import BATCH_NOISE, Interval, steady_interval
from advisor.metrics.definitions import compute

LEAST_MS = 1e-3  # so that what takes no time has a speed
BATCH_NOISE_OF_ONE = 0.25  # requests that do not run in step end by chance before or after the end of a batch


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
    """So many requests in the order in which they end, from the end of the batch before to its own."""

    metrics: Metrics
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Batches:
    """What looks at one run have found so far.

    Attributes:
        per_batch: Requests of a batch, see `confidence.batch_size`.
        n_gpus: Of the deployment.
        slo: What goodput goes by.
        closed: Batches that are complete.
        elapsed_s: Of the run, at the last look.
        n_tokens: Output tokens until then, also those of requests in flight.
        peak_tok_per_s: Most output between two looks: a full batch that decodes, and no prompt in between.
    """

    per_batch: int
    n_gpus: int
    slo: Slo
    closed: tuple[Batch, ...] = ()
    elapsed_s: float = 0.0
    n_tokens: int = 0
    peak_tok_per_s: float = 0.0

    def seen(self, run: PartialResult) -> Batches:
        """With what one more look shows. Batches that an earlier look found are not computed again."""
        n_tokens = int(run.n_output.sum())
        rate = (n_tokens - self.n_tokens) / max(run.elapsed_s - self.elapsed_s, LEAST_MS)
        return replace(
            self,
            closed=(*self.closed, *self._closing(run)),
            elapsed_s=run.elapsed_s,
            n_tokens=n_tokens,
            peak_tok_per_s=max(self.peak_tok_per_s, rate),
        )

    def _closing(self, run: PartialResult) -> Iterator[Batch]:
        n_before, n_done = self.per_batch * len(self.closed), run.n_done
        if n_done < n_before + self.per_batch:
            return
        order = np.argsort(run.done_ms, kind="stable")
        for begin in range(n_before, n_done - self.per_batch + 1, self.per_batch):
            rows = order[begin : begin + self.per_batch]
            began_ms = float(run.done_ms[order[begin - 1]]) if begin else 0.0
            tokens, seconds = int(run.osl[rows].sum()), max(float(run.done_ms[rows[-1]]) - began_ms, LEAST_MS) / 1e3
            yield Batch(_of(run, rows, self.n_gpus, self.slo, tokens / seconds), tokens, seconds)

    def foretold(self, run: PartialResult, metric: Callable[[Metrics], float | None]) -> Interval | None:
        """A metric of the whole run that follows from the latencies of its requests.

        Like the batches after the first; the first has its share where that widens the interval, since a percentile of
        all requests is no mean over batches.

        Args:
            run: Where it stands, seen last.
            metric: Of one batch.

        Returns:
            None before the second batch, or where the metric is undefined.
        """
        values = [value for each in self.closed if (value := metric(each.metrics)) is not None]
        steady = steady_interval(values, [1.0] * len(values)) if len(values) == len(self.closed) else None
        if steady is None:
            return None
        share, first = self.per_batch / run.n_requests, values[0]
        low, high = (
            steady.low - share * max(0.0, steady.low - first),
            steady.high + share * max(0.0, first - steady.high),
        )
        return Interval(estimate=steady.estimate, low=low, high=high, level=steady.level)

    def foretold_tok_per_s(self, run: PartialResult) -> Interval | None:
        """Output tok/s of the whole run if it goes on as it does. Its upper end is the one that is sure.

        What is not sent yet takes as long as the batches after the first say. What is in flight has its prompts behind
        it and takes the rest of its tokens at the peak rate; that a batch empties at the end can only make it longer.

        Args:
            run: Where it stands, seen last.

        Returns:
            None before the second batch.
        """
        rates, seconds = [each.tokens / each.seconds for each in self.closed], [each.seconds for each in self.closed]
        steady = steady_interval(rates, seconds, max(BATCH_NOISE, BATCH_NOISE_OF_ONE / math.sqrt(self.per_batch)))
        if steady is None:
            return None
        sent = np.isfinite(run.sent_ms)
        unsent, in_flight = int(run.osl[~sent].sum()), int((run.osl - run.n_output)[sent].sum())
        low, estimate, high = (
            float(run.osl.sum()) / (run.elapsed_s + unsent / rate + in_flight / max(rate, self.peak_tok_per_s))
            for rate in (max(steady.low, LEAST_MS), steady.estimate, steady.high)
        )
        return Interval(estimate=estimate, low=low, high=high, level=steady.level)

    def metrics(self, run: PartialResult, tok_per_s: float) -> Metrics:
        """Of all that ended so far, at least one request, as if the run had this rate of output tokens."""
        return _of(run, np.flatnonzero(np.isfinite(run.done_ms)), self.n_gpus, self.slo, tok_per_s)


def _of(run: PartialResult, rows: NDArray[np.int64], n_gpus: int, slo: Slo, tok_per_s: float | None = None) -> Metrics:
    """Metrics of some requests; their rates are those of a run with so many output tok/s."""
    sent_ms, done_ms, osl = run.sent_ms[rows], run.done_ms[rows], run.osl[rows]
    end_ms = float(done_ms.max())
    lasted_ms = end_ms - float(sent_ms.min()) if tok_per_s is None else float(osl.sum()) / tok_per_s * 1e3
    began_ms = end_ms - max(lasted_ms, LEAST_MS)
    return compute(sent_ms, run.first_token_ms[rows], done_ms, osl, n_gpus, slo=slo, began_ms=began_ms)
