"""What can be said of a benchmark before its end: the batches that are complete, and the best way it could still end.

Both are metrics by the definitions of a whole run. Gaps between stream events are not looked at, so there is no ITL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Slo
from advisor.domain.ports import PartialResult
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


def complete_batches(
    run: PartialResult, per_batch: int, n_gpus: int, slo: Slo, known: tuple[Metrics, ...] = ()
) -> tuple[Metrics, ...]:
    """Metrics of every batch of `per_batch` requests in the order in which they end; each begins where one ended.

    Args:
        run: Where it stands.
        per_batch: See `confidence.batch_size`.
        n_gpus: Of the deployment.
        slo: What goodput goes by.
        known: Batches that an earlier look at the same run found; they are not computed again.
    """
    found = list(known)
    if run.n_done < per_batch * (len(found) + 1):
        return known
    order = np.argsort(run.done_ms, kind="stable")[: run.n_done]
    for begin in range(per_batch * len(found), run.n_done - per_batch + 1, per_batch):
        began_ms = float(run.done_ms[order[begin - 1]]) if begin else float(np.nanmin(run.sent_ms))
        found.append(_of(run, order[begin : begin + per_batch], n_gpus, slo, began_ms))
    return tuple(found)


def until(run: PartialResult, n: int, n_gpus: int, slo: Slo) -> Metrics:
    """Metrics of the first `n` requests that ended, n >= 1."""
    return _of(run, np.argsort(run.done_ms, kind="stable")[:n], n_gpus, slo, float(np.nanmin(run.sent_ms)))


def _of(run: PartialResult, rows: NDArray[np.int64], n_gpus: int, slo: Slo, began_ms: float) -> Metrics:
    done_ms = run.done_ms[rows]
    began_ms = min(began_ms, float(done_ms.max()) - LEAST_MS)  # a batch may end with the one before
    return compute(
        run.sent_ms[rows], run.first_token_ms[rows], done_ms, run.osl[rows], n_gpus, slo=slo, began_ms=began_ms
    )
