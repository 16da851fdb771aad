"""`make setup`: nothing to do when nothing changed, again when something did, and plain words when it cannot be done.

The real Makefile and script run in a small copy of the checkout's top; installing itself is CI's own first step.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.environment import ROOT

INSTALLS = "tools/setup_venv.sh"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose user environment was made a moment ago."""
    for name in ("Makefile", "pyproject.toml", "tools/setup_venv.sh", "constraints/py311.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".made-in").write_text(str(tmp_path.resolve()))
    (tmp_path / ".venv" / ".made-with").write_text("python3")
    (tmp_path / ".venv" / ".user").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` as a person at a terminal would run it, without what an outer `make` hands down."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "PYTHON"}
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def stand_in(folder: Path, version: str, has_ensurepip: bool = True) -> Path:
    """A program that answers like a Python of that version (`3.9`)."""
    program = folder / "python"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$1 $2" in\n  -V*) echo Python {version}.1 ;;\n  *ensurepip*) exit {0 if has_ensurepip else 1} ;;\n'
        f"  *version_info*) echo py{version.replace('.', '')} ;;\nesac\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("change", "target", "installs"),
    [
        (None, "setup", False),
        (None, "tune", False),
        (None, "setup-dev", True),
        ("constraints/py311.txt", "setup", True),
        ("pyproject.toml", "tune", True),
    ],
)
def test_installs_only_when_something_changed(checkout: Path, change: str | None, target: str, installs: bool) -> None:
    if change:
        (checkout / change).touch()
        os.utime(checkout / ".venv" / ".user", (1.1e9, 1.1e9))
    assert (INSTALLS in make(checkout, "-n", target).stdout) == installs


def test_bare_and_moved_clones_install(checkout: Path) -> None:
    moved = checkout.with_name("moved")
    shutil.copytree(checkout, moved)
    assert INSTALLS in make(moved, "-n", "tune").stdout
    shutil.rmtree(moved / ".venv")
    assert INSTALLS in make(moved, "-n", "tune").stdout


@pytest.mark.parametrize(("named", "installs"), [("python3", False), ("python3.12", True)])
def test_a_named_interpreter_is_meant(checkout: Path, named: str, installs: bool) -> None:
    assert (INSTALLS in make(checkout, "-n", "setup", f"PYTHON={named}").stdout) == installs


def test_old_python_is_refused_before_anything_is_removed(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, "setup", f"PYTHON={stand_in(tmp_path, '3.9')}")
    assert done.returncode != 0
    assert "is Python 3.9.1, and advisor needs Python 3.10 to 3.13" in done.stderr
    assert (checkout / ".venv" / ".user").exists()


def test_missing_ensurepip_names_the_package(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, "setup", f"PYTHON={stand_in(tmp_path, '3.11', has_ensurepip=False)}")
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


def test_an_environment_of_someone_else_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv" / ".made-in").unlink()
    done = make(checkout, "setup")
    assert done.returncode != 0
    assert "'make' did not create" in done.stderr
    assert (checkout / ".venv" / ".user").exists()
