"""Server-sent events: bytes of a response body to events, however the bytes are cut into reads.

Source: WHATWG HTML, section 9.2.6 (interpreting an event stream); `id` and `retry` fields are read over.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 1 << 20


class SseEvent(NamedTuple):
    """One event: its type (empty for the usual `message`) and its data lines joined by newlines."""

    name: bytes
    data: bytes


class SseFraming:
    """The bytes of one event stream so far. An event counts once its blank line is there."""

    def __init__(self) -> None:
        self._line = b""
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[SseEvent]:
        """The events that this piece completes.

        Raises:
            ValueError: a line longer than any event of a completion.
        """
        if not piece:
            return []
        if self._after_cr and piece[:1] == b"\n":  # the second half of a CRLF that two reads cut in two
            self._after_cr = False
            return self.feed(piece[1:])
        self._after_cr = piece[-1:] == b"\r"
        lines = (self._line + piece).splitlines(keepends=True)
        self._line = b"" if lines[-1][-1:] in (b"\n", b"\r") else lines.pop()
        if len(self._line) > MAX_EVENT_BYTES:
            raise ValueError(f"a line of more than {MAX_EVENT_BYTES:,} bytes")
        events = []
        for line in lines:
            text = line.rstrip(b"\r\n")
            if text:
                self._field(text)
                continue
            if self._data:
                events.append(SseEvent(self._name, b"\n".join(self._data)))
            self._name, self._data = b"", []
        return events

    def _field(self, line: bytes) -> None:
        """One line that is not blank; comments (a colon in front) have an empty field name."""
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
