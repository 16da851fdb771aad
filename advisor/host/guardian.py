"""The parent of one launched server: whatever becomes of advisor, it ends every process of the launch.

`process.py` runs this file by its path with `python -I -S`, so it uses the standard library alone and has nothing of
advisor's open but its own two pipes and the ends that become the server's output and input, which it keeps only until
the server has them. It is the child subreaper of the launch: orphans come to it, whatever session they made for
themselves.

Protocol, one JSON object a line:

- stdin, the lifeline: the launch (`Order`), later `{"stop": grace_s}`. Its end means that advisor died.
- stdout, the status: `{"started": pid}` or `{"refused": {"errno", "text", "file"}}`; `{"exited": code}`;
  `{"ended": {"killed": [pid], "left": [pid]}}`.

SIGTERM asks it to stop, and a second one to hurry. SIGINT and SIGHUP mean the terminal, which is advisor's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

SETTLE_S = 1.0
"""What workers get to follow a server that has ended, before they are killed."""
ON_END_S = 20.0
"""What each command of `on_end` may take."""
KILL_S = 5.0
"""What killed processes may take to be gone; one that the kernel holds (a driver that hangs) is told as left."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02


class Order(TypedDict):
    """What the guardian is told to launch."""

    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    output: int  # descriptor that becomes stdout and stderr of the server
    input: int | None  # descriptor that becomes its stdin; None for none
    on_end: list[list[str]]
    record: str | None  # file to remove when `on_end` has run
    grace_s: float  # from SIGTERM to SIGKILL when nobody says otherwise
    advisor: int


class Task(NamedTuple):
    """A live process as /proc tells."""

    pid: int
    parent: int
    session: int
    start_ticks: int


def proc_file(pid: int, name: str) -> bytes:
    """A file of /proc about a process; empty when that is gone, or not ours to read."""
    parts = []
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(descriptor, 65536):
                parts.append(part)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
    return b"".join(parts)


def task(pid: int) -> Task | None:
    """A process, or None when it is gone or only waits to be reaped."""
    fields = proc_file(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return None
    # A process whose first thread has ended looks like a zombie while its other threads run.
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
        return None
    return Task(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def tasks() -> dict[int, Task]:
    """Every live process by pid."""
    with os.scandir("/proc") as entries:
        found = [task(int(entry.name)) for entry in entries if entry.name.isdigit()]
    return {each.pid: each for each in found if each is not None}


def descendants(roots: Sequence[int], among: dict[int, Task]) -> set[int]:
    """Children of processes, and theirs."""
    children: dict[int, list[int]] = {}
    for each in among.values():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        new = set(children.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def send(number: int, pids: set[int]) -> None:
    """Signal processes; one that is gone, or that we may not signal, is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Guardian:
    """One launch, from start to end."""

    def __init__(self, order: Order, heard: bytes) -> None:
        self._order, self._heard = order, heard
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._told_exit = False
        self._stop_at = math.inf
        self._poll = select.poll()
        self._signals = _signals()
        for descriptor in (0, self._signals, _watched(order["advisor"])):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Launch the server, wait for a reason to end, and end."""
        order = self._order
        try:
            self._server = self._spawn(order["argv"], order["output"], order["input"])
        except (OSError, ValueError) as error:
            _say({"refused": _why(error)})
            return
        finally:
            os.close(order["output"])
            if order["input"] is not None:
                os.close(order["input"])
        _say({"started": self._server.pid})
        self._listen(b"")
        self._until(lambda: self._has_exited or self._stop_at < math.inf, lambda: math.inf)
        self._end()

    @property
    def _has_exited(self) -> bool:
        return self._server is not None and self._server.returncode is not None

    def _end(self) -> None:
        assert self._server is not None
        if not self._has_exited:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._server.pid, signal.SIGTERM)
            self._until(lambda: self._has_exited, lambda: self._stop_at)
        settled_at = time.monotonic() + SETTLE_S
        send(signal.SIGTERM, self._rest() - {self._server.pid})
        self._until(lambda: not self._rest(), lambda: min(self._stop_at, settled_at))
        ran = [self._ran(argv) for argv in self._order["on_end"]]
        if self._order["record"] and all(ran):
            with contextlib.suppress(OSError):
                Path(self._order["record"]).unlink()
        killed = self._kill()
        self._reap()
        left = self._rest()
        _say({"ended": {"killed": sorted(killed - left), "left": sorted(left)}})

    def _rest(self) -> set[int]:
        """Live processes of the launch."""
        return descendants([os.getpid()], tasks())

    def _ran(self, argv: list[str]) -> bool:
        """Run a command of `on_end`; whether it came to an end, well or not (there may be nothing left to remove)."""
        try:
            command = self._spawn(argv, subprocess.DEVNULL)
        except (OSError, ValueError):
            return False
        late = time.monotonic() + ON_END_S
        return self._until(lambda: command.returncode is not None, lambda: late)

    def _kill(self) -> set[int]:
        killed: set[int] = set()

        def all_gone() -> bool:
            rest = self._rest()
            send(signal.SIGKILL, rest)
            killed.update(rest)
            return not rest

        late = time.monotonic() + KILL_S
        self._until(all_gone, lambda: late)
        return killed

    def _spawn(self, argv: list[str], output: int, given: int | None = None) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if given is None else given,
            stdout=output,
            stderr=output,
            cwd=self._order["cwd"],
            env=self._order["env"],
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()),
        )
        self._children[child.pid] = child
        return child

    # -- what happens meanwhile --------------------------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], at: Callable[[], float]) -> bool:
        """Wait until `done`, but no longer than until the moment `at`, which may move; which of them it was."""
        while not done():
            rest_s = at() - time.monotonic()
            if rest_s <= 0:
                return False
            timeout = None if rest_s == math.inf else math.ceil(min(rest_s, _POLL_S) * 1000)
            for descriptor, _ in self._poll.poll(timeout):
                self._hear(descriptor)
            self._reap()
        return True

    def _hear(self, descriptor: int) -> None:
        data = os.read(descriptor, 65536) if descriptor in (0, self._signals) else b""
        if descriptor == self._signals:
            if signal.SIGTERM in data:
                self._stop(self._order["grace_s"] if self._stop_at == math.inf else 0.0)
        elif data:
            self._listen(data)
        else:  # the lifeline ended, or advisor's process did
            self._poll.unregister(descriptor)
            self._stop(self._order["grace_s"])

    def _listen(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._stop(float(json.loads(line)["stop"]))

    def _stop(self, grace_s: float) -> None:
        self._stop_at = min(self._stop_at, time.monotonic() + grace_s)

    def _reap(self) -> None:
        """Take the exit codes of our children and of the orphans that came to us."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                child = self._children.pop(ended[0], None)
                if child is not None:
                    child.returncode = os.waitstatus_to_exitcode(ended[1])
        if self._has_exited and not self._told_exit and self._server is not None:
            self._told_exit = True
            _say({"exited": self._server.returncode})


def _signals() -> int:
    """A descriptor from which the numbers of arriving signals can be read.

    They are handled rather than ignored: an ignored signal would stay ignored in the server.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def _watched(advisor: int) -> int | None:
    """A descriptor that becomes readable when advisor ends, even if a child of its keeps the lifeline open."""
    try:
        descriptor = os.pidfd_open(advisor)
    except (AttributeError, OSError):
        return None
    return descriptor if os.getppid() == advisor else None


def _dies_with(guardian: int) -> Callable[[], None]:
    """To run in a child before its program: SIGKILL when the guardian dies, however it dies."""
    prctl = _prctl()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def _prctl() -> Callable[[int, int], None]:
    function = ctypes.CDLL(None, use_errno=True).prctl

    def prctl(option: int, value: int) -> None:
        if function(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return prctl


def _why(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"errno": error.errno, "text": error.strerror, "file": error.filename}
    return {"errno": errno.EINVAL, "text": str(error), "file": None}


def _say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Read the order and carry it out; without a whole one advisor has died already."""
    _prctl()(_PR_SET_CHILD_SUBREAPER, 1)
    heard = b""
    while b"\n" not in heard:
        data = os.read(0, 65536)
        if not data:
            return
        heard += data
    order, _, rest = heard.partition(b"\n")
    Guardian(json.loads(order), rest).run()


if __name__ == "__main__":
    main()
