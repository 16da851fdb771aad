"""The live page's server: for this machine alone, read only, and gone without a trace."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.host.page_server import PageServer
from tests.standin.running import PATIENCE_S


@pytest.fixture(scope="module")
def shared_server() -> Iterator[PageServer]:
    with PageServer(0) as server:
        yield server


def ask(server: PageServer, method: str, path: str, host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    port = int(server.url.rpartition(":")[2].strip("/"))
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    link.request(method, path, headers={} if host is None else {"Host": host})
    answer = link.getresponse()
    body, headers = answer.read(), dict(answer.getheaders())
    link.close()
    return answer.status, body, headers


def test_what_is_published_is_served_as_it_is_and_its_version_grows() -> None:
    with PageServer(0) as server:
        versions = []
        for page in ("<p>one", "<p>two \u00e9"):
            server.publish(page)
            server.tell(f"after {page}")
            status, body, headers = ask(server, "GET", "/report.html")
            assert (status, body.decode()) == (200, page)
            assert headers["Cache-Control"] == "no-store"
            told = json.loads(ask(server, "GET", "/version")[1])
            assert (told["status"], told["over"]) == (f"after {page}", False)
            versions.append(told["version"])
        assert versions == sorted(set(versions))
        assert ask(server, "HEAD", "/report.html")[1] == b""
        assert b"/live.js" in ask(server, "GET", "/")[1]
        assert ask(server, "GET", "/live.js")[0] == 200
        assert ask(server, "GET", "/../../etc/passwd")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_only_read(method: str) -> None:
    with PageServer(0) as server:
        status, _, headers = ask(server, method, "/report.html")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_name_that_was_resolved_to_this_machine_reads_nothing() -> None:
    with PageServer(0) as server:
        server.publish("secret")
        for host in ("evil.example", "127.0.0.1.evil.example:8765", "localhost.evil.example", "0.0.0.0", "", "[::1"):
            status, body, _ = ask(server, "GET", "/report.html", host)
            assert status == 403, host
            assert b"secret" not in body
        for host in ("127.0.0.1", "localhost:9999", "[::1]:1", "LOCALHOST"):
            assert ask(server, "GET", "/report.html", host)[0] == 200, host


def test_it_listens_on_the_loopback_address_alone() -> None:
    with PageServer(0) as server:
        assert server.url.startswith("http://127.0.0.1:")


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadInput, match=r"port \d+ of 127\.0\.0\.1 \(address already in use\).*--port"):
            PageServer(other.getsockname()[1])


def test_nothing_is_left_of_it_even_with_browsers_that_wait() -> None:
    before = set(threading.enumerate())
    with PageServer(0) as server:
        port = int(server.url.rpartition(":")[2].strip("/"))
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        server.publish("x")
        assert ask(server, "GET", "/report.html")[0] == 200
    assert set(threading.enumerate()) <= before
    for link in waiting:
        link.close()
    PageServer(port).close()


def test_whoever_watches_may_fetch_the_last_page_first() -> None:
    with PageServer(0) as server:
        server.publish("first")
        ask(server, "GET", "/version")
        server.publish("last")
        got: list[bytes] = []
        late = threading.Timer(0.2, lambda: got.append(ask(server, "GET", "/report.html")[1]))
        late.start()
    late.join()
    assert got == [b"last"]


@given(st.binary(max_size=200))
def test_nonsense_ends_with_an_answer_or_a_closed_connection(shared_server: PageServer, data: bytes) -> None:
    port = int(shared_server.url.rpartition(":")[2].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as link:
        link.sendall(data + b"\r\n\r\n")
        link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while link.recv(65_536):
                continue
    assert ask(shared_server, "GET", "/version")[0] == 200
