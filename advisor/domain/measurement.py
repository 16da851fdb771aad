"""What one benchmark of one workload on one launch showed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.strict import StrictModel

Source = Literal["measured", "simulated", "predicted"]
LimitedBy = Literal[
    "gpu",
    "kv_capacity",
    "max_batch_size",
    "max_num_tokens",
    "concurrency",
    "request_rate",
    "host",
    "streaming",
    "client",
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
    goodput_request_per_s: float | None = Field(default=None, description="None without limits")
    energy_j: float | None = Field(default=None, description="Of all GPUs of the launch, by NVML; None where untold")
    energy_j_per_million_tok: float | None = Field(default=None, description="Per million output tokens")
    cost_per_million_tok: float | None = Field(default=None, description="USD per million output tokens, at a price")
    n_requests: int = Field(ge=0)
    duration_s: float = Field(gt=0)


class MemoryReport(StrictModel):
    """GiB of one GPU (the fullest) by component; `other` holds runtime, NCCL, buffers and fragmentation.

    `cached` is what PyTorch's allocator keeps beyond need: a driver counts it as used, and it is given back before
    anything fails. So it is part of `used`, the reading of a driver, and of no headroom.
    """

    weights: float
    activations: float
    cuda_graphs: float | None = Field(description="None where they are not told apart: `other` then holds them too")
    kv_pool: float
    other: float
    cached: float | None = Field(
        default=None,
        description="Kept by PyTorch beyond need; None where not told apart: in a measurement `other` then holds it",
    )
    capacity: float

    @property
    def needed(self) -> float:
        """What must fit, GiB: all components but what is only cached."""
        return self.weights + self.activations + (self.cuda_graphs or 0.0) + self.kv_pool + self.other

    @property
    def used(self) -> float:
        """What a driver counts, or is expected to count, GiB: sum of all components."""
        return self.needed + (self.cached or 0.0)

    @property
    def headroom(self) -> float:
        """Capacity minus need, GiB; negative when it cannot fit."""
        return self.capacity - self.needed

    @property
    def left_free(self) -> float:
        """Capacity minus use, GiB, as a driver counts it."""
        return self.capacity - self.used


class ProfiledMemory(StrictModel):
    """What the engine's own log says of one GPU's memory, GiB; None where the log does not say it.

    TensorRT-LLM's budget: `available_kv` = (`total` - `peak` + `temporary_kv`) x `fraction`, where `peak` is what
    PyTorch held at most while profiling plus everything outside it (NCCL, graphs, other processes). vLLM's:
    `available_kv` = `total` x `fraction` - `weights` - `activations`, which are all that profiling saw beside weights.
    """

    weights: float | None = None
    loaded_outside_torch: float | None = Field(default=None, description="Outside PyTorch before the profiling pass")
    activations: float | None = Field(default=None, description="Allocated during the profiling forward pass")
    cuda_graphs: float | None = Field(default=None, description="Where the engine tells them apart (vLLM)")
    outside_torch: float | None = None
    temporary_kv: float | None = None
    peak: float | None = None
    total: float | None = None
    fraction: float | None = None
    kv_bytes_per_token: float | None = None
    available_kv: float | None = None
    kv_pool: float | None = Field(default=None, description="The final pool as allocated")
    kv_tokens: int | None = None
    torch_cap: float | None = Field(default=None, description="Most that PyTorch may hold after start-up")
    driver_peak: float | None = Field(default=None, description="Most that the driver saw in use on the fullest GPU")
    own_peaks: dict[str, float] = Field(
        default_factory=dict, description="Most that the launch's own processes held, by GPU index, where it tells"
    )

    @property
    def allocated(self) -> float:
        """GiB that were told so far and stay: weights, activations, graphs, what is outside PyTorch, the KV pool."""
        kept = (self.weights, self.activations, self.cuda_graphs, self.outside_torch, self.kv_pool)
        return sum(size for size in kept if size is not None)


class EffectiveSettings(StrictModel):
    """What a running server really uses, which is not always what was asked."""

    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    kv_tokens: int = Field(description="KV-cache capacity of one rank, tokens")
    cuda_graph_sizes: tuple[int, ...]


class WarmUp(StrictModel):
    """Rounds served before the measurement: the first benchmark after a start pays for just-in-time kernels."""

    output_tok_per_s: tuple[float, ...] = Field(description="Of each round, in order")
    stable: bool = Field(description="True when the last two rounds agree")
    discarded_tok_per_s: float | None = Field(
        default=None, description="Of a benchmark that was still warming up, and was made anew for that"
    )
    n_warming: int = Field(default=0, description="Batches of the measurement itself in which it was still warming up")


class ClientReport(StrictModel):
    """How the load client itself fared: a client that was the limit has measured itself."""

    loop_lag_p99_ms: float = Field(ge=0, description="How late the client's own timer fired")
    cpu_share: float = Field(ge=0, description="Of one core, under load")
    saturated: bool


class ServerReport(StrictModel):
    """How the server fared in front of its engine."""

    http_cpu_share: float = Field(
        ge=0, description="Of one core, by the busiest thread of the processes that serve HTTP, over the benchmark"
    )


class RefereeReport(StrictModel):
    """One run of the engine's own benchmark script on the same server; shown beside ours, never mixed in."""

    command: tuple[str, ...]
    n_requests: int
    n_completed: int
    output_tok_per_s: float | None = None
    ttft_ms_mean: float | None = None
    tpot_ms_mean: float | None = None
    difference: dict[str, float] = Field(
        default_factory=dict, description="Referee over ours - 1, by name of the metric"
    )
    problems: tuple[str, ...] = Field(default=(), description="Why it does not count; empty when it does")


class LoadPoint(StrictModel):
    """One concurrency of several that were measured on one launch."""

    concurrency: int = Field(ge=1)
    metrics: Metrics


class SoFar(StrictModel):
    """What a benchmark showed until it was stopped. No measurement: it never stands where one is asked for."""

    n_done: int = Field(ge=0)
    n_requests: int = Field(ge=1)
    metrics: Metrics = Field(description="Latencies of what was answered, rates that the whole run would have had")
    bound: bool = Field(description="True where too little was seen: then no ending is better than these metrics")
    interval: tuple[float, float] | None = Field(
        default=None, description="95 % interval of the objective of the whole run, from its batches"
    )


class WorkloadOutcome(StrictModel):
    """One workload on one launch: its metrics, or why there are none."""

    workload: str = Field(description="Short name of the workload")
    metrics: Metrics | None
    concurrency: int | None = Field(default=None, description="Of these metrics, where the load was searched")
    loads: tuple[LoadPoint, ...] = Field(default=(), description="Everything measured where the load was searched")
    repeats: tuple[Metrics, ...] = Field(
        default=(), description="Every benchmark where noise on the launch left it undecided; `metrics` is their mean"
    )
    limited_by: LimitedBy | None = None
    ci95: tuple[float, float] | None = Field(
        default=None, description="95 % interval of output tok/s of one benchmark, batch means"
    )
    seed: int
    n_short: int = Field(default=0, ge=0, description="Requests that the server did not answer with their tokens")
    stopped_early: bool = False
    so_far: SoFar | None = Field(default=None, description="Where it was stopped for being hopeless")
    note: str | None = None
    warm_up: WarmUp | None = None
    client: ClientReport | None = None
    server: ServerReport | None = Field(default=None, description="None where its processes cannot be seen")
    kv_cache_hit_rate: float | None = Field(default=None, description="Of prompt blocks, while measuring")
    referee: RefereeReport | None = None
