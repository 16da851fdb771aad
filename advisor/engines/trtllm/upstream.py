"""The installed tensorrt_llm as judge: its own classes look at a command line and its file before any launch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import TracebackType
from typing import Any, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel

START_TIMEOUT_S = 180.0  # importing tensorrt_llm imports torch and starts MPI
VERDICT_TIMEOUT_S = 60.0


class UpstreamVerdict(StrictModel):
    """What the installed release says: it accepts, it refuses and why, or it could not be asked and why."""

    status: Literal["accepted", "refused", "unavailable"]
    version: str | None = None
    errors: tuple[str, ...] = ()
    reason: str | None = Field(default=None, description="Why it is unavailable")
    through: Literal["command_line", "class"] | None = Field(
        default=None,
        description="command_line: flags and file merged by trtllm-serve's own code; class: the file alone",
    )
    effective: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Settings that the engine would start with, where it accepts"
    )


class UpstreamJudge:
    """Asks the installed tensorrt_llm, in a process of its own that imports it once; equal questions are asked once.

    The process holds host memory until `close`; nothing of it outlives the caller, however that ends. A judge that
    could not start says so to every question and is not tried again.
    """

    def __init__(
        self,
        interpreter: str = sys.executable,
        start_timeout_s: float = START_TIMEOUT_S,
        verdict_timeout_s: float = VERDICT_TIMEOUT_S,
    ) -> None:
        """A judge that starts with the first question.

        Args:
            interpreter: The Python that has tensorrt_llm.
            start_timeout_s: Seconds for its import.
            verdict_timeout_s: Seconds for one verdict.
        """
        self._interpreter, self._timeouts_s = interpreter, (start_timeout_s, verdict_timeout_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._version: str | None = None
        self._reason: str | None = None
        self._given: dict[str, UpstreamVerdict] = {}

    def __enter__(self) -> UpstreamJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def verdict(self, argv: Sequence[str], document: Mapping[str, Any]) -> UpstreamVerdict:
        """Hold a launch against upstream's own code.

        Args:
            argv: The whole `trtllm-serve` command line; empty to judge the file alone.
            document: The file as plain data, whatever path `argv` names for it.
        """
        question = json.dumps({"argv": list(argv), "document": dict(document)}, sort_keys=True)
        key = hashlib.sha256(question.encode()).hexdigest()
        if key not in self._given:
            verdict = self._asked(question)
            if verdict.status == "unavailable":
                return verdict
            self._given[key] = verdict
        return self._given[key]

    def close(self) -> None:
        """End the process; the next question starts a new one."""
        process, self._process, self._unread = self._process, None, b""
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # a question that nobody read
                if pipe is not None:
                    pipe.close()

    def _asked(self, question: str) -> UpstreamVerdict:
        process = self._started()
        if process is None or process.stdin is None:
            return UpstreamVerdict(status="unavailable", reason=self._reason)
        try:
            process.stdin.write(question.encode() + b"\n")
            process.stdin.flush()
            answer = self._answer(process, self._timeouts_s[1])
        except (OSError, EOFError, TimeoutError) as error:
            reason = f"tensorrt_llm {self._version} gave no verdict: {_ending(process, error)}."
            self.close()
            return UpstreamVerdict(status="unavailable", version=self._version, reason=reason)
        status: Literal["accepted", "refused"] = "refused" if answer["errors"] else "accepted"
        return UpstreamVerdict(
            status=status,
            version=self._version,
            errors=tuple(answer["errors"]),
            through=answer["through"],
            effective=answer["effective"],
        )

    def _started(self) -> subprocess.Popen[bytes] | None:
        """The process, ready for questions; None, with the reason kept, when there is none."""
        if self._process is not None or self._reason is not None:
            return self._process
        if self._interpreter == sys.executable and importlib.util.find_spec("tensorrt_llm") is None:
            self._reason = "tensorrt_llm is not installed beside advisor."
            return None
        worker = files("advisor.engines.trtllm").joinpath("upstream_worker.py").read_text(encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRTLLM_NO_USAGE_STATS": "1"}  # a judge fetches nothing
        if self._interpreter == sys.executable:
            environment["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
        try:
            self._process = process = subprocess.Popen(
                [self._interpreter, "-c", worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._reason = f"{self._interpreter} cannot be started: {error.strerror}."
            return None
        try:
            answer = self._answer(process, self._timeouts_s[0])
        except (OSError, EOFError, TimeoutError) as error:
            answer = {"reason": _ending(process, error)}
        self._version = answer.get("version")
        if self._version is None:
            self._reason = f"tensorrt_llm cannot be imported: {answer['reason']}."
            self.close()
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
        assert process.stdout is not None
        descriptor, deadline_s = process.stdout.fileno(), time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._unread:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise TimeoutError(f"no answer within {timeout_s:g} s")
            read = os.read(descriptor, 65_536)
            if not read:
                raise EOFError
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _ending(process: subprocess.Popen[bytes], error: Exception) -> str:
    """Why no answer came, in words."""
    if isinstance(error, TimeoutError):
        return str(error)
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "it closed its answers"
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
