"""How a launch can end. An expected outcome is a value with its evidence, never an exception."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel

Phase = Literal[
    "configure", "download", "launch", "connect", "load", "build", "kv_estimate", "kv_allocate", "warm_up", "serve"
]


class Evidence(StrictModel):
    """A line that proves it; `line` counts from 1, 0 when it is no log line."""

    line: int = Field(ge=0)
    text: str


class _Ending(StrictModel):
    evidence: tuple[Evidence, ...] = ()


class Measured(_Ending):
    """The server served every workload and every request returned exactly its tokens."""

    kind: Literal["measured"] = "measured"


class Started(_Ending):
    """The server came up and was ended again, as a memory-only launch asks: its memory was read, nothing measured."""

    kind: Literal["started"] = "started"


class OutOfMemory(_Ending):
    """GPU memory ran out in `phase` while `component` was being made or grown."""

    kind: Literal["out_of_memory"] = "out_of_memory"
    phase: Phase
    component: str
    tried_gib: float | None = None
    free_gib: float | None = None
    short_gib: float = Field(gt=0, description="GiB missing on the worst GPU")


class Unhealthy(_Ending):
    """The server runs, but cannot serve the study's longest request, or does not answer as it was asked."""

    kind: Literal["unhealthy"] = "unhealthy"
    reason: str


class Hopeless(_Ending):
    """The server runs well, but under some workload it could not become the best: that benchmark was stopped early."""

    kind: Literal["hopeless"] = "hopeless"
    reason: str


class Rejected(_Ending):
    """Never launched: a rule of the engine or the memory law says it cannot work."""

    kind: Literal["rejected"] = "rejected"
    rule: str = Field(description="Short name of the rule")
    reason: str
    excess: float = Field(gt=0, description="How far beyond the limit, in units of the limit or GiB/4 for memory")


class BadConfig(_Ending):
    """The engine refused the configuration before any GPU work."""

    kind: Literal["bad_config"] = "bad_config"
    reason: str


class TimedOut(_Ending):
    """A phase passed its deadline."""

    kind: Literal["timed_out"] = "timed_out"
    phase: Phase
    deadline_s: float = Field(gt=0)


class Crashed(_Ending):
    """The server died for a reason that is not memory."""

    kind: Literal["crashed"] = "crashed"
    phase: Phase
    reason: str


class Infrastructure(_Ending):
    """Port, disk, client or another user of the GPU: says nothing about the configuration."""

    kind: Literal["infrastructure"] = "infrastructure"
    reason: str
    transient: bool = Field(default=False, description="True when a second start may do, as after a lost port")


Outcome = Annotated[
    Measured
    | Started
    | Hopeless
    | OutOfMemory
    | Unhealthy
    | Rejected
    | BadConfig
    | TimedOut
    | Crashed
    | Infrastructure,
    Field(discriminator="kind"),
]

RETRIED_ONCE = (TimedOut, Crashed)
"""Outcomes that get a second launch before they count against the configuration."""


def summary(outcome: Outcome) -> str:
    """One short clause for a table or a progress line."""
    if isinstance(outcome, OutOfMemory):
        short = f"{outcome.short_gib:.2f}" if outcome.short_gib >= 0.01 else "less than 0.01"
        return f"out of memory at {outcome.phase} ({outcome.component}), {short} GiB short"
    if isinstance(outcome, TimedOut):
        return f"timed out at {outcome.phase} after {outcome.deadline_s:g} s"
    if isinstance(outcome, Crashed):
        return f"crashed at {outcome.phase}: {outcome.reason}"
    if isinstance(outcome, Measured):
        return "measured"
    if isinstance(outcome, Started):
        return "started, for its memory only"
    return f"{outcome.kind.replace('_', ' ')}: {outcome.reason}"
