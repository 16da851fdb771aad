"""The trade-off of a study: output per GPU against the speed that each user sees, over all its trials and loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.domain.measurement import Metrics
from advisor.domain.objective import Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.pareto import non_dominated


class ParetoPoint(StrictModel):
    """One benchmark of one trial that no other one of the same lengths beats in both coordinates."""

    shape: str
    workload: str
    concurrency: int | None
    trial: int
    serving_config: ServingConfig
    output_tok_per_s_per_gpu: float
    output_tok_per_s_per_user: float


def pareto_front(records: Sequence[TrialRecord], workloads: Sequence[Workload], slo: Slo) -> tuple[ParetoPoint, ...]:
    """The front of each shape (prompt and output lengths, shared prefix), the highest output per GPU first.

    Single runs that keep every limit: what breaks one is no choice. All loads of a shape are one trade-off.
    """
    found: list[ParetoPoint] = []
    for together in dict.fromkeys(alike(workload, workloads) for workload in workloads):
        points = [point for workload in together for point in _points(records, workload, slo)]
        pairs = [(point.output_tok_per_s_per_user, point.output_tok_per_s_per_gpu) for point in points]
        front = [points[place] for place in non_dominated(pairs)]
        found += sorted(front, key=lambda point: -point.output_tok_per_s_per_gpu)
    return tuple(found)


def alike(workload: Workload, workloads: Sequence[Workload]) -> tuple[Workload, ...]:
    """The workloads of the same lengths, whatever their load."""
    shape = (workload.shape, workload.shared_prefix_tokens)
    return tuple(each for each in workloads if (each.shape, each.shared_prefix_tokens) == shape)


def _points(records: Sequence[TrialRecord], workload: Workload, slo: Slo) -> Iterator[ParetoPoint]:
    for record in records:
        for concurrency, metrics in _benchmarks(record, workload):
            if slo.met(metrics):
                yield ParetoPoint(
                    shape=workload.shape,
                    workload=workload.name,
                    concurrency=concurrency,
                    trial=record.number,
                    serving_config=record.config,
                    output_tok_per_s_per_gpu=metrics.output_tok_per_s_per_gpu,
                    output_tok_per_s_per_user=metrics.output_tok_per_s_per_user,
                )


def _benchmarks(record: TrialRecord, workload: Workload) -> list[tuple[int | None, Metrics]]:
    """(concurrency, metrics) of every load that a trial measured of a workload."""
    outcome = record.workload(workload.name)
    if not record.served or outcome is None or outcome.metrics is None:
        return []
    if outcome.loads:
        return [(load.concurrency, load.metrics) for load in outcome.loads]
    return [(workload.concurrency, outcome.metrics)]
