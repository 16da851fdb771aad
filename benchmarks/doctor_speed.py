"""Speed and memory of `advisor doctor` on a crash log of 140 MB: at most 5 s and 150 MB.

``python -m benchmarks.doctor_speed`` rebuilds the log from the recorded one in tests/data: its first lines, then the
traceback that every request in flight printed, over and over. A second log has no line twice.
"""

from __future__ import annotations

import gzip
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

RECORDED = Path(__file__).parents[1] / "tests/data/engine_logs/vllm-0.24.0-h100/c_oom_runtime.log.gz"
LOG_BYTES = 140_000_000
CAUSE_LINE = 183
MOST_SECONDS, MOST_MB = 5.0, 150.0
SCRIPT = """
import resource, sys, time
start = time.perf_counter()
from advisor.app.doctoring import doctor
found = doctor(sys.argv[1])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, found.verdict, found.phase)
"""


def crash_log() -> Iterator[str]:
    """The recorded log, its tail repeated for ever; the clock moves now and then, as it does in the original."""
    lines = gzip.decompress(RECORDED.read_bytes()).decode().splitlines(keepends=True)
    yield from lines[:CAUSE_LINE]
    for second in chain(range(8, 28), repeat(27)):
        for _ in range(30):
            yield from (line.replace(" 14:28:08 ", f" 14:28:{second:02d} ") for line in lines[CAUSE_LINE:])


def busy_log() -> Iterator[str]:
    """A server's day, no line like another even without its digits."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    yield "[TRT-LLM] [I] Using LLM with PyTorch backend\n"
    while True:
        name = "".join(rng.choices(letters, k=12))
        yield f"[01/15/2026-10:00:01] [TRT-LLM] [I] request {name} of client {name[::-1]} took {rng.random():.6f} s\n"


def measured(lines: Iterator[str], path: Path) -> tuple[float, float, str]:
    """Write `LOG_BYTES` of lines; seconds, MB and verdict of a fresh process that reads them."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < LOG_BYTES:
            written += file.write(next(lines))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)
    seconds, peak_kib, *verdict = done.stdout.split()
    return float(seconds), int(peak_kib) * 1024 / 1e6, " at ".join(verdict)


def main() -> None:
    """Print one line a log."""
    print(f"machine: {platform.machine()}, Python {platform.python_version()}, {platform.system()}")
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in (("crash log", crash_log()), ("no line twice", busy_log())):
            seconds, mb, verdict = measured(lines, Path(folder) / "log")
            speed = f"{LOG_BYTES / 1e6:.0f} MB in {seconds:.2f} s ({seconds / MOST_SECONDS:.0%} of {MOST_SECONDS:g} s)"
            print(f"{name}: {speed}, {mb:.0f} MB of memory ({mb / MOST_MB:.0%} of {MOST_MB:g} MB): {verdict}")


if __name__ == "__main__":
    main()
