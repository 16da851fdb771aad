"""The output of a running server: kept in a bounded file, and read while it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from advisor.engines.rule_book import RULES
from advisor.host.output import BoundedLog, Lines
from advisor.memory.case import Case
from advisor.memory.events import LogEvent

T = TypeVar("T")
BEGINNING_CHARS = 16_384


class LiveLog:
    """Takes chunks from the thread that reads the server's pipe, and reads them there.

    Args:
        log: Where the text is kept.
        observe: Called with every event, in the order of the log.
    """

    def __init__(self, log: BoundedLog, observe: Callable[[LogEvent], None]) -> None:
        self._log, self._observe = log, observe
        self._lines, self._reader, self._case = Lines(), RULES.reader(), Case()
        self._lock = threading.Lock()
        self._closed = False
        self.beginning = ""
        """The first lines, where whatever launches the server speaks."""

    def take(self, chunk: bytes) -> None:
        """Keep and read more output."""
        with self._lock:
            self._read(self._lines.feed(self._log.write(chunk)))

    def look(self, at: Callable[[Case], T]) -> T:
        """The answer of a function of the case as far as it is read; the function must not keep the case."""
        with self._lock:
            return at(self._case)

    def close(self) -> None:
        """No more output: read the last line and close the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._read(self._lines.feed(self._log.close()))
                self._read(self._lines.close())

    def _read(self, lines: Iterable[tuple[int, str]]) -> None:
        for number, text in lines:
            if len(self.beginning) < BEGINNING_CHARS:
                self.beginning += text
            for event in self._reader.take(number, text):
                self._case.take(event)
                self._observe(event)
