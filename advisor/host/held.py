"""A server's process that imports before it is told its command line: `python held.py COMMAND MODULE ...`.

It runs under the engine's own interpreter, so it uses the standard library alone. Its standard input is a socket. It
imports the modules, of which only the first must be there, says `held`, and waits. A JSON list is the argv of the
launch: COMMAND, a Python script, is then run with it as if it had been started that way. The end of the socket without
a word is its own end.

Nothing may touch a GPU before the launch does: an import that makes a CUDA context ends it.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    # Before anything else: modules of this folder have names of the standard library's.
    sys.path[0] = os.path.dirname(os.path.realpath(sys.argv[1]))  # noqa: PTH120

import contextlib
import importlib
import json
import runpy
import socket
from pathlib import Path

HELD = b"held\n"


def take_in(module: str) -> None:
    """Import a module.

    Raises:
        RuntimeError: a CUDA context was made.
    """
    importlib.import_module(module)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError(f"importing {module} made a CUDA context")


def told(link: socket.socket) -> list[str] | None:
    """The argv of the launch; None when there will be none."""
    with link, link.makefile("rwb") as stream:
        stream.write(HELD)
        stream.flush()
        line = stream.readline()
    argv: list[str] | None = json.loads(line) if line.endswith(b"\n") else None
    return argv


def main() -> None:
    """Import, wait, and become the server."""
    command, *modules = sys.argv[1:]
    compile(Path(command).read_bytes(), command, "exec")  # another kind of program cannot be run here
    link = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    take_in(modules[0])
    for module in modules[1:]:
        with contextlib.suppress(ImportError):  # not in this release, or not with what is installed
            take_in(module)
    argv = told(link)
    if argv is not None:
        sys.argv = [command, *argv[1:]]
        runpy.run_path(command, run_name="__main__")


if __name__ == "__main__":
    main()
