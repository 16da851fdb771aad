"""What one benchmark of one workload on one launch showed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.strict import StrictModel

Source = Literal["measured", "simulated", "predicted"]
LimitedBy = Literal[
    "gpu", "kv_capacity", "max_batch_size", "max_num_tokens", "concurrency", "request_rate", "host", "client"
]


class LatencySummary(StrictModel):
    """Mean and percentiles (linear interpolation) over requests, in ms."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


class Metrics(StrictModel):
    """Definitions are in `advisor/metrics/definitions.py`; None means not computable, never zero."""

    output_tok_per_s: float = Field(ge=0)
    output_tok_per_s_per_gpu: float = Field(ge=0)
    output_tok_per_s_per_user: float = Field(ge=0)
    request_per_s: float = Field(ge=0)
    ttft_ms: LatencySummary
    tpot_ms: LatencySummary | None
    itl_ms: LatencySummary | None
    e2e_ms: LatencySummary
    goodput_request_per_s: float | None = None
    n_requests: int = Field(ge=0)
    duration_s: float = Field(gt=0)


class MemoryReport(StrictModel):
    """GiB of one GPU (the fullest) by component; `other` holds runtime, NCCL, buffers and fragmentation."""

    weights: float
    activations: float
    cuda_graphs: float
    kv_pool: float
    other: float
    capacity: float

    @property
    def used(self) -> float:
        """Sum of all components, GiB."""
        return self.weights + self.activations + self.cuda_graphs + self.kv_pool + self.other

    @property
    def headroom(self) -> float:
        """Capacity minus use, GiB; negative when it cannot fit."""
        return self.capacity - self.used


class EffectiveSettings(StrictModel):
    """What a running server really uses, which is not always what was asked."""

    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    kv_tokens: int = Field(description="KV-cache capacity of one rank, tokens")
    cuda_graph_sizes: tuple[int, ...]


class WorkloadOutcome(StrictModel):
    """One workload on one launch: its metrics, or why there are none."""

    workload: str = Field(description="Short name of the workload")
    metrics: Metrics | None
    limited_by: LimitedBy | None = None
    ci95: tuple[float, float] | None = Field(default=None, description="95 % interval of output tok/s, batch means")
    seed: int
    n_short: int = Field(default=0, ge=0, description="Requests that did not return exactly their tokens")
    stopped_early: bool = False
    note: str | None = None
