"""Launches of the misbehaving server, and an advisor to kill."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advisor.host.guardian import task
from advisor.host.marks import carriers
from advisor.host.process import Launch, end_leftovers
from tests.end_to_end.command import environment
from tests.host.waiting import until

AWKWARD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("awkward.py")))
ADVISOR = """
import json, sys
from advisor.host.process import Launch, ServerProcess
from tests.host.launches import ready
heard = []
told = json.loads(sys.stdin.readline())
launch = Launch(**{**told, "argv": tuple(told["argv"]), "on_end": tuple(tuple(argv) for argv in told["on_end"])})
with ServerProcess(launch, heard.append) as server:
    ready(heard)
    print(server.pid, server.guardian_pid, *server.pids(), flush=True)
    sys.stdin.read()
"""


def awkward(run: Path | str, *steps: str, **more: Any) -> Launch:
    """A launch of `awkward.py`."""
    return Launch(**{"argv": (*AWKWARD, *steps), "env": dict(os.environ), "cwd": None, "run": str(run), **more})


def ready(heard: list[bytes]) -> None:
    """Wait until the server has said `ready`."""
    until(lambda: b"ready" in b"".join(heard))


class Advisor:
    """A process with one launch: its pid, and those of guardian, server and all processes of the launch."""

    def __init__(self, process: subprocess.Popen[str], told: list[int]) -> None:
        self.process = process
        self.server, self.guardian, *self.launch = told

    def kill(self, *more: int) -> None:
        """SIGKILL to it, after others; its zombie is gone when this returns."""
        self.process.send_signal(signal.SIGSTOP)  # or it may see the others die, and act, before its turn comes
        for pid in (*more, self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def an_advisor(launch: Launch) -> Iterator[Advisor]:
    """An advisor whose server has said `ready`; killed with all it left in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", ADVISOR], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(dataclasses.asdict(launch)) + "\n")
    process.stdin.flush()
    try:
        yield Advisor(process, [int(word) for word in process.stdout.readline().split()])
    finally:
        process.kill()
        process.communicate()
        end_leftovers(launch.run)


def lives(pid: int) -> bool:
    return task(pid) is not None


def nothing_left(run: Path) -> bool:
    """No process carries the run's mark."""
    return carriers(str(run.resolve())) == []
