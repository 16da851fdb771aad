"""What a person sees of a command: a real pseudo-terminal, and a screen small enough to be sure of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 60.0
_SEQUENCE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


@dataclass
class Vt:
    """Lines of a terminal that scrolls for ever; it knows what rich sends, and refuses all else."""

    columns: int
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    cursor_shown: bool = True
    coloured: bool = False

    def feed(self, text: str) -> None:
        """Take what a program wrote, in whole sequences."""
        while text:
            found = _SEQUENCE.match(text)
            if found is not None:
                self._act(found[1], found[2])
                text = text[found.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _act(self, numbers: str, letter: str) -> None:
        if letter == "m":
            self.coloured = True
        elif letter == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif letter == "K":
            assert numbers == "2"
            self.lines[self.row] = ""
        else:
            assert letter + numbers in ("l?25", "h?25"), f"unknown sequence {numbers}{letter}"
            self.cursor_shown = letter == "h"

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            assert character.isprintable(), f"{character!r} reached the terminal"
            if self.column == self.columns:
                self._put("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    @property
    def text(self) -> str:
        """All that stands there now."""
        return "\n".join(line.rstrip() for line in self.lines)


@dataclass
class Pty:
    """Both ends of a pseudo-terminal and the screen behind it."""

    master: int
    slave: int
    vt: Vt
    raw: str = ""
    _pending: str = ""

    def read(self, timeout_s: float = 0.05) -> bool:
        """Take what was written meanwhile; False where nothing was."""
        ready, _, _ = select.select([self.master], [], [], timeout_s)
        try:
            got = os.read(self.master, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the last writer is gone
            got = ""
        self.raw += got
        whole, self._pending = _whole(self._pending + got)
        self.vt.feed(whole)
        return bool(got)

    def wait_for(self, seen: Callable[[Vt], bool]) -> None:
        """Until the screen is as it should be."""
        until_s = time.monotonic() + PATIENCE_S
        while not seen(self.vt):
            assert time.monotonic() < until_s, f"never seen; the screen:\n{self.vt.text}"
            self.read()


def _whole(text: str) -> tuple[str, str]:
    """Text up to a sequence that is not complete yet, and that."""
    begin = text.rfind("\x1b")
    return (text, "") if begin < 0 or _SEQUENCE.match(text, begin) else (text[:begin], text[begin:])


@contextlib.contextmanager
def terminal(columns: int, rows: int = 40) -> Iterator[Pty]:
    """A terminal of that size."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield Pty(master, slave, Vt(columns))
    finally:
        os.close(master)
        with contextlib.suppress(OSError):
            os.close(slave)


@contextlib.contextmanager
def started(pty: Pty, *argv: str, cwd: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`advisor` on a terminal of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "advisor", *argv],
        cwd=cwd, env=env, stdin=pty.slave, stdout=pty.slave, stderr=pty.slave, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(pty: Pty, process: subprocess.Popen[bytes]) -> int:
    """Read to the end; the exit code."""
    until_s = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < until_s, f"it does not end; the screen:\n{pty.vt.text}"
        pty.read()
    while pty.read():
        pass
    return process.returncode
