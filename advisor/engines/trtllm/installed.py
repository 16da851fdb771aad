"""The TensorRT-LLM that is installed here: the command, the interpreter behind it, its version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from advisor.domain.strict import StrictModel

COMMAND = "trtllm-serve"
PACKAGE = "tensorrt_llm"
ASK_TIMEOUT_S = 30.0
MAX_SHEBANG_BYTES = 512

_ASK_VERSION = f"from importlib.metadata import version; print(version({PACKAGE!r}))"


class Installation(StrictModel):
    """`version` is None where the interpreter does not know the package by name, as in a build from source."""

    command: str
    interpreter: str
    version: str | None


def installation(env: Mapping[str, str]) -> Installation | None:
    """What `trtllm-serve` on the PATH of an environment is; None when there is none.

    The version comes from the package's metadata: importing tensorrt_llm takes many seconds and starts MPI.
    """
    command = shutil.which(COMMAND, path=env.get("PATH"))
    return None if command is None else _installation(command, env.get("PYTHONPATH", ""))


@lru_cache(maxsize=8)
def _installation(command: str, python_path: str) -> Installation:
    interpreter = _interpreter(Path(command))
    return Installation(command=command, interpreter=interpreter, version=_version(interpreter, python_path))


def _interpreter(command: Path) -> str:
    """The Python that the console script starts, by its first line; this one where that tells nothing."""
    with command.open("rb") as file:
        first = file.readline(MAX_SHEBANG_BYTES).decode(errors="replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return sys.executable
    if words[0].endswith("/env") and len(words) > 1:
        return shutil.which(words[-1]) or sys.executable
    return words[0] if "python" in Path(words[0]).name else sys.executable


def _version(interpreter: str, python_path: str) -> str | None:
    try:
        done = subprocess.run(
            [interpreter, "-c", _ASK_VERSION],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
            env={"PYTHONPATH": python_path} if python_path else {},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
