"""What limited a benchmark, where several things look full at once."""

from __future__ import annotations

from typing import TypeVar

from advisor.domain.measurement import LimitedBy

FULL_CORE = 0.9
"""Share of one core from which a thread counts as full: the rest goes on waiting for the lock, the kernel, the ramp."""


Behind = TypeVar("Behind", bound=LimitedBy | None)


def limit_of(behind: Behind, *, http_cpu_share: float | None, client_saturated: bool = False) -> Behind | LimitedBy:
    """The limit, in the order in which tokens meet it backwards: what is full in front hides what waits behind it.

    A saturated client measured itself. A full HTTP thread sends at its own rate and hands requests on late, in bursts
    that queue for room in a step, however much room the engine has.

    Args:
        behind: What limits the engine or, where nothing waits in it, the load; None where that is not known.
        http_cpu_share: Of one core, by the busiest thread that serves HTTP; None where it is not known.
        client_saturated: Whether the load client was itself too slow.
    """
    if client_saturated:
        return "client"
    if http_cpu_share is not None and http_cpu_share >= FULL_CORE:
        return "streaming"
    return behind
