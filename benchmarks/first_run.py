"""From a clean clone to a result: `make bench-first-run`.

Measures what a stranger waits for and stores: `make tune` in a bare copy of this checkout, the size of the environment
it makes, the wheel, and `advisor --help`. pip's cache is used unless `--no-cache` is given, and the output says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
N_HELP_RUNS = 7


def timed_s(command: list[str], folder: Path, **environment: str) -> float:
    """Seconds a command takes, without what the outer `make` hands down; it must succeed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "ARGS"}
    start_s = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env={**inherited, **environment}, check=True, stdout=subprocess.DEVNULL, timeout=900
    )
    return time.perf_counter() - start_s


def copy_checkout(folder: Path) -> None:
    """Copy every file that git tracks or would track."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def size_mb(folder: Path) -> float:
    """Size of all files below a folder, MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def measure(folder: Path, use_cache: bool) -> list[tuple[str, float, float, str]]:
    """Name, value, target and unit of each figure."""
    copy_checkout(folder)
    pip = {} if use_cache else {"PIP_NO_CACHE_DIR": "1"}
    setup_s = timed_s(["make", "setup"], folder, **pip)
    again_s = timed_s(["make", "setup"], folder)
    environment_mb = size_mb(folder / ".venv")
    tune_s = timed_s(["make", "tune", "ISL=4096", "OSL=1024"], folder)
    advisor = str(folder / ".venv" / "bin" / "advisor")
    help_s = statistics.median(timed_s([advisor, "--help"], folder) for _ in range(N_HELP_RUNS))
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=folder, check=True)
        wheel_mb = size_mb(Path(out))
    return [
        ("clean clone to result", setup_s + tune_s, 180, "s"),
        ("of which the study", tune_s, 60, "s"),
        ("make setup, nothing changed", again_s, 0.3, "s"),
        ("advisor --help", help_s, 0.3, "s"),
        ("environment", environment_mb, 250, "MB"),
        ("wheel", wheel_mb, 15, "MB"),
    ]


def main() -> int:
    """Print one line a figure, with its target; exit 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-cache", action="store_true", help="download everything")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), use_cache=not arguments.no_cache)
    source = "downloads" if arguments.no_cache else "pip's cache where it had the files"
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {source}")
    for name, value, target, unit in figures:
        print(f"{name:30} {value:8.2f} {unit:2}  target <= {target:g} {unit}  {'met' if value <= target else 'MISSED'}")
    return int(any(value > target for _, value, target, _ in figures))


if __name__ == "__main__":
    sys.exit(main())
