"""What the twin says about a configuration without any launch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.measurement import LimitedBy, MemoryReport, Metrics
from advisor.domain.outcome import OutOfMemory, Unhealthy
from advisor.domain.strict import StrictModel

DataSource = Literal["tables", "roofline"]


class Prediction(StrictModel):
    """Predicted memory and metrics of one configuration under one workload; never a measurement."""

    fits: bool
    p_fits: float = Field(ge=0, le=1)
    memory_gib: MemoryReport
    kv_tokens: int = Field(ge=0, description="KV-cache capacity of one rank, tokens")
    metrics: Metrics | None = Field(description="None when the server would not serve")
    limited_by: LimitedBy | None
    failure: OutOfMemory | Unhealthy | None = None
    data_source: DataSource
    kernels: str | None = Field(
        default=None, description="Engine and release whose kernel times these are; null for a roofline"
    )
    calibration: str = Field(default="none", description="Fitted constants in use, or none")
