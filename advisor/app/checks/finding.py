"""One answer of `advisor check-env`: what is so, how bad it is, why it matters, and the ways out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.strict import StrictModel

Level = Literal["ok", "note", "warning", "miss"]


class Way(StrictModel):
    """One way out; any one of a finding's ways will do."""

    what: str
    commands: tuple[str, ...] = Field(default=(), description="To paste into a shell, in this order")


class Finding(StrictModel):
    """A miss stops a launch; a warning may spoil one; a note is worth knowing."""

    id: str = Field(description="Area and subject, such as gpu.count; it stays the same between versions")
    level: Level
    what: str
    why: str | None = Field(default=None, description="Why it matters")
    ways: tuple[Way, ...] = ()

    @property
    def area(self) -> str:
        """engine, gpu, host or checkpoint."""
        return self.id.partition(".")[0]


def ok(id_: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(id=id_, level="ok", what=what)


def note(id_: str, what: str, why: str | None = None, *ways: Way) -> Finding:
    """Worth knowing."""
    return Finding(id=id_, level="note", what=what, why=why, ways=ways)


def warning(id_: str, what: str, why: str, *ways: Way) -> Finding:
    """It may spoil a launch or its numbers."""
    return Finding(id=id_, level="warning", what=what, why=why, ways=ways)


def miss(id_: str, what: str, why: str, *ways: Way) -> Finding:
    """No launch will come up."""
    return Finding(id=id_, level="miss", what=what, why=why, ways=ways)


def counted(n: int, noun: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
