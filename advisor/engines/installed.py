"""The engine that is installed here: its command, the interpreter behind it, its version."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from advisor.domain.strict import StrictModel


class Program(NamedTuple):
    """What an engine is started with: a command on the PATH, and the package whose metadata tell its version."""

    command: str
    package: str


TRTLLM_SERVE = Program("trtllm-serve", "tensorrt_llm")
VLLM = Program("vllm", "vllm")
PROGRAMS: Mapping[str, Program] = {"trtllm": TRTLLM_SERVE, "vllm": VLLM}
ASK_TIMEOUT_S = 30.0
MAX_SHEBANG_BYTES = 512
DECIDING = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME", "LD_LIBRARY_PATH")
"""Variables that decide which packages an interpreter sees, and whether it starts."""

_ASK_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


class Installation(StrictModel):
    """`version` is None where the interpreter does not know the package by name, as in a build from source."""

    command: str
    interpreter: str
    version: str | None


def installation(env: Mapping[str, str], program: Program = TRTLLM_SERVE) -> Installation | None:
    """What a program on the PATH of an environment is; None when there is none.

    The version comes from the package's metadata: importing tensorrt_llm takes many seconds and starts MPI.
    """
    command = shutil.which(program.command, path=env.get("PATH"))
    deciding = tuple((name, env[name]) for name in DECIDING if name in env)
    return None if command is None else _installation(command, program.package, deciding)


@lru_cache(maxsize=8)
def _installation(command: str, package: str, deciding: tuple[tuple[str, str], ...]) -> Installation:
    env = dict(deciding)
    interpreter = _interpreter(_first_lines(Path(command)), env.get("PATH"))
    return Installation(command=command, interpreter=interpreter, version=_version(interpreter, package, env))


def _first_lines(command: Path) -> list[str]:
    """Two lines of a script; none of one that may be run but not read."""
    try:
        with command.open("rb") as file:
            return [file.readline(MAX_SHEBANG_BYTES).decode(errors="replace").strip() for _ in range(2)]
    except OSError:
        return ["", ""]


def _interpreter(lines: list[str], search: str | None) -> str:
    """The Python that a console script starts; this one where its first lines do not tell.

    Where the path is too long for a first line, or has a space, installers write `#!/bin/sh` and then
    `'''exec' "/path/to/python" "$0" "$@"`.
    """
    first, second = lines
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if second.startswith("'''exec'"):
        with contextlib.suppress(ValueError):
            words = shlex.split(second.removeprefix("'''exec'"))[:1]
    elif words and words[0].endswith("/env"):
        named = next((word for word in words[1:] if not word.startswith("-")), "")
        words = [found for found in [shutil.which(named, path=search)] if found]
    return words[0] if words and "python" in Path(words[0]).name else sys.executable


def _version(interpreter: str, package: str, env: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            [interpreter, "-c", _ASK_VERSION, package],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
            check=False,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
