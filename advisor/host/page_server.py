"""One page on the loopback address, shown anew whenever there is a newer one.

`/` is a frame around `/report.html`, which is served as it is; the frame asks `/version` and keeps its reader's place.
Answers go to whoever names this machine as a loopback host: a page from elsewhere that had its own name resolved to
127.0.0.1 (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from advisor.domain.errors import BadInput
from advisor.host.ports import LOOPBACK

NAMES = frozenset({LOOPBACK, "localhost", "::1"})
IDLE_S = 5.0  # browsers open connections ahead of need
WATCHED_S = 5.0  # since the last question about the version
FAREWELL_S = 3.0  # for whoever watches to fetch the last page
_FRAME = Path(__file__).with_name("live_page")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FRAME_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class _Answer(NamedTuple):
    body: bytes
    kind: str
    status: HTTPStatus = HTTPStatus.OK
    policy: str | None = None
    version: int | None = None
    """Of the page, where that is what it holds."""


class PageServer:
    """A context manager: leaving it ends its threads and frees its port.

    Args:
        port: On the loopback address; 0 for any.

    Raises:
        BadInput: the port is taken, or not allowed.
    """

    def __init__(self, port: int) -> None:
        self._news = threading.Condition()
        self._page, self._version, self._status, self._over = b"", 0, "", False
        self._fetched, self._asked_s = -1, float("-inf")
        try:
            self._http = _Http((LOOPBACK, port), self)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise BadInput(f"Cannot listen on port {port} of {LOOPBACK} ({why}): choose another with --port.") from None
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, name="live-page"
        )
        self._thread.start()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(farewell=kind is None)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOOPBACK}:{self._http.server_address[1]}/"

    def publish(self, page: str) -> None:
        """Show this from now on."""
        with self._news:
            self._page, self._version = page.encode(), self._version + 1

    def tell(self, status: str, over: bool = False) -> None:
        """Say this above the page; `over` when nothing will follow."""
        with self._news:
            self._status, self._over = status, over

    def close(self, farewell: bool = False) -> None:
        """End it; with a farewell, somebody who is watching may fetch the last page first."""
        if farewell:
            with self._news:
                self._news.wait_for(self._all_seen, FAREWELL_S)
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        self._thread.join()

    def _all_seen(self) -> bool:
        return self._fetched == self._version or time.monotonic() - self._asked_s > WATCHED_S

    def sent(self, version: int) -> None:
        """Somebody has this version of the page, to its last byte."""
        with self._news:
            self._fetched = max(self._fetched, version)
            self._news.notify_all()

    def answer(self, path: str) -> _Answer:
        """What is at a path."""
        with self._news:
            if path == "/version":
                self._asked_s = time.monotonic()
                told = {"version": self._version, "status": self._status, "over": self._over}
                return _Answer(json.dumps(told).encode(), "application/json")
            if path == "/report.html":
                return _Answer(self._page, "text/html; charset=utf-8", version=self._version)
        if path == "/":
            return _Answer((_FRAME / "index.html").read_bytes(), "text/html; charset=utf-8", policy=_FRAME_POLICY)
        if path == "/live.js":
            return _Answer((_FRAME / "live.js").read_bytes(), "text/javascript; charset=utf-8")
        return _refusal(HTTPStatus.NOT_FOUND, "There is nothing here; the report is at /.")


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], pages: PageServer) -> None:
        self.pages = pages
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        self._connections.add(connection)
        return connection, client

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake every thread that waits for a browser."""
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = IDLE_S
    server_version, sys_version = "advisor", ""

    def do_GET(self) -> None:
        self._send(self._found())

    def do_HEAD(self) -> None:
        self._send(self._found())

    def _found(self) -> _Answer:
        if not is_loopback(self.headers.get("Host", "")):
            return _refusal(HTTPStatus.FORBIDDEN, f"This page is for {', '.join(sorted(NAMES))} alone.")
        return self.server.pages.answer(urlsplit(self.path).path)

    def _send(self, answer: _Answer, **headers: str) -> None:
        self.send_response(answer.status)
        policy = {"Content-Security-Policy": answer.policy} if answer.policy else {}
        sent = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body)), **_HEADERS, **policy, **headers}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
            if answer.version is not None:
                self.server.pages.sent(answer.version)

    def _refused(self) -> None:
        self._send(_refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This page is only read."), Allow="GET, HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_TRACE = _refused  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """The terminal belongs to the study."""


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, under any port: tunnels change it."""
    try:
        return urlsplit(f"//{host}").hostname in NAMES
    except ValueError:
        return False


def _refusal(status: HTTPStatus, why: str) -> _Answer:
    return _Answer(f"{why}\n".encode(), "text/plain; charset=utf-8", status)
