"""The rooms import in one direction and the pure ones are pure; and the checker that says so can see."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tools.check_architecture import (
    ALLOWED_EDGES,
    PURE_ROOMS,
    ROOT,
    check_cycles,
    check_module,
    check_package,
    package_sources,
)

# rich is not among them: Typer draws the help pages with it.
HEAVY = {"alembic", "numpy", "optuna", "scipy", "sqlalchemy", "yaml"}


def test_package_keeps_the_rules() -> None:
    sources = package_sources(ROOT)
    assert {f"advisor.{room}" for room in PURE_ROOMS} <= set(sources)
    assert [str(violation) for violation in check_package(sources)] == []


def test_table_of_rooms_has_no_circle() -> None:
    order = list(TopologicalSorter(ALLOWED_EDGES).static_order())
    assert set(order) == set(ALLOWED_EDGES)
    for room in PURE_ROOMS:
        assert ALLOWED_EDGES[room] <= PURE_ROOMS


@pytest.mark.parametrize(
    ("module", "source", "line", "words"),
    [
        ("advisor.domain.workload", "from advisor.memory.law import peak", 1, "domain must not import memory"),
        ("advisor.domain.workload", "def f():\n    import advisor.cli.main", 2, "domain must not import cli"),
        ("advisor.twin.scheduler", "from ..search import space", 1, "twin must not import search"),
        ("advisor.memory.law", "from advisor import search", 1, "memory must not import search"),
        ("advisor.store.ledger", "from advisor.app import tuner", 1, "store must not import app"),
        ("advisor.kitchen.sink", "", 1, "unknown room 'kitchen'"),
        ("advisor.memory.law", "import os", 1, "memory is pure and must not import os"),
        ("advisor.memory.law", "from pathlib import Path", 1, "must not import pathlib"),
        ("advisor.search.proposer", "import subprocess as sp", 1, "must not import subprocess"),
        ("advisor.search.proposer", "import random", 1, "must not import random"),
        ("advisor.search.proposer", "import optuna", 1, "must not import optuna"),
        ("advisor.metrics.schedule", "from time import perf_counter", 1, "must not import time"),
        ("advisor.metrics.schedule", "if x:\n    import urllib.request", 2, "must not import urllib"),
        ("advisor.twin.step_tables", "x = 1\ny = open('f')", 2, "must not use open"),
        ("advisor.twin.step_tables", "import numpy as np\nnp.load('f')", 2, "must not use np.load"),
        ("advisor.twin.worlds", "import datetime\ndatetime.datetime.now()", 2, "must not use datetime"),
        ("advisor.twin.worlds", "import numpy as np\nnp.random.normal()", 2, "hidden state"),
        ("advisor.twin.worlds", "import numpy as np\nnp.random.default_rng()", 2, "cannot be repeated"),
        ("advisor.search.admission", "from advisor.twin.worlds import World", 1, "only advisor.engines.simulated"),
        ("advisor.app.tuner", "from advisor.twin import worlds", 1, "only advisor.engines.simulated"),
        ("advisor.memory.law", "GIB = 1024**3", 1, "advisor.domain.units only"),
        ("advisor.host.gpus", "x = y / (1 << 30)", 1, "advisor.domain.units only"),
        ("advisor.report.files", "x = 1024 * 1024 * 1024", 1, "advisor.domain.units only"),
        ("advisor.report.files", "x = 1073741824", 1, "advisor.domain.units only"),
        ("advisor.app.tuner", "print('done')", 1, "print() belongs in cli"),
        ("advisor.host.process", "import sys\nsys.exit(1)", 2, "sys.exit() belongs in cli"),
        ("advisor.store.ledger", "raise SystemExit(2)", 1, "SystemExit belongs in cli"),
    ],
)
def test_checker_sees_each_bad_example(module: str, source: str, line: int, words: str) -> None:
    known = {module, "advisor.app.tuner", "advisor.search", "advisor.twin.worlds"}
    found = check_module(module, source, known)
    assert [violation.line for violation in found if words in violation.text] == [line], found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("advisor.domain.units", "GIB_BYTES = 1024**3"),
        ("advisor.search.proposer", "from advisor.twin.steady_state import rank\nimport numpy as np"),
        ("advisor.twin.worlds", "import numpy as np\nrng = np.random.default_rng(seed)"),
        ("advisor.engines.simulated", "import os\nfrom advisor.twin.worlds import World"),
        ("advisor.cli.main", "import sys\nfrom advisor.app import tuner\nprint(1)\nsys.exit(0)"),
        ("advisor.__main__", "from advisor.cli.main import main\nraise SystemExit(main())"),
        ("advisor.metrics.definitions", "def f(x):\n    return x.open, x.now()"),
    ],
)
def test_checker_lets_good_examples_pass(module: str, source: str) -> None:
    assert check_module(module, source, {module}) == []


def test_checker_sees_a_cycle_at_start_up_only() -> None:
    first = "from advisor.memory import frontier"
    lazy = "def f():\n    import advisor.memory.law"
    assert check_cycles({"advisor.memory.law": first, "advisor.memory.frontier": lazy}) == []
    circle = check_cycles({"advisor.memory.law": first, "advisor.memory.frontier": "import advisor.memory.law"})
    assert len(circle) == 1
    assert "import cycle" in circle[0].text


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """`advisor --help` answers at once because what it does not need is not imported."""
    script = (
        "import json, sys\n"
        "from advisor.cli.main import main\n"
        f"sys.argv = ['advisor', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "advisor.cli.main" in loaded
    assert loaded & HEAVY == set()
