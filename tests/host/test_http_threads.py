"""Who serves HTTP, and how busy it is: real processes, sockets and /proc."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from advisor.host.http_threads import HttpThreads, cpu_s, holders
from advisor.host.ports import free_port
from tests.host.waiting import until

SERVER = str(Path(__file__).with_name("http_server.py"))


@contextlib.contextmanager
def serving(busy_s: float) -> Iterator[tuple[int, int, int]]:
    """Port, the process that answers and the one that only inherited the listening socket."""
    port = free_port()
    with subprocess.Popen([sys.executable, SERVER, str(port), str(busy_s)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        server, heir = map(int, run.stdout.readline().split())
        try:
            yield port, server, heir
        finally:
            os.kill(heir, 9)
            run.kill()


def share(port: int, pids: tuple[int, ...], pause_s: float) -> float | None:
    """What is said of a server that is asked over one connection, with pauses, until somebody was seen to serve."""
    watch = HttpThreads(port, lambda: pids)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < 1.5:
        connection.request("GET", "/")
        connection.getresponse().read()
        time.sleep(pause_s)
    found = watch.busiest_share()
    watch.stop()
    connection.close()
    return found


def test_a_server_that_computes_all_the_time_is_told_from_one_that_waits_and_from_one_that_inherited() -> None:
    with serving(0.05) as (port, server, heir):
        busy = share(port, (server, heir), 0.0)
    with serving(0.0) as (port, server, heir):
        idle = share(port, (server, heir), 0.05)
    assert busy is not None and idle is not None
    assert 0.0 <= idle < busy / 4, "the heir computes all the time, and serves nobody"


def test_only_who_accepted_a_connection_holds_one() -> None:
    with serving(0.0) as (port, server, heir):
        assert holders(port, (server, heir, os.getpid())) == frozenset()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")
        connection.getresponse().read()
        until(lambda: holders(port, (server, heir, os.getpid())) == {server})
        assert holders(port, (heir,)) == frozenset(), "of these processes nobody serves"
        connection.close()


def test_a_server_that_cannot_be_seen_or_serves_nobody_is_not_said_to_be_idle() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert holders(1, (gone.pid,)) == frozenset()
    assert cpu_s(gone.pid) == {}
    watch = HttpThreads(1, lambda: (os.getpid(),))
    assert watch.busiest_share() is None
    watch.stop()


def test_every_thread_has_its_own_time() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    ended_s = time.thread_time() + 0.2
    while time.thread_time() < ended_s:
        pass
    threads = cpu_s(os.getpid())
    stop.set()
    thread.join()
    assert thread.native_id is not None
    assert threads[os.getpid()] >= 0.15 > threads[thread.native_id]
