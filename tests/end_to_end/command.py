"""The real command in a real process, and what a run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADVISOR = (sys.executable, "-m", "advisor")
SMALL_SPACE = ("--search-space", str(Path(__file__).parent / "small_space.yaml"))


def environment(**more: str) -> dict[str, str]:
    """This process's, with the checkout importable from any working folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **more}


def advisor(*argv: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        [*ADVISOR, *argv], cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=120, check=False
    )


def started(*argv: str, cwd: Path) -> subprocess.Popen[str]:
    """Run on; the caller decides how it ends."""
    return subprocess.Popen(
        [*ADVISOR, *argv], cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def the_run(out: Path) -> Path:
    """The only run folder below `out`."""
    (identity,) = out.glob("*/*/identity.json")
    return identity.parent


def outcomes(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every committed trial below a folder of one run: when it was written (ns) and what."""
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("outcome.json")}


def half_written(folder: Path) -> list[Path]:
    """Files set aside that nobody renamed, and the journal's own locks."""
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".lock.rename"))]
