"""Tests of this folder need the engine that `make test-engine` makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_real.rig import ENGINE, left_after, variables


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own, in which nothing may run when it is over."""
    if not (ENGINE / ".made-of").exists():
        pytest.skip("no real engine here: `make test-engine` makes it")
    monkeypatch.chdir(tmp_path)
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    assert left_after(tmp_path, patience_s=15.0) == {}, "processes of a launch were left"
