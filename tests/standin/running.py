"""One launch of a stand-in as a test watches it: its process, its output so far, and its port."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tests.standin.equipment import StandIn

PATIENCE_S = 60.0
"""Bounds a wait that should be short; only a hang is ever this long."""


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A context manager: the process is gone at its end, however the test went."""

    def __init__(self, standin: StandIn, *options: str, port: int | None = None, **env: str) -> None:
        self.port = free_port() if port is None else port
        self.process = subprocess.Popen(
            standin.argv(*options, port=self.port),
            env=standin.env(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._output, self._seen = bytearray(), threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()

    @property
    def text(self) -> str:
        """Everything printed so far."""
        return self._output.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def wait_for(self, words: str) -> Running:
        """Wait until the output has these words, or ends."""
        with self._seen:
            self._seen.wait_for(lambda: words.encode() in self._output or self._ended, PATIENCE_S)
        assert words in self.text, f"{words!r} never came:\n{self.text}"
        return self

    def ready(self) -> Running:
        return self.wait_for("Uvicorn running on ")

    def exit_code(self) -> int:
        """Wait for the end of the process and of its output."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.exit_code()

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = PATIENCE_S
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def complete(self, n_prompt: int, n_output: int, **more: Any) -> tuple[int, bytes]:
        """`/v1/completions` with token ids."""
        body = {"model": "m", "prompt": [*range(n_prompt)], "max_tokens": n_output, "ignore_eos": True, **more}
        return self.ask("POST", "/v1/completions", body)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            while data := output.read1(65_536):  # type: ignore[attr-defined]
                with self._seen:
                    self._output += data
                    self._seen.notify_all()
        with self._seen:
            self._ended = True
            self._seen.notify_all()


def events(body: bytes) -> list[dict[str, Any]]:
    """JSON of the events of a stream, less `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line.strip() != "[DONE]"]
