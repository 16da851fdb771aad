"""How busy the threads are that serve HTTP on a port, by /proc: CPU time of the processes that hold its connections.

A listening socket does not tell who answers: an engine process that is forked inherits it. A connection does, because
it was accepted after the fork. Processes in a container have their own table of connections, which their /proc has.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable

from advisor.host.guardian import proc_file

LOOK_EVERY_S = 0.3
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_ESTABLISHED = b"01"


class HttpThreads:
    """Watches the processes of one launch, in a thread that looks until it has found who holds the connections.

    Args:
        port: Of the server, in its own network namespace.
        pids: Tells the processes of the launch.
    """

    def __init__(self, port: int, pids: Callable[[], Iterable[int]]) -> None:
        self._port, self._pids = port, pids
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.restart()
        self._thread = threading.Thread(target=self._run, name="advisor-http-threads", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Count from now on."""
        before = {pid: cpu_s(pid) for pid in self._pids()}
        with self._lock:
            self._before, self._serving = before, frozenset[int]()
            self._began_s = time.monotonic()

    def busiest_share(self) -> float | None:
        """CPU time of the busiest thread since the restart, of one core; None where nobody was seen to serve.

        One thread, because the event loop has one. Others of its process may compute outside Python's lock, so that
        their sum can be a core while the loop is idle.
        """
        with self._lock:
            now = {pid: cpu_s(pid) for pid in self._serving}
            wall_s = time.monotonic() - self._began_s
            if not any(used_s for threads in now.values() for used_s in threads.values()):
                return None  # ended, or a kernel that does not count
            spent_s = [
                used_s - self._before[pid].get(thread, 0.0)
                for pid, threads in now.items()
                for thread, used_s in threads.items()
            ]
        return max(spent_s) / wall_s

    def stop(self) -> None:
        """Look no further."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            with self._lock:
                self._serving = self._serving or holders(self._port, self._before)


def holders(port: int, pids: Iterable[int]) -> frozenset[int]:
    """Those of the processes that hold connections which were accepted on a port."""
    tables: dict[str, frozenset[str]] = {}
    found = set[int]()
    for pid in pids:
        with contextlib.suppress(OSError):  # gone, or not ours to see
            space = os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115 - a name, no path
            if space not in tables:
                tables[space] = _accepted(pid, port)
            if tables[space] and any(socket in tables[space] for socket in _descriptors(pid)):
                found.add(pid)
    return frozenset(found)


def cpu_s(pid: int) -> dict[int, float]:
    """CPU time of every thread of a process, seconds; empty when it is gone."""
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - names are all it takes
    except OSError:
        return {}
    stats = {thread: proc_file(pid, f"task/{thread}/stat").rpartition(b")")[2].split() for thread in threads}
    return {thread: (int(stat[11]) + int(stat[12])) * _TICK_S for thread, stat in stats.items() if stat}


def _accepted(pid: int, port: int) -> frozenset[str]:
    """Connections accepted on a port in the network namespace of a process, by the kernel's name for their sockets."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in proc_file(pid, f"net/{name}").splitlines()[1:]]
    end = b":%04X" % port
    return frozenset(
        f"socket:[{line[9].decode()}]" for line in lines if line[1].endswith(end) and line[3] == _ESTABLISHED
    )


def _descriptors(pid: int) -> Iterable[str]:
    """What the descriptors of a process stand for."""
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
