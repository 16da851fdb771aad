"""TEST EQUIPMENT: a server that misbehaves. Run with `python -I -S awkward.py STEP...`; the steps are done in order."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def child(become: Callable[[], None], own_session: bool) -> None:
    """Go on when a child has become what it should be; one in its own session is double-forked, so an orphan."""
    there, ready = os.pipe()
    if os.fork():
        os.close(ready)
        os.read(there, 1)  # a byte, or the end because a program took its place
        os.close(there)
        return
    if own_session:
        os.setsid()
        if os.fork():
            os._exit(0)
        ignore_sigterm()
    if become is wait:
        os.write(ready, b"1")
    become()


def wiped() -> None:
    """A program whose environment says nothing any more."""
    os.execve("/bin/sleep", ["sleep", "60"], {})


def goodbye(text: bytes) -> None:
    def say(*_: object) -> None:
        write(text)
        os._exit(0)

    signal.signal(signal.SIGTERM, say)


def prattle() -> None:
    ignore_sigterm()
    while True:
        write(b"still here\n")
        time.sleep(0.001)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def wait() -> None:
    while True:
        time.sleep(60)


def silent() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


def signals() -> None:
    """Whether SIGINT is ignored, and how many signals are blocked."""
    write(b"%d %d\n" % (signal.getsignal(signal.SIGINT) == signal.SIG_IGN, len(signal.pthread_sigmask(0, ()))))


def descriptors() -> None:
    with os.scandir("/proc/self/fd") as entries:
        write(" ".join(sorted(entry.name for entry in entries)).encode() + b"\n")


PLAIN: dict[str, Callable[[], None]] = {
    "worker": lambda: child(wait, own_session=False),
    "orphan": lambda: child(wait, own_session=True),
    "wiped": lambda: child(wiped, own_session=False),
    "wiped-orphan": lambda: child(wiped, own_session=True),
    "deaf": ignore_sigterm,
    "prattle": prattle,
    "silent": silent,
    "signals": signals,
    "descriptors": descriptors,
    "wait": wait,
}
WITH_VALUE: dict[str, Callable[[str], object]] = {
    "say": lambda value: write(value.encode() + b"\n"),
    "flood": lambda value: write(b"x" * int(value)),
    "goodbye": lambda value: goodbye(value.encode()),
    "environment": lambda value: write(os.environb[value.encode()] + b"\n"),
    "exit": lambda value: os._exit(int(value)),
    "die": lambda value: os.kill(os.getpid(), int(value)),
}

for word in sys.argv[1:]:
    name, _, value = word.partition("=")
    if name in PLAIN:
        PLAIN[name]()
    else:
        WITH_VALUE[name](value)
