"""Where a stand-in writes: one stream, in the prefixes of TensorRT-LLM's loggers."""

from __future__ import annotations

import os
import time

_LEVELS = ("internal_error", "error", "warning", "info", "verbose", "debug", "trace")
_LETTERS = {"E": "error", "W": "warning", "I": "info", "V": "verbose", "D": "debug"}
_OWN_VERSION = "[TensorRT-LLM] TensorRT-LLM version: "


class Log:
    """Writes whole lines at once. A reader that went away is no error: a server goes on without one."""

    def __init__(self, level: str = "info", n_ranks: int = 1) -> None:
        wanted = os.environ.get("TLLM_LOG_LEVEL", "").lower()
        self.level = _LEVELS.index(wanted if wanted in _LEVELS else level)
        self.n_ranks = n_ranks

    def raw(self, text: str) -> None:
        """Text as it is, ended by a line end."""
        self.bytes(f"{text}\n".encode())

    def bytes(self, data: bytes) -> None:
        """Bytes as they are, however long that takes."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:
            pass

    def say(self, letter: str, text: str, rank: int | None = None) -> None:
        """A line of the Python logger; `rank` where a worker of several speaks."""
        if _LEVELS.index(_LETTERS[letter]) <= self.level:
            who = f"[RANK {rank}] " if rank is not None and self.n_ranks > 1 else ""
            self.raw(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [TRT-LLM] {who}[{letter}] {text}")

    def info(self, text: str, rank: int | None = None) -> None:
        self.say("I", text, rank)

    def warning(self, text: str, rank: int | None = None) -> None:
        self.say("W", text, rank)

    def error(self, text: str, rank: int | None = None) -> None:
        self.say("E", text, rank)

    def cpp(self, text: str) -> None:
        """A line of the C++ logger."""
        if self.level >= _LEVELS.index("info"):
            self.raw(f"[TensorRT-LLM][INFO] {text}")

    def version(self, version: str) -> None:
        """The banner of every process that imports the package."""
        self.raw(_OWN_VERSION + version)
