"""Waiting for what another thread or process will do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return as soon as it is true; fail when it never becomes so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)
