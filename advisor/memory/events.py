"""What a log line can say: the words in which readers of engine logs and the diagnosis talk to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from advisor.domain.outcome import Phase
from advisor.domain.units import GIB_BYTES, MIB_BYTES, gib

Kind = Literal[
    "oom",
    "host_oom",
    "insufficient_kv",
    "config",
    "request_rejected",
    "unsupported_arch",
    "unsupported_model",
    "checkpoint",
    "kernel_error",
    "version_mismatch",
    "nccl",
    "mpi",
    "port",
    "auth",
    "hang",
    "crash",
    "benign",
    "unknown",
]

Role = Literal["cause", "alarm", "wrapper", "mark", "ready", "frame", "block", "fact", "exception", "shutdown"]
"""What a line is good for.

cause: a root of failure. alarm: reads like one and is none. wrapper: repeats a cause told elsewhere. mark: the stage
that begins here. ready: the server answers. frame: a function of a traceback that tells the stage. block: a line of
TensorRT-LLM's own memory report. fact: a setting or a figure. exception: an error no rule knows. shutdown: somebody
asked the server to stop.
"""


@dataclass(frozen=True)
class Meaning:
    """What one rule says about a line.

    `stage` is certain; `usual_stage` holds where the log has no mark before the line. A `soft` cause is one only if
    the server does not become ready afterwards and nothing else failed; a `vague` one gives way to others of its rank.
    A `strong` alarm tells the stage of a log that is otherwise healthy.
    """

    role: Role
    name: str
    kind: Kind | None = None
    stage: Phase | None = None
    usual_stage: Phase | None = None
    detail: str = ""
    component: str | None = None
    soft: bool = False
    vague: bool = False
    strong: bool = False
    advice: str = ""


RETRIED = "retried"  # name of a mark: an error was caught and its traceback printed, and the server goes on


@dataclass(frozen=True)
class LogEvent:
    """A line that means something.

    `line` counts from 1, `source` is what a launcher put in front of the lines of one process, and `rank` the rank that
    the program itself or its launcher names.
    """

    meaning: Meaning
    line: int
    text: str
    values: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    rank: str = ""

    def number(self, name: str) -> float | None:
        """A value as a number, thousands separators allowed; None where the line does not say it."""
        try:
            return float(self.values[name].replace(",", ""))
        except (KeyError, ValueError):
            return None

    def size_gib(self, name: str) -> float | None:
        """A size with its unit (`tried` with `tried_unit`) in GiB; bytes where no unit is named."""
        amount = self.number(name)
        if amount is None:
            return None
        return size_gib(amount, self.values.get(f"{name}_unit") or "bytes")


def size_gib(amount: float | str, unit: str) -> float:
    """GiB of an amount with the unit that a log names."""
    return gib(float(amount) * _UNIT_BYTES[unit.lower()])


_UNIT_BYTES: dict[str, float] = {
    "bytes": 1,
    "byte": 1,
    "b": 1,
    "kib": 1024,
    "kb": 1e3,
    "mib": MIB_BYTES,
    "mb": 1e6,
    "gib": GIB_BYTES,
    "gb": 1e9,
    "tib": 1024.0 * GIB_BYTES,
    "tb": 1e12,
}
