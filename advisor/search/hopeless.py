"""Whether a benchmark that runs can still matter: when it cannot beat the incumbent or keep a limit, it is stopped.

A benchmark is hopeless for certain when even the best way to end could not win, and very likely when the 95 % interval
of what it will end with, from its batches so far, lies on the wrong side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from advisor.domain.measurement import Metrics, SoFar
from advisor.domain.objective import COST, Objective, Slo, SloLimit, latency_ms
from advisor.domain.ports import Incumbent, PartialResult
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.confidence import Interval, batch_size
from advisor.metrics.unfinished import Batches, at_best
from advisor.search.robust import regrets, robust
from advisor.search.standings import pick, standings
from advisor.search.stopping import noise

LAUNCH_NOISE = 0.01  # at least, of the logarithm between launches: early in a study there is no repeat to tell
SURE = 1.96 * math.sqrt(2)  # deviations between two launches
FROM_RATE = ("output_tok_per_s_per_gpu", "output_tok_per_s", "request_per_s", COST)  # of output tokens


def incumbents(
    records: Sequence[TrialRecord], workloads: Sequence[Workload], objective: Objective, slo: Slo
) -> tuple[Incumbent, ...]:
    """What a trial of the search has to beat under each workload, from the records alone.

    With several workloads, one that loses here may still be the best for all of them. It is not while it loses more
    than the robust configuration does at most, so that much is its slack; until something serves all workloads, nothing
    is to beat. Nor is it where the load is searched: a lower load follows.

    Args:
        records: All trials so far.
        workloads: Of the study.
        objective: Of the study.
        slo: Its limits, which an incumbent keeps.
    """
    tables = {workload.name: standings(records, workload.name, objective, slo) for workload in workloads}
    for_all = robust(tables, objective)
    if for_all is None:
        return ()
    slack = 1 / (1 - max(regrets(for_all, tables, objective).values())) if len(workloads) > 1 else 1.0
    found = []
    for workload in workloads:
        best = pick(tables[workload.name], objective)
        if best is not None and not (objective.metric == "goodput" and workload.concurrency is not None):
            spread = noise([[math.log(value) for value in each.values] for each in tables[workload.name]])
            spread = max(spread, LAUNCH_NOISE)
            found.append(Incumbent(workload=workload.name, value=best.mean, log_noise=spread, slack=slack))
    return tuple(found)


@dataclass
class Watch:
    """A stop rule for one benchmark. Each look costs little more than the requests that ended since the last one.

    Attributes:
        incumbent: What is to beat.
        objective: Of the study.
        slo: Limits that must be kept.
        n_gpus: Of the deployment.
        concurrency: Of the workload; None in an open loop.
        reason: Why the benchmark is hopeless, once it is.
        so_far: What it showed until then.
    """

    incumbent: Incumbent
    objective: Objective
    slo: Slo
    n_gpus: int
    concurrency: int | None
    reason: str | None = field(default=None, init=False)
    so_far: SoFar | None = field(default=None, init=False)
    _batches: Batches | None = field(default=None, init=False)

    def __call__(self, run: PartialResult) -> bool:
        """True when the run may be stopped."""
        known = self._batches
        if known is None or run.elapsed_s < known.elapsed_s:  # a benchmark that is made anew begins anew
            known = Batches(batch_size(self.concurrency, run.n_requests), self.n_gpus, self.slo)
        self._batches = batches = known.seen(run)
        best = at_best(run, self.n_gpus, self.slo)
        self.reason = next(self._reasons(run, best, batches), None)
        if self.reason is not None:
            self.so_far = self._shown(run, best, batches)
        return self.reason is not None

    def _reasons(self, run: PartialResult, best: Metrics, batches: Batches) -> Iterator[str]:
        """Why it is hopeless, what is certain first."""
        yield from self._short_of(self.objective.value(best))
        for limit in self.slo.limits:
            if limit.excess(best) > 0:
                yield f"{limit.name} cannot come within {limit.limit_ms:g} ms any more"
        interval = self._foretold(run, batches)
        if interval is not None:
            yield from self._short_of(interval.low if self.objective.direction == "minimize" else interval.high)
        for limit in self.slo.limits:
            interval = batches.foretold(run, functools.partial(_latency_ms, limit))
            if interval is not None and interval.low > limit.limit_ms:
                yield f"{limit.name} is to be {interval.low:,.0f} ms at least, the limit is {limit.limit_ms:g} ms"

    def _short_of(self, value: float | None) -> Iterator[str]:
        """Why a value that the run can reach at best does not do, if so."""
        to_beat = self.incumbent
        if value is None:
            return
        lost = self.objective.gain(to_beat.value, value) if value > 0 else math.inf
        if lost > to_beat.slack * math.exp(SURE * to_beat.log_noise):
            word = "at least" if self.objective.direction == "minimize" else "at most"
            yield f"{self.objective.metric} of {word} {value:,.4g}, the best so far has {to_beat.value:,.4g}"

    def _foretold(self, run: PartialResult, batches: Batches) -> Interval | None:
        """Interval of the objective of the whole run; None where batches do not tell."""
        if self.objective.metric not in FROM_RATE:
            return batches.foretold(run, self.objective.value)
        rate = batches.foretold_tok_per_s(run)
        if rate is None:
            return None
        metrics = [batches.metrics(run, tok_per_s) for tok_per_s in (rate.low, rate.estimate, rate.high)]
        found = [self.objective.value(each) for each in metrics]
        low, estimate, high = sorted(value for value in found if value is not None)
        return Interval(estimate=estimate, low=low, high=high, level=rate.level)

    def _shown(self, run: PartialResult, best: Metrics, batches: Batches) -> SoFar:
        interval, rate = self._foretold(run, batches), batches.foretold_tok_per_s(run)
        return SoFar(
            n_done=run.n_done,
            n_requests=run.n_requests,
            metrics=best if rate is None else batches.metrics(run, rate.estimate),
            bound=rate is None,
            interval=None if interval is None else (interval.low, interval.high),
        )


def _latency_ms(limit: SloLimit, metrics: Metrics) -> float | None:
    return latency_ms(metrics, limit.latency, limit.statistic)
