"""Servers as processes: started under a guardian, heard while they run, ended with everything they started."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR
from pathlib import Path
from types import TracebackType
from typing import Any

from advisor.domain.errors import AdvisorError, EngineFailed, EngineMissing
from advisor.host import guardian
from advisor.host.guardian import KILL_S, ON_END_S, SETTLE_S, Task, descendants, send, task, tasks
from advisor.host.marks import GUARDIAN, LAUNCH, RUN, Carrier, Mark, carriers, end_all, members, remember, remembered

PATIENCE_S = 5.0
CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Launch:
    """What to start and how to end it.

    Attributes:
        argv: The command line; the program is looked for on the launch's own PATH.
        env: The whole environment.
        cwd: Working folder; None for advisor's own.
        run: Absolute run folder: it names the launches that belong together.
        on_end: Commands that end what is no process here (remove a container, cancel a job step). They run after the
            server has ended, whether or not something is left to end, and carry no secrets: they are written down.
        grace_s: From SIGTERM to SIGKILL when advisor cannot say it, because it died.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    run: str
    on_end: tuple[tuple[str, ...], ...] = ()
    grace_s: float = 10.0


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        exit_code: Of the server, -N for signal N; None when not even SIGKILL ended it.
        killed: Processes that outlived the grace and were killed.
        left: Processes that could not be ended: a driver holds them, or they belong to another user.
    """

    exit_code: int | None
    killed: tuple[int, ...]
    left: tuple[int, ...]


class ServerProcess:
    """One launched server with everything that it starts.

    Leaving the context ends it all. So does the end of this process, however it comes.

    Args:
        launch: What to start.
        output: Takes what the server prints, in raw pieces and on a thread of its own; while it is busy the server
            waits. What it raises is raised again by `stop`.
        stdin: Descriptor that becomes the server's standard input; none for an empty one. It stays the caller's.

    Raises:
        EngineMissing: the program is not there, or cannot be executed.
        EngineFailed: the system refuses to start it.
    """

    def __init__(self, launch: Launch, output: Callable[[bytes], None], stdin: int | None = None) -> None:
        self._launch, self._output = launch, output
        self._cwd = launch.cwd or str(Path.cwd())
        self._mark, self._run = Mark.new(), os.path.realpath(launch.run)
        self._env = {**launch.env, RUN: self._run, LAUNCH: str(self._mark)}
        self._changed = threading.Condition()
        self._exit_code: int | None = None
        self._ended: Ended | None = None
        self._trouble: Exception | None = None
        self._record = remember(self._run, self._mark, launch.on_end)
        try:
            self._start(stdin)
        except BaseException:
            if self._record:
                self._record.forget()
            raise
        self._thread = threading.Thread(target=self._follow, name=f"server-{self.pid}", daemon=True)
        self._thread.start()

    def _start(self, stdin: int | None) -> None:
        order_in, self._lifeline = os.pipe()
        self._status, status_in = os.pipe()
        self._pipe, output_in = os.pipe()
        try:
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__],
                stdin=order_in,
                stdout=status_in,
                stderr=status_in,
                cwd="/",
                env={**os.environ, RUN: self._run, LAUNCH: str(self._mark), GUARDIAN: "1"},
                pass_fds=(output_in,) if stdin is None else (output_in, stdin),
                start_new_session=True,
            )
        except OSError as error:
            self._close()
            raise EngineFailed(f"The system refuses to start a process: {error.strerror}.") from None
        finally:
            for descriptor in (order_in, status_in, output_in):
                os.close(descriptor)
        order: guardian.Order = {
            "argv": list(self._launch.argv),
            "env": self._env,
            "cwd": self._cwd,
            "output": output_in,
            "input": stdin,
            "on_end": [list(argv) for argv in self._launch.on_end],
            "record": str(self._record.path) if self._record else None,
            "grace_s": self._launch.grace_s,
            "advisor": os.getpid(),
        }
        try:
            self._tell(order)
            self.pid = self._first_word()
        except BaseException:
            self._close()
            self._guardian.wait()
            raise

    def _first_word(self) -> int:
        """Pid of the server, or why there is none."""
        said = b""
        while not (said.startswith(b"{") and b"\n" in said):
            data = os.read(self._status, CHUNK_BYTES)
            if not data:
                last_words = said.decode(errors="replace").strip().rpartition("\n")[2]
                raise EngineFailed(f"The guardian of the launch could not start: {last_words or 'it was killed'}.")
            said += data
        line, _, self._heard = said.partition(b"\n")
        word: dict[str, Any] = json.loads(line)
        if "refused" in word:
            raise _refused(self._launch, **word["refused"])
        return int(word["started"])

    # -- asking ------------------------------------------------------------------------------------------------------

    def poll(self) -> int | None:
        """Exit code of the server, -N for signal N; None while it runs."""
        return self._exit_code

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the server to end by itself; its exit code, or None when it still runs then."""
        with self._changed:
            self._changed.wait_for(lambda: self._exit_code is not None, timeout_s)
        return self._exit_code

    def pids(self) -> frozenset[int]:
        """Live processes of the launch: the server, its workers, and orphans of theirs."""
        if self._ended is not None:
            return frozenset(pid for pid in self._ended.left if task(pid))
        if self._guardian.poll() is None:
            return frozenset(descendants([self._guardian.pid], tasks()))
        return frozenset(self.marked())

    @property
    def guardian_pid(self) -> int:
        """The process that ends the launch when this one cannot."""
        return self._guardian.pid

    def stop(self, grace_s: float | None = None) -> Ended:
        """End every process of the launch; when it returns, all output has been handed over.

        Args:
            grace_s: From SIGTERM to SIGKILL; none for the launch's own. A second call, from another thread, may hurry
                the first.
        """
        grace_s = self._launch.grace_s if grace_s is None else grace_s
        self._tell({"stop": grace_s})
        self._thread.join(grace_s + SETTLE_S + ON_END_S * len(self._launch.on_end) + KILL_S + PATIENCE_S)
        if self._thread.is_alive():
            self._guardian.kill()
            self._thread.join()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        assert self._ended is not None
        return self._ended

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- the thread that listens -------------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            self._listen()
            self._guardian.wait()
            if self._ended is None:
                self._end_alone()
            # A process that could not be ended may print on: what was in the pipe by now is the last of the launch.
            os.set_blocking(self._pipe, False)
            with contextlib.suppress(BlockingIOError):
                self._hand_over(os.read(self._pipe, fcntl.fcntl(self._pipe, fcntl.F_GETPIPE_SZ)))
        finally:
            self._close()

    def _listen(self) -> None:
        """Hand over output and hear the guardian, until that is gone."""
        both = select.poll()
        both.register(self._status, select.POLLIN)
        both.register(self._pipe, select.POLLIN)
        self._hear(b"")
        while True:
            for descriptor, _ in both.poll():
                data = os.read(descriptor, CHUNK_BYTES)
                if descriptor == self._pipe and not data:
                    both.unregister(descriptor)
                elif descriptor == self._pipe:
                    self._hand_over(data)
                elif data:
                    self._hear(data)
                else:
                    return

    def _hear(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):  # a guardian that fails says so in its own words
                word = json.loads(line)
                if "exited" in word:
                    self._note_exit(word["exited"])
                elif "ended" in word:
                    self._ended = Ended(self._exit_code, *(tuple(word["ended"][key]) for key in ("killed", "left")))

    def _hand_over(self, data: bytes) -> None:
        if data and self._trouble is None:
            try:
                self._output(data)
            except Exception as error:  # noqa: BLE001 - raised again by `stop`; until then the server must not block
                self._trouble = error

    def _note_exit(self, code: int) -> None:
        with self._changed:
            self._exit_code = code
            self._changed.notify_all()

    def _end_alone(self) -> None:
        """The guardian was killed, and the server with it: end the rest, and what is elsewhere."""
        killed, left = end_all(self.marked)
        if self._exit_code is None and self.pid not in left:
            self._note_exit(-signal.SIGKILL)
        if self._record is not None:
            self._record.carry_out(self._env)
        self._ended = Ended(self._exit_code, tuple(sorted(killed)), tuple(sorted(left)))

    def marked(self) -> set[int]:
        """Live processes of the launch, found without the guardian: those of a launcher's daemon too."""
        among = tasks()
        marked = {each.task.pid for each in carriers(self._run) if each.mark == self._mark and not each.is_guardian}
        marked |= {each.pid for each in among.values() if each.session == self.pid}
        return members(marked, among, [str(Path(f"/proc/self/fd/{self._pipe}").readlink())])

    def _tell(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._changed, contextlib.suppress(BrokenPipeError):
            while data and self._lifeline >= 0:
                data = data[os.write(self._lifeline, data) :]

    def _close(self) -> None:
        with self._changed:
            for descriptor in (self._lifeline, self._status, self._pipe):
                os.close(descriptor)
            self._lifeline = self._status = self._pipe = -1


def end_leftovers(run: str) -> tuple[int, ...]:
    """End what launches of a run left whose advisor is dead: processes, and what their `on_end` commands end.

    A launch of an advisor that lives is not touched, nor one made in another container or on another machine.

    Args:
        run: Absolute run folder.

    Returns:
        Pids of the processes that were found and ended.
    """
    run = os.path.realpath(run)
    marked = [each for each in carriers(run) if each.mark.is_left]
    found, killed, left = _left(marked), set[int](), set[int]()
    if marked:
        for each in marked:
            if each.is_guardian:
                _hurry(each.task)
        killed, left = end_all(lambda: _left([each for each in carriers(run) if each.mark.is_left]))
    for record in remembered(run):
        if record.mark.is_left:
            record.carry_out(os.environ)
    return tuple(sorted((found | killed) - left))


def _left(marked: Sequence[Carrier]) -> set[int]:
    """Processes of launches, some of whose processes are known, without their guardians."""
    return members({each.task.pid for each in marked if not each.is_guardian}, tasks()) if marked else set()


def _hurry(own: Task) -> None:
    """Let a guardian that is still ending its launch come to an end, without the rest of its grace."""
    late = time.monotonic() + ON_END_S + KILL_S + PATIENCE_S
    while task(own.pid) == own:
        send(signal.SIGTERM if time.monotonic() < late else signal.SIGKILL, {own.pid})
        time.sleep(0.02)


def _refused(launch: Launch, errno: int, text: str, file: str | None) -> AdvisorError:
    """The error of a launch that the system did not start."""
    program = launch.argv[0]
    if file != program or errno not in (ENOENT, ENOTDIR, EACCES, ENOEXEC):
        about = f" ({file})" if file not in (None, program) else ""
        return EngineFailed(f"The system refuses to start {program}: {text}{about}.")
    found = shutil.which(program, path=launch.env.get("PATH"))
    if errno == ENOENT and found is None:
        why = f"There is no program {program}"
    elif errno == ENOENT:
        why = f"{found} cannot be executed: the interpreter that its first line names is not there"
    else:
        why = f"{found or program} cannot be executed: {text}"
    return EngineMissing(
        f"{why}. Activate the environment that has it or put its folder on PATH, or launch in a container "
        "(--container-image)."
    )
