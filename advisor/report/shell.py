"""Bash scripts as text: quoted words, a stated head, the folder of the script as `$here`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence


def command(argv: Sequence[str], live: Mapping[str, str]) -> str:
    """One command over several lines, a flag and its value on each; every word quoted.

    Args:
        argv: The words.
        live: Flag to shell text that takes the place of its value, such as `"$PORT"`.
    """
    lines: list[list[str]] = [[]]
    for i, word in enumerate(argv):
        if word.startswith("--"):
            lines.append([])
        flag = argv[i - 1] if i else ""
        lines[-1].append(live[flag] if flag in live else shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def script(comments: Iterable[str], settings: str, body: str) -> str:
    """A bash script that stops at the first error."""
    head = "\n".join(f"# {line}" for line in comments)
    here = 'here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"'
    return f"#!/usr/bin/env bash\n{head}\nset -euo pipefail\n{here}\n{settings}\n\n{body}\n"
