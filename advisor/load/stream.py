"""One HTTP/1.1 connection that carries one streamed completion after another.

A `BufferedProtocol` over one small buffer for all connections: nothing is allocated for a read, where the stock
transport asks for 256 KiB at every chunk. Time is taken once per read, before anything is parsed.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

from advisor.load.record import StreamRecord, error_text, parsed, shown
from advisor.load.sse import SseFraming

READ_BYTES = 16 * 1024
KEPT_BODY_BYTES = 16 * 1024  # of an answer that is no stream, to explain it


class ConnectionOwner(Protocol):
    """Who opened a connection and is told what becomes of it."""

    read_buffer: memoryview

    def heard(self) -> float:
        """The server said something; returns the time in ms on the run's clock."""
        ...

    def on_answer(self, connection: Connection, record: StreamRecord) -> None:
        """The answer is complete, or broke off with the connection after it had begun (`record.error`)."""
        ...

    def on_lost(self, connection: Connection, record: StreamRecord | None, error: Exception | None) -> None:
        """The connection is gone; `record` is a request that is left without an answer."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Sends one request at a time and fills its record."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.record: StreamRecord | None = None
        self.n_answers = 0
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._expect()

    def _expect(self) -> None:
        """Make ready for the next answer; a parser belongs to one answer, so nothing of an old one can leak in."""
        self._parser = httptools.HttpResponseParser(self)
        self._framing = SseFraming()
        self._pieces: list[bytes] = []
        self._body = b""
        self._n_events = 0
        self._has_length = False
        self._heard = False
        self._headers_done = False
        self._complete = self._kept_alive = False

    @property
    def reusable(self) -> bool:
        """True when another request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing() and self.record is None

    @property
    def may_retry(self) -> bool:
        """True when a kept connection was lost before anything of an answer came: the server had closed it idle."""
        return self.n_answers > 0 and not self._heard

    def send(self, request: bytes, record: StreamRecord, now_ms: float) -> None:
        """Send a request; its answer goes to `record`."""
        assert self._transport is not None
        self._expect()
        self.record = record
        record.sent_ms = now_ms
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once, whatever is in flight."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """The one buffer of the run: it is read before the loop turns to another connection."""
        return self._owner.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what arrived into the record of the request in flight."""
        now_ms, record = self._owner.heard(), self.record
        self._heard = True
        if record is None:  # a farewell such as 408 before an idle connection is closed
            self.abort()
            return
        try:
            self._parser.feed_data(self._owner.read_buffer[:nbytes])
            self._read_body(record, now_ms)
        except (httptools.HttpParserError, ValueError) as error:
            record.fail(f"got an answer that is no HTTP event stream ({shown(str(error))})", alarm=True)
            self._answered(record, reusable=False)
            return
        if self._complete:
            self._answered(record, reusable=self._kept_alive)

    def eof_received(self) -> None:
        """The server will send no more; the transport closes and `connection_lost` says the rest."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell what was lost with the connection."""
        record = self.record
        if record is None or not self._headers_done or exc is not None:
            self.record = None
            self._owner.on_lost(self, record, exc)
            return
        if self._has_length and record.status == 200:
            record.fail(f"lost its connection after {self._n_events} events: the server cut the stream", alarm=True)
        self._answered(record, reusable=False)
        self._owner.on_lost(self, None, exc)

    # -- httptools -------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A body with neither header ends with the connection."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """The answer begins."""
        assert self.record is not None
        self._headers_done = True
        self.record.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; it is read after the parser is done, which hides errors of its callbacks."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._complete, self._kept_alive = True, self._parser.should_keep_alive()

    # --------------------------------------------------------------------------------------------------------------

    def _read_body(self, record: StreamRecord, now_ms: float) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            if not self._n_events:
                self._body = (self._body + piece)[:KEPT_BODY_BYTES]
            if record.status == 200:
                for event in self._framing.feed(piece):
                    self._n_events += 1
                    record.take(event, now_ms)

    def _answered(self, record: StreamRecord, reusable: bool) -> None:
        """Judge the end of the answer and hand the record over."""
        if record.status != 200 or not self._n_events:
            record.fail(_refusal(record.status, self._body), alarm=record.status >= 500 or record.status == 200)
        elif not record.saw_done:
            record.fail("got a stream that ended without [DONE]", alarm=True)
        self.record = None
        self.n_answers += 1
        if not reusable and self._transport is not None:
            self._transport.close()
        self._owner.on_answer(self, record)


def _refusal(status: int, body: bytes) -> str:
    """What an answer without events says."""
    payload = parsed(body)
    message = error_text(payload) if payload is not None else None
    what = f"HTTP {status}" if status != 200 else "HTTP 200 without any event"
    text = message or shown(body)
    return f"got {what}: {text}" if text else f"got {what}"
