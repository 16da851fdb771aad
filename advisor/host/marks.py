"""Which processes belong to which launch, told from outside.

Every process of a launch carries two variables: `ADVISOR_RUN`, the run folder, and `ADVISOR_LAUNCH`, the launch and the
advisor that made it. So an advisor that finds them later knows whether their own one lives. A process that wiped its
environment (a changed process title does) is found by what it shares with one that did not.

What a launch has elsewhere (a container, a job step) is no process here: the commands that end it are kept in a file of
the run folder until they have run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.domain.errors import EngineFailed
from advisor.host.guardian import KILL_S, ON_END_S, Task, descendants, proc_file, send, task, tasks

RUN, LAUNCH, GUARDIAN = "ADVISOR_RUN", "ADVISOR_LAUNCH", "ADVISOR_GUARDIAN"


@dataclass(frozen=True)
class Mark:
    """One launch and the advisor that made it."""

    place: str
    """Boot and PID namespace: elsewhere the numbers mean nothing."""
    advisor: int
    start_ticks: int
    name: str

    @classmethod
    def new(cls) -> Mark:
        """A launch of this process."""
        own = task(os.getpid())
        return cls(_place(), os.getpid(), own.start_ticks if own else 0, secrets.token_hex(6))

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that `str` wrote."""
        parts = text.split("-")
        if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]), parts[3])

    def __str__(self) -> str:
        return f"{self.place}-{self.advisor}-{self.start_ticks}-{self.name}"

    @property
    def is_left(self) -> bool:
        """Whether the advisor that made it is known to be dead."""
        if self.place != _place():
            return False
        advisor = task(self.advisor)
        return advisor is None or advisor.start_ticks != self.start_ticks


@dataclass(frozen=True)
class Carrier:
    """A live process that carries a mark."""

    task: Task
    mark: Mark
    is_guardian: bool


def carriers(run: str) -> list[Carrier]:
    """Live processes that carry the mark of a run and whose environment we may read."""
    wanted = os.fsencode(f"\0{RUN}={run}\0")
    found = []
    for each in tasks().values():
        variables = b"\0" + proc_file(each.pid, "environ")
        if wanted in variables:
            values = dict(entry.partition(b"=")[::2] for entry in variables.split(b"\0"))
            mark = Mark.parse(os.fsdecode(values.get(LAUNCH.encode(), b"")))
            if mark is not None:
                found.append(Carrier(each, mark, GUARDIAN.encode() in values))
    return found


def members(marked: Collection[int], among: Mapping[int, Task], pipes: Collection[str] = ()) -> set[int]:
    """Processes of a launch, some of whose processes are known: those that share a session, a parent or the output.

    Never this process, one above it, or one of its own session (a shell may have inherited the mark).

    Args:
        marked: Pids that are known.
        among: All live processes.
        pipes: Pipes, as `outputs` tells them, that only this launch writes to.
    """
    above, pid = {os.getpid()}, os.getppid()
    while pid in among and pid not in above:
        above.add(pid)
        pid = among[pid].parent
    sessions = {among[pid].session for pid in marked if pid in among} - {0, os.getsid(0)}
    written = {*pipes, *(pipe for pid in marked for pipe in outputs(pid))} - outputs(os.getpid())
    kin = {each.pid for each in among.values() if each.session in sessions or (written and outputs(each.pid) & written)}
    together = {*marked, *kin} - above
    return (together | descendants(list(together), dict(among))) - above


def outputs(pid: int) -> set[str]:
    """Pipes that are a process's stdout and stderr, by the kernel's name for them."""
    found = set()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))  # noqa: PTH115 - asked of every process
    return {name for name in found if name.startswith("pipe:")}


def end_all(find: Callable[[], set[int]]) -> tuple[set[int], set[int]]:
    """Kill what `find` finds until it finds nothing: the processes killed, and those that could not be."""
    killed: set[int] = set()
    late = time.monotonic() + KILL_S
    while rest := find():
        if time.monotonic() > late:
            break
        send(signal.SIGKILL, rest)
        killed |= rest
        time.sleep(0.005)
    return killed - rest, rest


@dataclass(frozen=True)
class Record:
    """Commands that end what a launch has elsewhere, as its run folder remembers them."""

    path: Path
    mark: Mark
    on_end: tuple[tuple[str, ...], ...]

    def carry_out(self, env: Mapping[str, str]) -> None:
        """Run the commands, and forget them when each came to an end, well or not: there may be nothing left to end."""
        ran = [_ran(argv, env) for argv in self.on_end]
        if all(ran):
            self.forget()

    def forget(self) -> None:
        """There is nothing to end."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def remember(run: str, mark: Mark, on_end: Sequence[Sequence[str]]) -> Record | None:
    """Write down the commands before the launch; None when there are none.

    Raises:
        EngineFailed: the run folder cannot be written.
    """
    if not on_end:
        return None
    record = Record(Path(run, f".launch-{mark.name}.json"), mark, tuple(tuple(argv) for argv in on_end))
    aside = record.path.with_suffix(".tmp")
    try:
        record.path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"mark": str(mark), "on_end": record.on_end}), encoding="utf-8")
        aside.replace(record.path)
    except OSError as error:
        raise EngineFailed(f"Cannot write {record.path}: {error.strerror}. Nothing was launched.") from None
    return record


def remembered(run: str) -> list[Record]:
    """What launches of a run have not ended yet."""
    found = []
    for path in sorted(Path(run).glob(".launch-*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            written = json.loads(path.read_text(encoding="utf-8"))
            mark = Mark.parse(written["mark"])
            if mark is not None:
                found.append(Record(path, mark, tuple(tuple(argv) for argv in written["on_end"])))
    return found


def _ran(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    try:
        quiet = subprocess.DEVNULL
        subprocess.run(argv, env=env, stdin=quiet, stdout=quiet, stderr=quiet, timeout=ON_END_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:12]
