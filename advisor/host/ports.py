"""Free ports for servers that bind minutes after they were started."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

from advisor.domain.errors import EngineFailed

LOOPBACK = "127.0.0.1"
SPAN = 12_000
"""How many ports below the ephemeral range are considered."""
_UNPRIVILEGED = 1024
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(avoid: Collection[int] = ()) -> int:
    """A port of the loopback address that nobody uses now and no client socket will be given.

    The kernel gives clients ports of its ephemeral range, so the port lies below (or above) that. Another server may
    still take it before ours binds it: the caller tries again then.

    Args:
        avoid: Ports that are promised already.

    Raises:
        EngineFailed: every port is taken.
    """
    low, high = _ephemeral()
    below, above = range(max(_UNPRIVILEGED, low - SPAN), low), range(high + 1, 65_536)
    for ports in (below, above, range(low, high + 1)):
        for port in random.sample(ports, len(ports)):
            if port not in avoid and _is_free(port):
                return port
    raise EngineFailed(f"Every port of {LOOPBACK} is taken: see `ss -ltn`, and end what is not needed.")


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = (int(word) for word in _RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 32_768, 60_999
    return low, high


def _is_free(port: int) -> bool:
    """Whether nobody has it; SO_REUSEADDR would pass over a server that has bound and does not listen yet."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
