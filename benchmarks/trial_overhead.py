"""What a trial costs beside its server and its load: `make bench-trial-overhead`.

A study of the stand-in is timed trial by trial, from the commit of one trial to the commit of the next. Off go the
server's own start and stop, as long as the same program takes alone in the same run, and the time in which load was
served (rounds of warm-up and the measurement). What is left is advisor's: proposing, admitting, writing files, the
guardian, probes, waiting. The first trial also fetches the checkpoint and asks the installed release; it stands apart.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.machine import Machine
from tests.standin.running import Running

TARGET_S = 1.0
N_ALONE = 5


def alone_s(machine: Machine) -> tuple[float, float]:
    """Median seconds of the server alone: to its first token, and from SIGTERM to its end."""
    starts, stops = [], []
    for _ in range(N_ALONE):
        began_s = time.monotonic()
        with Running(machine.standin, "--max_batch_size", "16", "--max_num_tokens", "8192") as server:
            server.ready().complete(4, 1)
            starts.append(time.monotonic() - began_s)
            asked_s = time.monotonic()
            server.stop()
            stops.append(time.monotonic() - asked_s)
    return statistics.median(starts), statistics.median(stops)


def load_s(record: dict[str, Any], concurrency: int, warm_up_tokens: int) -> float:
    """Seconds in which requests were served: every round of warm-up, and the measurement."""
    (outcome,) = record["workloads"]
    rounds = sum(concurrency * warm_up_tokens / rate for rate in outcome["warm_up"]["output_tok_per_s"])
    return float(rounds + outcome["metrics"]["duration_s"])


def main() -> None:
    """Run the study and print a table."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        machine = Machine(Path(name), crashing=True)
        start_s, stop_s = alone_s(machine)
        began_s = time.time()
        process = machine.started("--max-launches", "12")
        _, heard = process.communicate()
        if process.returncode:
            raise SystemExit(heard)
        commits = sorted(
            (path.stat().st_mtime, json.loads(path.read_text())) for path in machine.run().glob("trials/*/outcome.json")
        )
    print(f"the server alone: {start_s:.2f} s to its first token, {stop_s:.2f} s from SIGTERM to its end")
    rest, before_s = [], began_s
    for committed_s, record in commits:
        wall_s, before_s = committed_s - before_s, committed_s
        if record["outcome"]["kind"] != "measured":
            continue
        served_s = load_s(record, concurrency=16, warm_up_tokens=32)
        own_s = wall_s - start_s - stop_s - served_s
        rest.append(own_s)
        print(
            f"trial {record['number']:>2}: {wall_s:5.2f} s = start {start_s:.2f} + load {served_s:.2f} "
            f"+ stop {stop_s:.2f} + advisor {own_s:.2f}"
        )
    later = rest[1:]
    print(
        f"advisor's own share: median {statistics.median(later):.2f} s, most {max(later):.2f} s of {len(later)} trials "
        f"(target {TARGET_S:g} s); the first {rest[0]:.2f} s"
    )


if __name__ == "__main__":
    main()
