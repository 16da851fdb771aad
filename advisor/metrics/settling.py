"""The output of a benchmark that runs, as it settles: what a person watching sees of it, on every engine alike."""

from __future__ import annotations

from advisor.domain.objective import Slo
from advisor.domain.ports import MemoryInUse, PartialResult, SettlingRate, TrialEvent
from advisor.domain.workload import Workload
from advisor.metrics.confidence import batch_size
from advisor.metrics.unfinished import Batches


class Settling:
    """Looks at one run again and again.

    Args:
        workload: What is served.
        n_requests: Of the run.
    """

    def __init__(self, workload: Workload, n_requests: int) -> None:
        self._name = workload.name
        self._batches = Batches(batch_size(workload.concurrency, n_requests), n_gpus=1, slo=Slo())

    def look(self, run: PartialResult, memory: MemoryInUse | None = None) -> TrialEvent:
        """The event that tells where a run stands, given how full the GPU is."""
        self._batches = self._batches.seen(run)
        return TrialEvent(
            kind="progress",
            phase="serve",
            detail=f"{self._name}: {run.n_done:,} of {run.n_requests:,} requests",
            fraction_done=run.n_done / run.n_requests,
            memory=memory,
            rate=self._rate(run),
        )

    def _rate(self, run: PartialResult) -> SettlingRate:
        """What the whole run will have by its batches; before the second one, the mean so far."""
        whole = self._batches.foretold_tok_per_s(run)
        if whole is None:
            return SettlingRate(tok_per_s=float(run.n_output.sum()) / run.elapsed_s)
        half_width = max(whole.high - whole.estimate, whole.estimate - whole.low)
        return SettlingRate(tok_per_s=whole.estimate, half_width=half_width)
