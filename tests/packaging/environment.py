"""Distributions and fresh environments for the packaging tests: real builds, real installations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CONSTRAINTS = ROOT / "constraints" / f"py3{sys.version_info.minor}.txt"


def run(command: list[str], folder: Path, timeout_s: float = 300) -> str:
    """Standard output of a command that must succeed; nothing of the checkout is on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ADVISOR_"))}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{command} exits {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build(source: Path, target: str, out: Path) -> Path:
    """The wheel or sdist (`target`) of a source tree."""
    run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)], source)
    (built,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    """Name and bytes of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Environment:
    """A virtual environment without pip; this interpreter's pip installs into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)

    def install(self, *arguments: str) -> None:
        """`pip install` into this environment."""
        # Bytecode is written when a module is first used, which is cheaper than compiling all of it.
        self._pip("install", "--quiet", "--no-compile", *arguments)

    def freeze(self) -> dict[str, str]:
        """Version of every installed distribution, by name."""
        return {row["name"].lower(): row["version"] for row in json.loads(self._pip("list", "--format", "json"))}

    def conflicts(self) -> list[str]:
        """Lines of `pip check` that name an unmet requirement."""
        return [line for line in self._pip("check").splitlines() if line != "No broken requirements found."]

    def _pip(self, *arguments: str) -> str:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--python", str(self.python)]
        return run([*pip, *arguments], self.folder)

    def advisor(self, *arguments: str, folder: Path) -> str:
        """Standard output of the installed command."""
        return run([str(self.folder / "bin" / "advisor"), *arguments], folder)

    def tune(self, isl: int, osl: int, out: Path) -> dict[str, Any]:
        """The document that a short study prints."""
        workload = ("--isl", str(isl), "--osl", str(osl))
        options = ("--engine", "twin", "--max-launches", "4", "--out", str(out), "--output", "json")
        document: dict[str, Any] = json.loads(self.advisor("tune", *workload, *options, folder=self.folder))
        return document

    def size_mib(self) -> float:
        """Size of all files, MiB."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        return sum(path.stat().st_size for path in files) / 1024**2
