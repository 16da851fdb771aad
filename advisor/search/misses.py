"""Nothing feasible: which configuration came nearest, and the limit that blocks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from advisor.domain.measurement import MemoryReport, Source
from advisor.domain.objective import Objective, Slo, latency_ms
from advisor.domain.outcome import OutOfMemory, Phase, Unhealthy
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import TrialRecord
from advisor.metrics.definitions import average
from advisor.search.relaxation import Relaxation, loosened
from advisor.search.standings import Standing, standings


class BrokenLimit(StrictModel):
    """A limit of the study, and what the nearest configuration came to."""

    name: str = Field(description="As on the command line: `ttft:p95`")
    limit_ms: float
    value_ms: float


class MemoryMiss(StrictModel):
    """Where memory ran out, or how much too small the KV pool was."""

    phase: Phase | None
    component: str
    short_gib: float = Field(ge=0, description="0 where only the KV pool is too small for the longest request")
    kv_tokens: int | None = Field(default=None, description="Tokens that the KV pool of one rank holds, where known")
    needed_tokens: int = Field(description="Of the longest request")
    memory_gib: MemoryReport | None = Field(default=None, description="Of one GPU, by component, where known")
    memory_source: Source = "predicted"


class NearestMiss(StrictModel):
    """The configuration with the least violation, what blocks it, and the smallest change that would help."""

    serving_config: ServingConfig
    source: Source
    trials: tuple[int, ...] = Field(description="Numbers of the trials behind it; none where it is predicted")
    blocks: Literal["slo", "memory", "kv_cache"]
    broken: tuple[BrokenLimit, ...] = Field(default=(), description="Worst first; of `slo` only")
    memory: MemoryMiss | None = Field(default=None, description="Of `memory` and `kv_cache` only")
    relaxations: tuple[Relaxation, ...] = Field(
        default=(),
        description="Each helps by itself; what more GPUs or smaller weights do is predicted",
    )


def nearest_slo_miss(records: Sequence[TrialRecord], workload: str, slo: Slo) -> NearestMiss | None:
    """Of the configurations that a workload was measured on, the one whose worst limit is broken least."""
    # By throughput, which every measurement has: the goodput of those that miss may be nothing.
    broken = [each for each in standings(records, workload, Objective(), slo) if not each.feasible]
    if not broken:
        return None
    nearest = min(broken, key=lambda standing: worst_excess(standing, slo))
    metrics = average([outcome.metrics for outcome in nearest.outcomes if outcome.metrics is not None])
    limits = [
        BrokenLimit(
            name=limit.name,
            limit_ms=limit.limit_ms,
            value_ms=latency_ms(metrics, limit.latency, limit.statistic) or 0.0,
        )
        for limit in sorted(slo.limits, key=lambda limit: -limit.excess(metrics))
        if limit.excess(metrics) > 0
    ]
    return NearestMiss(
        serving_config=nearest.config,
        source=next(record.source for record in records if record.number == nearest.numbers[0]),
        trials=nearest.numbers,
        blocks="slo",
        broken=tuple(limits),
        relaxations=(Relaxation(kind="slo", change=f'--slo "{loosened(slo, metrics).text}"'),),
    )


def worst_excess(standing: Standing, slo: Slo) -> float:
    """The largest measured / limit - 1 over all limits, repeats averaged."""
    metrics = average([outcome.metrics for outcome in standing.outcomes if outcome.metrics is not None])
    return max(limit.excess(metrics) for limit in slo.limits)


def nearest_memory_miss(records: Sequence[TrialRecord], needed_tokens: int) -> NearestMiss | None:
    """Of the launches that ran out of memory, the one that lacked least; else the one with the largest KV pool.

    Args:
        records: Trials that measured nothing.
        needed_tokens: KV tokens of the study's longest request.
    """
    oom = [(record, record.outcome) for record in records if isinstance(record.outcome, OutOfMemory)]
    if oom:
        record, outcome = min(oom, key=lambda entry: entry[1].short_gib)
        miss = MemoryMiss(
            phase=outcome.phase,
            component=outcome.component,
            short_gib=outcome.short_gib,
            needed_tokens=needed_tokens,
            memory_gib=record.memory_measured_gib or record.memory_predicted_gib,
            memory_source="predicted" if record.memory_measured_gib is None else record.source,
        )
        return _launched(record, "memory", miss)
    pools = [
        (record, record.effective.kv_tokens)
        for record in records
        if isinstance(record.outcome, Unhealthy) and record.effective and record.effective.kv_tokens < needed_tokens
    ]
    if not pools:
        return None
    record, kv_tokens = max(pools, key=lambda entry: entry[1])
    miss = MemoryMiss(
        phase=None,
        component="KV cache",
        short_gib=0.0,
        kv_tokens=kv_tokens,
        needed_tokens=needed_tokens,
        memory_gib=record.memory_measured_gib or record.memory_predicted_gib,
        memory_source="predicted" if record.memory_measured_gib is None else record.source,
    )
    return _launched(record, "kv_cache", miss)


def _launched(record: TrialRecord, blocks: Literal["memory", "kv_cache"], miss: MemoryMiss) -> NearestMiss:
    return NearestMiss(
        serving_config=record.config, source=record.source, trials=(record.number,), blocks=blocks, memory=miss
    )
