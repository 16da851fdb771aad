"""A small synthetic server for tests of the store: known memory limit, known optimum, no randomness."""

from __future__ import annotations

import math
from pathlib import Path

from advisor.domain.measurement import LatencySummary, MemoryReport, Metrics, WorkloadOutcome
from advisor.domain.objective import Slo, parse_slo
from advisor.domain.outcome import Measured, Outcome, OutOfMemory
from advisor.domain.ports import Asked
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Condition, Dimension, SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.store.ledger import OptunaLedger
from advisor.store.stock_samplers import make_proposer

CAPACITY_GIB = 72.0
SLO = parse_slo("ttft:p95<2s")
BASELINE = ServingConfig(
    max_batch_size=300,  # not on the ladder
    max_num_tokens=8192,
    cuda_graph_max_batch_size=300,
    kv_cache_free_gpu_memory_fraction=0.6,
    options={"enable_chunked_prefill": False},
)


def ladder(name: str, *values: object) -> Dimension:
    return Dimension.model_validate({"name": name, "values": values, "reason": "test"})


SPACE = SearchSpace(
    name="test",
    description="test",
    dimensions=(
        ladder("max_batch_size", 8, 32, 64, 128, 256, 384, 512, 1024, 2048),
        ladder("max_num_tokens", 1024, 2048, 4096, 8192, 16384, 32768),
        ladder("cuda_graph_max_batch_size", 0, 32, 128, 512, 2048),
        ladder("kv_cache_free_gpu_memory_fraction", 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
        ladder("enable_chunked_prefill", False, True),
    ),
    conditions=(Condition(setting="cuda_graph_max_batch_size", at_most="max_batch_size", reason="test"),),
)


def needed_gib(config: ServingConfig) -> float:
    """Peak GiB of a launch: two thirds of the grid need more than there is."""
    return (
        30.0
        + 45.0 * config.kv_cache_free_gpu_memory_fraction
        + 9.0 * config.max_num_tokens / 8192
        + 6.0 * config.max_batch_size / 1024
    )


def latencies(value_ms: float) -> LatencySummary:
    return LatencySummary(mean=value_ms, p50=value_ms, p90=value_ms, p95=value_ms, p99=value_ms)


def measurement(output_tok_per_s: float, ttft_ms: float, workload: str = "4k1k_c256") -> WorkloadOutcome:
    metrics = Metrics(
        output_tok_per_s=output_tok_per_s,
        output_tok_per_s_per_gpu=output_tok_per_s,
        output_tok_per_s_per_user=1.0,
        request_per_s=1.0,
        ttft_ms=latencies(ttft_ms),
        tpot_ms=None,
        itl_ms=None,
        e2e_ms=latencies(2 * ttft_ms),
        n_requests=8,
        duration_s=1.0,
    )
    return WorkloadOutcome(workload=workload, metrics=metrics, seed=0)


def record(
    asked: Asked, outcome: Outcome, *workloads: WorkloadOutcome, memory: MemoryReport | None = None
) -> TrialRecord:
    return TrialRecord(
        number=asked.number,
        role=asked.role,
        origin=asked.origin,
        config=asked.config,
        source="simulated",
        engine_label="simulated by a test",
        seed=asked.number,
        outcome=outcome,
        workloads=workloads,
        memory_measured_gib=memory,
    )


def launch(asked: Asked) -> TrialRecord:
    """One trial: a function of its number and configuration alone."""
    config, needed = asked.config, needed_gib(asked.config)
    if needed > CAPACITY_GIB:
        return record(asked, OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=needed - CAPACITY_GIB))
    chunking = 0.1 if config.options["enable_chunked_prefill"] else 0.0
    speed = 1000 * math.log2(config.max_batch_size) * (1 + config.kv_cache_free_gpu_memory_fraction) * (1 + chunking)
    report = MemoryReport(
        weights=30.0, activations=1.0, cuda_graphs=1.0, kv_pool=1.0, other=needed - 33.0, capacity=CAPACITY_GIB
    )
    return record(asked, Measured(), measurement(speed + asked.number % 7, 4e6 / config.max_num_tokens), memory=report)


def value_of(trial: TrialRecord) -> float | None:
    """Gain over 10,000 tok/s, as a study tells it to Optuna."""
    metrics = trial.workloads[0].metrics if trial.workloads else None
    return None if metrics is None else math.log(metrics.output_tok_per_s / 10_000)


def open_ledger(
    run: Path, sampler: str = "tpe", seed: int = 7, resume: bool = True, storage: str | None = None, slo: Slo = SLO
) -> OptunaLedger:
    return OptunaLedger(
        run,
        name="test",
        space=SPACE,
        proposer=make_proposer(sampler, SPACE, slo, value_of),
        slo=slo,
        value_of=value_of,
        seed=seed,
        identity={"study": "abcd1234", "source": "simulated"},
        storage=storage,
        resume=resume,
    )


def essence(records: tuple[TrialRecord, ...]) -> list[tuple[int, str, str]]:
    """What must be the same however often a study was interrupted."""
    return [(trial.number, trial.config.key, trial.outcome.model_dump_json()) for trial in records]


def with_number(trial: TrialRecord, number: int) -> TrialRecord:
    return changed(trial, number=number)
