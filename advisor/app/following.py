"""`advisor doctor --follow`: the log of a running server while it grows."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from advisor.app.doctoring import Examiner, Reading
from advisor.app.log_source import LogSource, opened
from advisor.domain.outcome import Phase
from advisor.engines.rule_book import RULES
from advisor.memory.case import root_cause
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.events import LogEvent
from advisor.memory.phases import PhaseTracker

POLL_S = 0.25
LOOK_EVERY_S = 1.0  # where the log never pauses


class Watcher(Protocol):
    """Who is told while a log is followed."""

    def phase(self, phase: Phase, event: LogEvent) -> None:
        """The server has come to a phase."""
        ...

    def diagnosis(self, found: Diagnosis) -> None:
        """A cause of failure is known, or the server is ready; again when that changes."""
        ...


Wait = Callable[[float], bool]
"""Waits so many seconds, or until somebody says stop; True when somebody has."""


def follow(log: str, examiner: Examiner, watcher: Watcher, wait: Wait, poll_s: float = POLL_S) -> Diagnosis:
    """Read a log until its end, which a file never has, or until `wait` says stop; what is known then.

    A file that was cut to nothing or replaced by a new one is read on from its new beginning; lines count on.

    Args:
        log: A path, or `-` for standard input.
        examiner: Knows what stands besides the log.
        watcher: Is told as soon as something is certain: in a pause of the log, or after a second without one.
        wait: Called between two looks at a log that has not grown.
        poll_s: Seconds between two looks.

    Raises:
        BadInput: no such file, or what it holds at the end is no log.
    """
    following = _Following(examiner, watcher)

    def pause() -> bool:
        following.look()
        return wait(poll_s)

    with _growing(log) as file:
        source, stream = LogSource(_Growing(file, pause), log), RULES.stream()
        for chunk in source.chunks():
            following.take(stream.take(chunk))
        following.take(stream.end())
    following.look()
    return examiner.last_word(following.reading, source)


class _Following:
    """The present start of the server, and what was said of it."""

    def __init__(self, examiner: Examiner, watcher: Watcher) -> None:
        self._examiner, self._watcher = examiner, watcher
        self._begin()
        self._looked_at_s = time.monotonic()

    def _begin(self) -> None:
        self.reading, self._phases = Reading(), PhaseTracker()
        self._said: tuple[object, ...] = ()
        self._news = False

    def take(self, events: Iterable[LogEvent]) -> None:
        """Count events in; a server that is started again in the same log is a new one."""
        for event in events:
            if event.meaning.role == "mark" and event.meaning.stage == "launch" and self._is_over():
                self.look()
                self._begin()
            self.reading.take(event)
            self._news = True
            if (phase := self._phases.take(event)) is not None:
                self._watcher.phase(phase, event)
        if time.monotonic() - self._looked_at_s > LOOK_EVERY_S:
            self.look()

    def _is_over(self) -> bool:
        return self.reading.case.ready is not None or root_cause(self.reading.case) is not None

    def look(self) -> None:
        """Tell what is certain by now, unless it was told."""
        self._looked_at_s = time.monotonic()
        if not self._news:
            return
        self._news = False
        found = self._examiner.diagnosis(self.reading)
        case = self.reading.case
        certain = case.ready if found.verdict == "benign" else root_cause(case) or case.wrappers
        said = (found.verdict, found.phase, found.component, found.short_gib)
        if certain and said != self._said:
            self._said = said
            self._watcher.diagnosis(found)


class _Source(Protocol):
    """Something that may grow: None where it has not, no bytes where it never will again."""

    def more(self, size: int) -> bytes | None: ...
    def close(self) -> None: ...


class _Growing:
    """A byte stream that waits for more, and ends when somebody says stop."""

    def __init__(self, source: _Source, wait: Callable[[], bool]) -> None:
        self._source, self._wait = source, wait

    def read1(self, size: int, /) -> bytes:
        while (data := self._source.more(size)) is None:
            if self._wait():
                return b""
        return data


class _Pipe:
    """Standard input or a named pipe: it ends when its writers do."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def more(self, size: int) -> bytes | None:
        readable, _, _ = select.select([self._fd], [], [], 0)
        return os.read(self._fd, size) if readable else None

    def close(self) -> None:
        os.close(self._fd)


class _File:
    """A file that may be cut to nothing, or moved away and written anew under its name."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd = path, fd

    def more(self, size: int) -> bytes | None:
        if data := os.read(self._fd, size):
            return data
        return (os.read(self._fd, size) or None) if self._began_anew() else None

    def _began_anew(self) -> bool:
        mine = os.fstat(self._fd)
        if mine.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            return True
        with suppress(OSError):  # moved away, and nothing there yet
            there = Path(self._path).stat()
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                fresh = os.open(self._path, os.O_RDONLY)
                os.close(self._fd)
                self._fd = fresh
                return True
        return False

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def _growing(log: str) -> Iterator[_Source]:
    with opened(log) as file:
        fd = os.dup(file.fileno())
    source = _File(log, fd) if stat.S_ISREG(os.fstat(fd).st_mode) and log != "-" else _Pipe(fd)
    try:
        yield source
    finally:
        source.close()
