"""Resolve ``constraints/pyXYZ.txt`` anew, one file per interpreter named on the command line.

Usage: ``python tools/lock_constraints.py python3.10 python3.11 python3.12 python3.13``. Each interpreter resolves
the project with its development and export extras in a clean environment; nothing of them is installed.
Only the standard library is used, so that it runs before there is an environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "dev,aic"
HEADER = """\
# Written by `make lock`. Versions that `make setup` and CI install on {python}; the project itself asks for
# less (pyproject.toml). Names only: where they come from is the reader's own pip configuration.
"""


def constraint_lines(report: dict[str, Any]) -> list[str]:
    """``name==version`` of everything in a pip installation report but the project itself, sorted by name."""
    packages = [item["metadata"] for item in report["install"] if "dir_info" not in item["download_info"]]
    return sorted(f"{package['name'].lower()}=={package['version']}" for package in packages)


def resolve(python: str) -> tuple[str, dict[str, Any]]:
    """Tag (``py311``) of an interpreter and the pip installation report of a dry run in a clean environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        venv_python = str(Path(folder) / "bin" / "python")
        version = "import sys; print('py%d%d' % sys.version_info[:2])"
        tag = subprocess.run([venv_python, "-c", version], check=True, capture_output=True, text=True).stdout.strip()
        # Older pips resolve the same set, but only newer ones write the report.
        subprocess.run([venv_python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        report = Path(folder) / "report.json"
        command = [venv_python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), f"{ROOT}[{EXTRAS}]"], check=True, cwd=folder)
        return tag, json.loads(report.read_text())


def main(pythons: list[str]) -> int:
    """Write one constraints file per interpreter."""
    if not pythons:
        print('name the interpreters: make lock PYTHONS="python3.10 python3.11 ..."', file=sys.stderr)
        return 2
    for python in pythons:
        tag, report = resolve(python)
        path = ROOT / "constraints" / f"{tag}.txt"
        text = HEADER.format(python=f"Python 3.{tag[3:]}") + "\n".join(constraint_lines(report)) + "\n"
        path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
