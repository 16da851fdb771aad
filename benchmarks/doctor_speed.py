"""Speed and memory of `advisor doctor` on a crash log of 140 MB: at most 5 s and 150 MB.

``python -m benchmarks.doctor_speed [MB]`` rebuilds the log from the recorded one in tests/data: its first lines, then
the traceback that every request in flight printed, over and over. The other logs have no line twice: a server's day, a
server that fails every request, and one that answers every request.
"""

from __future__ import annotations

import gzip
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, count, repeat
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
peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - start, time.process_time(), peak_kib, found.verdict, found.phase)
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


def failing_log() -> Iterator[str]:
    """Every request runs out of memory."""
    yield "INFO:     Application startup complete.\n"
    for number in count():
        yield (
            f"[01/15/2026-10:00:01] [TRT-LLM] [E] request {number} failed: torch.OutOfMemoryError: CUDA out of memory. "
            f"Tried to allocate {number % 97}.00 GiB. GPU 0 has a total capacity of 79.11 GiB\n"
        )


def answering_log() -> Iterator[str]:
    """Every request is answered."""
    for number in count():
        yield f'INFO:     10.0.0.1:{number} - "POST /v1/completions HTTP/1.1" 200 OK\n'


def measured(lines: Iterator[str], path: Path, log_bytes: int) -> tuple[float, float, float, str]:
    """Write so many bytes of lines; seconds, those of the CPU, MB and verdict of a fresh process that reads them."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < log_bytes:
            written += file.write(next(lines))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)
    seconds, cpu_seconds, peak_kib, *verdict = done.stdout.split()
    return float(seconds), float(cpu_seconds), int(peak_kib) * 1024 / 1e6, " at ".join(verdict)


def main() -> None:
    """Print one line a log."""
    log_bytes = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else LOG_BYTES
    print(f"machine: {platform.machine()}, Python {platform.python_version()}, {platform.system()}")
    logs = {"crash": crash_log(), "busy": busy_log(), "failing": failing_log(), "answering": answering_log()}
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in logs.items():
            seconds, cpu_seconds, mb, verdict = measured(lines, Path(folder) / "log", log_bytes)
            speed = f"{log_bytes / 1e6:.0f} MB in {seconds:.2f} s, {cpu_seconds:.2f} s of CPU"
            if log_bytes == LOG_BYTES:
                speed += f" ({seconds / MOST_SECONDS:.0%} of {MOST_SECONDS:g} s)"
            print(f"{name}: {speed}, {mb:.0f} MB of memory ({mb / MOST_MB:.0%} of {MOST_MB:g} MB): {verdict}")


if __name__ == "__main__":
    main()
