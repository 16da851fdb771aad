"""How a launch ended, from the diagnosis of its log: one table from kinds of failure to outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from advisor.domain.outcome import (
    BadConfig,
    Crashed,
    Infrastructure,
    Outcome,
    OutOfMemory,
    Phase,
    TimedOut,
    Unhealthy,
)
from advisor.domain.units import MIB_BYTES, gib
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.events import Kind
from advisor.memory.stages import law_component

LEAST_SHORT_GIB = gib(2 * MIB_BYTES)
"""CUDA hands out device memory in pieces of 2 MiB: where a text has no amounts, at least one was missing."""


@dataclass(frozen=True)
class Death:
    """What is known of a dead server besides its log.

    Attributes:
        phase: The last phase it was seen in.
        exit_code: Of its process, -N for signal N; None while it runs.
        deadline_s: The deadline that it missed, if it was ended for that.
        on_host: True for a server without a GPU, whose own memory is the host's.
    """

    phase: Phase | None = None
    exit_code: int | None = None
    deadline_s: float | None = None
    on_host: bool = False


def outcome_of(diagnosis: Diagnosis, death: Death | None = None) -> Outcome:
    """The outcome of a server that ended, or that must be declared dead.

    What the log says weighs more than how the process ended: a rank that ran out of memory while its peers wait for it
    until a deadline is out of memory.
    """
    return _ENDINGS[diagnosis.verdict](diagnosis, death or Death())


def _out_of_memory(found: Diagnosis, death: Death) -> Outcome:
    phase = found.phase or death.phase or "load"
    below_zero = max(0.0, -(found.free_gib or 0.0))
    return OutOfMemory(
        phase=phase,
        component=law_component(phase, found.component or "not named"),
        tried_gib=found.tried_gib,
        free_gib=found.free_gib,
        short_gib=max(found.short_gib or below_zero, LEAST_SHORT_GIB),
        evidence=found.evidence,
    )


def _host_memory(found: Diagnosis, death: Death) -> Outcome:
    """Out of memory where the server works in it and was refused an allocation; a kill may have other reasons."""
    return (_out_of_memory if death.on_host and found.tried_gib is not None else _crashed)(found, death)


def _refused(found: Diagnosis, death: Death) -> Outcome:
    return BadConfig(reason=found.summary, evidence=found.evidence)


def _outside(found: Diagnosis, death: Death) -> Outcome:
    return Infrastructure(reason=found.summary, transient=found.verdict == "port", evidence=found.evidence)


def _refused_unless(condition: Callable[[Diagnosis], bool]) -> Callable[[Diagnosis, Death], Outcome]:
    """The configuration's fault, unless the condition says that it is the machine's."""
    return lambda found, death: (_outside if condition(found) else _refused)(found, death)


def _nccl(found: Diagnosis, death: Death) -> Outcome:
    """While the ranks connect it is the machine's; later something broke."""
    return (_crashed if found.phase in ("warm_up", "serve") else _outside)(found, death)


def _crashed(found: Diagnosis, death: Death) -> Outcome:
    phase = found.phase or death.phase or "launch"
    return Crashed(phase=phase, reason=_with_exit(found.summary, death.exit_code), evidence=found.evidence)


def _hung(found: Diagnosis, death: Death) -> Outcome:
    """Too late for a deadline, where there was one; a log that is silent or healthy only says how far it came."""
    if death.deadline_s is None:
        return _crashed(found, death)
    phase = death.phase or found.phase or "launch"
    return TimedOut(phase=phase, deadline_s=death.deadline_s, evidence=found.evidence)


def _unhealthy(found: Diagnosis, death: Death) -> Outcome:
    return Unhealthy(reason=found.summary, evidence=found.evidence)


def _with_exit(reason: str, exit_code: int | None) -> str:
    if exit_code is None:
        return reason
    number = -exit_code if exit_code < 0 else exit_code - 128 if exit_code > 128 else None
    return f"{reason} The process ended {f'by signal {number}' if number else f'with exit code {exit_code}'}."


_ENDINGS: Mapping[Kind, Callable[[Diagnosis, Death], Outcome]] = {
    "oom": _out_of_memory,
    "insufficient_kv": _out_of_memory,
    "host_oom": _host_memory,
    "config": _refused_unless(lambda found: found.component == "GPU visibility"),
    "request_rejected": _unhealthy,
    "unsupported_arch": _refused,
    "unsupported_model": _refused,
    "checkpoint": _refused_unless(lambda found: found.phase == "download"),
    "kernel_error": _crashed,
    "version_mismatch": _outside,
    "nccl": _nccl,
    "mpi": _outside,
    "port": _outside,
    "auth": _outside,
    "hang": _hung,
    "crash": _crashed,
    "benign": _hung,
    "unknown": _hung,
}
