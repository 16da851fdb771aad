"""The next launch's process, started while the current one runs: it has imported by the time it is launched.

Held is one process at most, under a guardian of its own (`process.py`), so it ends on every path on which a server
does. It is told its command line only when it becomes a launch; environment, folder and run it has from the beginning,
and a launch that differs in them is made afresh. So is one whose held process has died: that is never an error of a
launch, and nothing is held any more then.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from advisor.domain.errors import AdvisorError
from advisor.host import held
from advisor.host.process import Launch, ServerProcess

Output = Callable[[bytes], None]
LAST_WORD_S = 2.0  # from the end of the socket to the exit code


class Begun(NamedTuple):
    """A started launch: whether its process had been held, and why not where it should have been."""

    process: ServerProcess
    held: bool = False
    afresh_because: str = ""


class _Output:
    """Keeps what a held process prints until a launch takes it."""

    def __init__(self) -> None:
        self._lock, self._kept = threading.Lock(), b""
        self._taker: Output | None = None

    def __call__(self, data: bytes) -> None:
        with self._lock:
            if self._taker is None:
                self._kept += data
            else:
                self._taker(data)

    def hand_to(self, taker: Output) -> None:
        """What was kept, and all that follows."""
        with self._lock:
            self._taker = taker
            if self._kept:
                taker(self._kept)

    @property
    def last_line(self) -> str:
        return self._kept.decode(errors="replace").strip().rpartition("\n")[2]


class _Held:
    """One process that waits, or imports still."""

    def __init__(self, argv: Sequence[str], launch: Launch) -> None:
        self.like, self._output = replace(launch, argv=launch.argv[:1]), _Output()
        self._link, given = socket.socketpair()
        try:
            with given:
                self.process = ServerProcess(replace(launch, argv=tuple(argv)), self._output, given.fileno())
        except BaseException:
            self._link.close()
            raise
        self._word = b""

    def has_imported(self, timeout_s: float) -> bool:
        """Wait for it; False where it died or takes longer."""
        self._link.settimeout(timeout_s)
        with contextlib.suppress(OSError):
            while self._word != held.HELD and (data := self._link.recv(len(held.HELD))):
                self._word += data
        return self._word == held.HELD

    def become(self, launch: Launch, output: Output) -> None:
        """Run this launch.

        Raises:
            OSError: it is dead.
        """
        self._link.sendall(json.dumps(launch.argv).encode() + b"\n")
        self._link.close()
        self._output.hand_to(output)

    def close(self) -> None:
        """End it."""
        self._link.close()
        self.process.stop(0.0)

    def autopsy(self) -> str:
        """End it, and why it could not become a launch."""
        code = self.process.wait(LAST_WORD_S)
        self.close()
        if code is None:
            return "the process that was held for it had not imported in time"
        return f"the process that was held for it ended with exit code {code}: {self._output.last_line or 'silently'}"


class Holder:
    """Starts launches of one program, each from the process that is held for it, where there is one.

    Args:
        interpreter: The Python that runs the program.
        command: Path of the program, a Python script.
        modules: What to import beforehand; all but the first are passed over where they cannot be.
    """

    def __init__(self, interpreter: str, command: str, modules: Sequence[str]) -> None:
        self._argv = (interpreter, held.__file__, command, *modules)
        self._held: _Held | None = None
        self._given_up = False

    def start(self, launch: Launch, output: Output, patience_s: float) -> Begun:
        """Start a launch.

        Args:
            launch: What to start.
            output: As for `ServerProcess`.
            patience_s: For a held process that imports still.

        Raises:
            EngineMissing: the program is not there.
            EngineFailed: the system refuses to start it.
        """
        mine = self._held
        if mine is None:
            return Begun(ServerProcess(launch, output))
        if mine.like != replace(launch, argv=launch.argv[:1]):
            self.close()
            return Begun(ServerProcess(launch, output), afresh_because="its environment is not that of the last launch")
        with contextlib.suppress(OSError):
            if mine.has_imported(patience_s):
                mine.become(launch, output)
                self._held = None
                return Begun(mine.process, held=True)
        self._held, self._given_up = None, True
        why = mine.autopsy()
        return Begun(ServerProcess(launch, output), afresh_because=why)

    def hold(self, launch: Launch) -> None:
        """Start a process for the launch after this one, unless one is held already."""
        if self._held is None and not self._given_up:
            try:
                self._held = _Held(self._argv, launch)
            except AdvisorError:
                self._given_up = True

    def wait(self, timeout_s: float) -> None:
        """Until the held process has imported, or will not: from then on it takes no time from anybody."""
        if self._held is not None:
            self._held.has_imported(timeout_s)

    def close(self) -> None:
        """End what is held."""
        mine, self._held = self._held, None
        if mine is not None:
            mine.close()
