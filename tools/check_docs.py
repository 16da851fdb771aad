"""Check the documentation against the program: links resolve, targets exist, commands run.

``python -m tools.check_docs`` reads README.md, CONTRIBUTING.md and docs/**/*.md. In fenced ``console``, ``bash`` and
``sh`` blocks every line that starts with ``advisor`` or ``make`` is checked; where a block has ``$ `` prompts, only
the lines behind one are commands, the rest is output:

- ``make TARGET``: the target exists.
- ``advisor ...``: it is run, in a scratch folder that one document shares from top to bottom, and must exit 0.

A comment on the line before a block changes what is asked of its ``advisor`` commands:

- ``<!-- needs-gpu -->``: not run; every ``--flag`` must be an option of that command.
- ``<!-- exit: 3 -->``: the last command exits with that code.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
SHELL_BLOCKS = frozenset({"console", "bash", "sh"})
COMMAND_TIMEOUT_S = 180

_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(\w*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_EXIT = re.compile(r"<!--\s*exit:\s*(\d+)\s*-->")
_NEEDS_GPU = re.compile(r"<!--\s*needs-gpu\s*-->")


@dataclass(frozen=True)
class Command:
    """One command line of a document, and what is expected of it."""

    line: int
    text: str
    needs_gpu: bool = False
    exit_code: int = 0


@dataclass(frozen=True)
class Problem:
    """What is wrong in a document, and where."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


def commands_of(text: str) -> list[Command]:
    """The `advisor` and `make` commands in a document's shell blocks; a trailing backslash continues a line."""
    found: list[Command] = []
    for first, language, marker, lines in _blocks(text):
        if language not in SHELL_BLOCKS:
            continue
        block = [
            Command(line, command, bool(_NEEDS_GPU.search(marker)))
            for line, command in _joined(first, lines)
            if command.split(maxsplit=1)[0] in {"advisor", "make"}
        ]
        expected = _EXIT.search(marker)
        if block and expected:
            block[-1] = Command(block[-1].line, block[-1].text, block[-1].needs_gpu, int(expected[1]))
        found += block
    return found


def _blocks(text: str) -> Iterator[tuple[int, str, str, list[str]]]:
    """First line number, language, the comment lines before it and the lines of each fenced block."""
    marker, fence, language, first, lines = "", "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                yield first, language, marker, lines
                marker, fence = "", ""
            else:
                lines.append(line)
        elif match:
            fence, language, first, lines = match[1], match[2], number + 1, []
        elif line.strip():
            marker = marker + line if line.lstrip().startswith("<!--") else ""


def _joined(first: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    """First line number and text of each command; output lines of a block with prompts are left out."""
    prompted = any(line.lstrip().startswith("$ ") for line in lines)
    pending, start = "", first
    for number, line in enumerate(lines, start=first):
        stripped = line.strip()
        if not pending:
            if prompted and not stripped.startswith("$ "):
                continue
            stripped, start = stripped.removeprefix("$ "), number
        pending += stripped
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if pending.strip():
            yield start, pending.strip()
        pending = ""


def links_of(text: str) -> list[tuple[int, str]]:
    """Line and target of every relative link outside code blocks; the fragment is kept."""
    inside = {number for first, _, _, lines in _blocks(text) for number in range(first - 1, first + len(lines) + 1)}
    return [
        (number, match[1])
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in inside
        for match in _LINK.finditer(re.sub(r"`[^`]*`", "", line))
        if not re.match(r"[a-z][a-z0-9+.-]*:", match[1])
    ]


def anchors_of(text: str) -> set[str]:
    """Fragments that a document's headings can be linked by, as code hosts make them."""
    headings = [line.lstrip("#").strip() for line in text.splitlines() if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def make_targets(makefile: str) -> set[str]:
    """Names that stand before a colon, pattern rules (`bench-%`) included."""
    return {
        name
        for match in re.finditer(r"^([A-Za-z][\w%. -]*?)\s*:(?!=)", makefile, re.MULTILINE)
        for name in match[1].split()
    }


def check_make(command: str, targets: set[str]) -> str | None:
    """What is wrong with a `make` command line, or None."""
    for word in shlex.split(command, comments=True)[1:]:
        if "=" in word or word.startswith("-"):
            continue
        if word not in targets and not any(
            "%" in target and re.fullmatch(re.escape(target).replace("%", ".+"), word) for target in targets
        ):
            return f"there is no `make {word}`"
    return None


def check_flags(command: str, environment: dict[str, str]) -> str | None:
    """What is wrong with the flags of an `advisor` command that is not run, or None."""
    words = shlex.split(re.split(r"[|;&>]", command)[0], comments=True)
    verb = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    shown = _run(f"advisor {verb} --help", environment, ROOT)
    if shown.returncode:
        return f"`advisor {verb} --help` fails: {_last_lines(shown)}"
    known = set(re.findall(r"--[a-z][a-z0-9-]*", shown.stdout))
    unknown = [word.split("=")[0] for word in words if word.startswith("--") and word.split("=")[0] not in known]
    return f"no option {', '.join(unknown)} in `advisor {verb}`" if unknown else None


def _run(command: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    # A document may pipe or redirect; it is the project's own text, run as a reader would.
    script = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(
        script, cwd=folder, env=environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " | ".join(line.strip() for line in lines[-4:])


def check_document(document: Path, targets: set[str], environment: dict[str, str]) -> Iterator[Problem]:
    """Every problem of one document; its `advisor` commands run in a scratch folder of its own."""
    name = str(document.relative_to(ROOT))
    text = document.read_text(encoding="utf-8")
    for line, link in links_of(text):
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists():
            yield Problem(name, line, f"link to {path}, which does not exist")
        elif fragment and target.suffix == ".md" and fragment not in anchors_of(target.read_text(encoding="utf-8")):
            yield Problem(name, line, f"link to #{fragment}, and {path or name} has no such heading")
    with tempfile.TemporaryDirectory() as folder:
        for command in commands_of(text):
            problem = _check_command(command, targets, environment, Path(folder))
            if problem:
                yield Problem(name, command.line, problem)


def _check_command(command: Command, targets: set[str], environment: dict[str, str], folder: Path) -> str | None:
    if command.text.split(maxsplit=1)[0] == "make":
        return check_make(command.text, targets)
    if command.needs_gpu:
        return check_flags(command.text, environment)
    start_s = time.monotonic()
    try:
        done = _run(command.text, environment, folder)
    except subprocess.TimeoutExpired:
        return f"`{command.text}` did not end within {COMMAND_TIMEOUT_S} s"
    print(f"  {time.monotonic() - start_s:5.1f} s  {command.text}", flush=True)
    if done.returncode != command.exit_code:
        return f"`{command.text}` exits {done.returncode}, not {command.exit_code}: {_last_lines(done)}"
    return None


def main() -> int:
    """Check this checkout's documents with the `advisor` beside this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    documents = sorted({document for pattern in DOCUMENTS for document in ROOT.glob(pattern)})
    problems = []
    for document in documents:
        print(document.relative_to(ROOT), flush=True)
        problems += list(check_document(document, targets, environment))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"docs: {len(documents)} documents, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
