"""What nobody said: where a default of advisor or of a shipped study stands."""

from __future__ import annotations

from pydantic import Field

from advisor.domain.strict import StrictModel


class Defaults(StrictModel):
    """Where a default of advisor or of a shipped study stands, as neither options nor a file of one's own said more."""

    loads: tuple[str, ...] = Field(default=(), description="Names of the workloads whose concurrency it is")
    slo: bool = False
    budget: bool = False
    space: bool = False
    max_seq_len: bool = False
