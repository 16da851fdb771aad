"""`advisor doctor --follow` on logs that grow, are rotated and are cut, in a real process."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.command import ADVISOR, environment
from tests.engines.trtllm.start_log import READY, Start, start_log
from tests.memory.log_cases import DATA

_CHAIN = (DATA / "rendered_logs" / "trt_runtime_chain.log").read_text().splitlines()
OOM = _CHAIN[next(number for number, line in enumerate(_CHAIN) if "Encountered an error" in line) :]
START_AGAIN = "[TRT-LLM] [I] Using LLM with PyTorch backend once more"
BUSY = ["[TRT-LLM] [I] busy"] * 500
PHASES = ["launch", "load", "kv_estimate", "kv_allocate", "warm_up", "serve"]
DEADLINE_S = 60


class Follower:
    """A running `advisor doctor --follow`, read as it speaks."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._streams = {"stdout": process.stdout.fileno(), "stderr": process.stderr.fileno()}
        self.said = {"stdout": "", "stderr": ""}

    def until(self, where: str, words: str) -> None:
        """Read until the words have been said."""
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.said[where]:
            assert self._read(deadline), (words, self.said)

    def end(self, number: int | None = signal.SIGINT) -> int:
        """Stop it, unless it ends by itself; its exit code, with everything read."""
        if number is not None:
            self.process.send_signal(number)
        deadline = time.monotonic() + DEADLINE_S
        while self._streams:
            assert self._read(deadline), self.said
        return self.process.wait(DEADLINE_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select(list(self._streams.values()), [], [], max(0.0, deadline - time.monotonic()))
        for name, fd in list(self._streams.items()):
            if fd in ready:
                data = os.read(fd, 65536)
                self.said[name] += data.decode()
                if not data:
                    del self._streams[name]
        return bool(ready)

    @property
    def phases(self) -> list[str]:
        return [line.split()[0] for line in self.said["stderr"].splitlines()]


@contextmanager
def following(log: str, *more: str, stdin: int = subprocess.DEVNULL) -> Iterator[Follower]:
    process = subprocess.Popen(
        [*ADVISOR, "doctor", log, "--follow", *more],
        env=environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield Follower(process)
        finally:
            process.kill()


def append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_phases_and_diagnosis_as_they_come(tmp_path: Path) -> None:
    """Stage by stage, then ready, then an OOM under load; the file is moved away and cut meanwhile."""
    log, start = tmp_path / "log", start_log(Start())
    half = next(number for number, line in enumerate(start) if "Memory used after loading" in line)
    append(log, start[:half])
    with following(str(log)) as follower:
        follower.until("stderr", "kv_estimate")
        append(log, start[half:])
        follower.until("stderr", "warm_up")
        log.rename(tmp_path / "log.1")
        append(log, [*BUSY, *READY])  # longer than what comes after the cut, or nobody could see the cut
        follower.until("stdout", "Healthy")
        log.write_text("")
        append(log, OOM)
        follower.until("stdout", "GPU memory ran out while serving")
        assert follower.end() == 0
    assert follower.phases == PHASES
    assert follower.said["stdout"].count("GPU memory ran out") == 1
    assert "0.75 GiB" in follower.said["stdout"]


def test_a_server_that_starts_again_is_a_new_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, [*start_log(Start()), *READY, *OOM])
    with following(str(log)) as follower:
        follower.until("stdout", "GPU memory ran out")
        append(log, [*start_log(Start()), *READY])
        follower.until("stdout", "Healthy")
        assert follower.end(signal.SIGTERM) == 0
    assert follower.phases == PHASES * 2


def test_json_is_one_document_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, [*start_log(Start()), *READY])
    with following(str(log), "--output", "json") as follower:
        follower.until("stderr", "serve")
        append(log, [*OOM, START_AGAIN])
        follower.until("stderr", START_AGAIN)
        assert follower.end() == 0
    assert json.loads(follower.said["stdout"])["verdict"] == "unknown"
    assert follower.said["stdout"].count('"verdict"') == 1


def test_an_error_that_may_yet_be_outlived_is_not_certain(tmp_path: Path) -> None:
    """It is said only when the reading ends."""
    log = tmp_path / "log"
    append(log, [START_AGAIN, "Traceback (most recent call last):", "ValueError: no such plug-in"])
    with following(str(log)) as follower:
        follower.until("stderr", "launch")
        append(log, [*start_log(Start()), *READY])
        follower.until("stdout", "Healthy")
        append(log, ["[TRT-LLM] [I] Using LLM with PyTorch backend a last time", "ValueError: no such plug-in"])
        follower.until("stderr", "a last time")
        assert follower.end() == 0
    assert follower.said["stdout"].count("no such plug-in") == 2  # verdict and evidence, once


def test_a_pipe_ends_by_itself() -> None:
    with following("-", stdin=subprocess.PIPE) as follower:
        assert follower.process.stdin is not None
        follower.process.stdin.write("\n".join(start_log(Start())).encode() + b"\n")
        follower.process.stdin.flush()
        follower.until("stderr", "warm_up")
        follower.process.stdin.write("\n".join(OOM).encode())
        follower.process.stdin.close()
        assert follower.end(None) == 0
    assert "GPU memory ran out" in follower.said["stdout"]


@pytest.mark.parametrize(("content", "words"), [("", "is empty"), ("milk, bread\n", "does not look like the log")])
def test_what_is_no_log_is_refused_at_the_end(tmp_path: Path, content: str, words: str) -> None:
    log = tmp_path / "log"
    log.write_text(content)
    with log.open("rb") as file, following("-", stdin=file.fileno()) as follower:
        assert follower.end(None) == 2
    assert words in follower.said["stderr"]
