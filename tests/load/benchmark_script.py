"""Behaves like TensorRT-LLM's `benchmark_serving` towards the one who starts it, each broken way included.

Test equipment: it sends nothing. `$BROKEN` names the way; `$PIPE` is a FIFO that it and its child hold open while they
live.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

CONSOLE = """
============ Serving Benchmark Result ============
Total requests:                          {num_prompts}
Successful requests:                     {completed}
Benchmark duration (s):                  {duration:.2f}
Total input tokens:                      {total_input_tokens}
Total generated tokens:                  {total_output_tokens}
Request throughput (req/s):              {request_throughput:.2f}
Output token throughput (tok/s):         {output_throughput:.2f}
---------------Time to First Token----------------
Mean TTFT (ms):                          {mean_ttft_ms:.2f}
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          {mean_tpot_ms:.2f}
==================================================
"""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("num-prompts", "random-input-len", "random-output-len"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    parser.add_argument("--result-dir", required=True)
    parser.add_argument("--result-filename", required=True)
    asked = parser.parse_args()
    broken, n = os.environ.get("BROKEN", ""), asked.num_prompts
    say("Starting initial single prompt test run...")
    if broken == "hangs":
        hang()
    if broken == "test run":
        raise ValueError(
            "Initial test run failed - Please make sure benchmark arguments are correctly specified. Error: Bad Request"
        )
    result = {
        "num_prompts": n,
        "duration": 2.0,
        "completed": n,
        "total_input_tokens": n * asked.random_input_len,
        "total_output_tokens": n * asked.random_output_len,
        "request_throughput": n / 2,
        "request_goodput:": None,
        "output_throughput": n * asked.random_output_len / 2,
        "mean_ttft_ms": 50.0,
        "mean_tpot_ms": 8.0,
        "request_rate": "inf",
    }
    zeros = {"total_output_tokens": 0, "output_throughput": 0.0, "mean_ttft_ms": 0.0, "mean_tpot_ms": 0.0}
    result |= {
        "all fail": {"completed": 0, **zeros},
        "some fail": {"completed": n - 2},
        "clamped": {"total_output_tokens": n * asked.random_output_len - 3},
        "drift": {"total_input_tokens": int(n * asked.random_input_len * 1.02)},
        "start tokens": {"total_input_tokens": n * (asked.random_input_len + 1)},
        "other number": {"num_prompts": n + 1, "completed": n + 1},
        "not a number": {"mean_ttft_ms": float("nan"), "output_throughput": "fast"},
    }.get(broken, {})
    say(CONSOLE.format_map({**result, "output_throughput": n * asked.random_output_len / 2}))
    if broken == "old":
        for key in ("num_prompts", "mean_tpot_ms", "request_goodput:"):
            del result[key]
    path = Path(asked.result_dir) / asked.result_filename
    if broken == "half a file":
        path.write_text(json.dumps(result)[:50])
    elif broken == "a list":
        path.write_text("[]")
    elif not broken.startswith("no file"):
        path.write_text(json.dumps(result))
    if broken == "no file, no console":
        say("\033[2J" * 100_000)
    if broken == "exit 3":
        sys.exit(3)


def hang() -> None:
    """Start a child that ignores SIGTERM, say so in the pipe, and wait for ever."""
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    pipe = os.open(os.environ["PIPE"], os.O_WRONLY)
    child = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE, pass_fds=[pipe])
    assert child.stdout is not None
    child.stdout.readline()
    os.write(pipe, b"running\n")
    signal.pause()


if __name__ == "__main__":
    main()
