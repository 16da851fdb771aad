"""The documentation checker finds what a reader would trip over."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tools import check_docs
from tools.check_docs import Command, check_document, check_make, commands_of, links_of, make_targets

MAKEFILE = "PYTHON ?= python3\nBIN := .venv/bin\nsetup test: .venv/.dev\nbench-%: FORCE\n\techo not-a-target: x\n"

DOCUMENT = """\
# Title

[good](other.md#a-heading), [bad](missing.md), `[code](nowhere.md)`, [web](https://example.org/x)

```console
$ advisor tune --isl 4096 \\
    --osl 1024
advisor 0.1.0, simulated by the twin
$ make test
```

<!-- needs-gpu -->
```bash
advisor tune --engine trtllm  # on a GPU machine
```

Text between cancels a marker.

<!-- exit: 3 -->

```sh
advisor plan
advisor tune --slo "ttft:p95<1ms"
```

```yaml
advisor: no command
```
"""


def test_commands_are_read_from_shell_blocks() -> None:
    assert commands_of(DOCUMENT) == [
        Command(6, "advisor tune --isl 4096 --osl 1024"),
        Command(9, "make test"),
        Command(14, "advisor tune --engine trtllm  # on a GPU machine", needs_gpu=True),
        Command(22, "advisor plan"),
        Command(23, 'advisor tune --slo "ttft:p95<1ms"', exit_code=3),
    ]


def test_links_outside_code_are_read() -> None:
    assert links_of(DOCUMENT) == [(3, "other.md#a-heading"), (3, "missing.md")]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("make test ARGS='-k law'", None),
        ("make -s setup test", None),
        ("make bench-twin", None),
        ("make tets", "there is no `make tets`"),
        ("make not-a-target", "there is no `make not-a-target`"),
        ("make bench-", "there is no `make bench-`"),
    ],
)
def test_make_targets_must_exist(command: str, wrong: str | None) -> None:
    assert check_make(command, make_targets(MAKEFILE)) == wrong


def test_commands_are_really_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in `advisor` on the path: `count` remembers its calls in the working folder, `fail` exits 3."""
    program = tmp_path / "bin" / "advisor"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        "  count) echo x >>calls; test $(wc -l <calls) -le 2 ;;\n"
        "  tune) test $2 = --help && echo '--isl INT' ;;\n"
        "  *) echo 'no feasible configuration' >&2; exit 3 ;;\nesac\n"
    )
    program.chmod(0o755)
    document = tmp_path / "page.md"
    document.write_text(
        "```sh\nadvisor count\nadvisor count\nadvisor count\nadvisor fail\n```\n"
        "<!-- exit: 3 -->\n```sh\nadvisor fail\n```\n"
        "<!-- needs-gpu -->\n```sh\nadvisor tune --isl 1 --osl=2 | grep --color x\n```\n"
    )
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    environment = {"PATH": os.pathsep.join([str(program.parent), os.environ["PATH"], str(Path(sys.executable).parent)])}
    problems = [str(problem) for problem in check_document(document, set(), environment)]
    assert problems == [
        "page.md:4: `advisor count` exits 1, not 0: ",
        "page.md:5: `advisor fail` exits 3, not 0: no feasible configuration",
        "page.md:13: no option --osl in `advisor tune`",
    ]


def test_broken_links_and_headings_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.md").write_text("# A heading\n")
    document = tmp_path / "page.md"
    document.write_text("[a](other.md#a-heading) [b](other.md#none) [c](none.md) [d](#own-part)\n\n## Own: part\n")
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    assert [str(problem) for problem in check_document(document, set(), {})] == [
        "page.md:1: link to #none, and other.md has no such heading",
        "page.md:1: link to none.md, which does not exist",
    ]
