"""A small HTTP/1.1 server with uvicorn's manners: keep-alive, chunked streams, one access line a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import httptools

Route = Callable[["Exchange"], None]


class Exchange:
    """One request, and the way to answer it; nothing is sent once the client is gone."""

    def __init__(self, connection: Connection, method: str, path: str, body: bytes) -> None:
        self.connection, self.method, self.path, self.body = connection, method, path, body
        self.on_disconnect: Callable[[], None] | None = None
        self.streaming = False

    @property
    def client(self) -> str:
        return self.connection.client

    def json(self, value: Any, status: int = 200) -> None:
        self.respond(json.dumps(value, separators=(",", ":")).encode(), "application/json", status)

    def respond(self, body: bytes = b"", kind: str | None = None, status: int = 200) -> None:
        """A whole response."""
        headers = {"content-length": str(len(body)), **({"content-type": kind} if kind else {})}
        self._head(status, headers)
        self.connection.write(body)
        self.connection.finish(self)

    def start_stream(self) -> None:
        """Status 200 and the head of a stream of events."""
        self._head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        self.streaming = True

    def send(self, *events: bytes) -> None:
        """Events of a stream, each a chunk of its own."""
        self.connection.write(b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events))

    def end_stream(self) -> None:
        self.connection.write(b"0\r\n\r\n")
        self.connection.finish(self)

    def cut(self) -> None:
        """End the connection where it is: a client sees a truncated body."""
        self.connection.close()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        reason = HTTPStatus(status).phrase
        self.connection.log(f'INFO:     {self.client} - "{self.method} {self.path} HTTP/1.1" {status} {reason}')
        lines = [f"HTTP/1.1 {status} {reason}", f"date: {formatdate(usegmt=True)}", "server: uvicorn"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self.connection.keep_alive:
            lines.append("connection: close")
        self.connection.write("\r\n".join([*lines, "", ""]).encode())


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, route: Route, log: Callable[[str], None], open_now: set[Connection]) -> None:
        self.route, self.log, self.open_now = route, log, open_now
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.client = ""
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self.client = f"{host}:{port}"
        self.open_now.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.open_now.discard(self)
        self.transport = None
        if self.exchange is not None and self.exchange.on_disconnect is not None:
            self.exchange.on_disconnect()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.close()

    def on_message_begin(self) -> None:
        self._url, self._body = b"", bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()
        path = self._url.decode("latin-1")
        self.exchange = Exchange(self, self._parser.get_method().decode(), path, bytes(self._body))
        self.route(self.exchange)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def finish(self, exchange: Exchange) -> None:
        """A response is complete."""
        self.exchange = None
        if not self.keep_alive:
            self.close()

    def close(self) -> None:
        self.exchange = None
        if self.transport is not None:
            self.transport.close()
