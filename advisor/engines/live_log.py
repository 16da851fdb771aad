"""The output of a running server: kept in a bounded file, and read while it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from advisor.engines.rule_book import RULES
from advisor.host.output import BoundedLog
from advisor.memory.case import Case
from advisor.memory.events import LogEvent

T = TypeVar("T")
BEGINNING_BYTES = 16_384


class LiveLog:
    """Takes chunks from the thread that reads the server's pipe, and reads them there.

    Args:
        log: Where the text is kept.
        observe: Called with every event, in the order of the log.
    """

    def __init__(self, log: BoundedLog, observe: Callable[[LogEvent], None]) -> None:
        self._log, self._observe = log, observe
        self._stream, self._case = RULES.stream(), Case()
        self._lock = threading.Lock()
        self._closed = False
        self.beginning = b""
        """The first lines, where whatever launches the server speaks."""

    def take(self, chunk: bytes) -> None:
        """Keep and read more output."""
        with self._lock:
            self._read(self._log.write(chunk))

    def look(self, at: Callable[[Case], T]) -> T:
        """The answer of a function of the case as far as it is read; the function must not keep the case."""
        with self._lock:
            return at(self._case)

    def close(self) -> None:
        """No more output: read the last line and close the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._read(self._log.close())
                self._count(self._stream.end())

    def _read(self, text: bytes) -> None:
        if len(self.beginning) < BEGINNING_BYTES:
            self.beginning += text[:BEGINNING_BYTES]
        self._count(self._stream.take(text))

    def _count(self, events: Iterable[LogEvent]) -> None:
        for event in events:
            self._case.take(event)
            self._observe(event)
