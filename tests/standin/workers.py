"""The worker processes of a stand-in: one a rank, each with a pid of its own on its GPU."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_PROGRAM = str(Path(__file__).with_name("worker.py"))


class Workers:
    """Start them, watch them, end them."""

    def __init__(self, n_ranks: int, *, orphaning: bool) -> None:
        extra = ("--orphan",) if orphaning else ()
        self._all = [
            subprocess.Popen(
                [sys.executable, "-I", "-S", _PROGRAM, f"rank-{rank}", *extra],
                stdin=subprocess.DEVNULL if orphaning else subprocess.PIPE,
            )
            for rank in range(n_ranks)
        ]
        self.orphaning = orphaning

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._all]

    def dead(self) -> list[int]:
        """Ranks whose worker has ended."""
        return [rank for rank, worker in enumerate(self._all) if worker.poll() is not None]

    def kill(self, rank: int) -> None:
        """As the kernel's out-of-memory killer does."""
        self._all[rank].send_signal(signal.SIGKILL)
        self._all[rank].wait()

    def end(self) -> None:
        """An orderly end; orphaned ones stay, since that is what they are for."""
        if self.orphaning:
            return
        for worker in self._all:
            if worker.stdin is not None:
                worker.stdin.close()
        for worker in self._all:
            worker.wait()
