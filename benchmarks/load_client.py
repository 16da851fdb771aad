"""What advisor's load client costs, beside a plain client in the same run, and when it calls itself saturated.

``python -m benchmarks.load_client`` offers streamed chunks at growing rates from a server on one core to a client on
another (`tick_server`: one chunk per stream and tick, fixed OSL, so that all streams end and start together, which is
the worst case of a sweep). For each rate and client, in a process of its own: CPU time per chunk, chunks delivered of
those offered, the error of TTFT and TPOT against the server's own clock, and the verdict. The plain client is what one
would write: asyncio streams, a line at a time, `json.loads` of each event.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from advisor.domain.measurement import ClientReport
from advisor.domain.workload import Workload
from advisor.load.client import run_load
from advisor.load.pulse import ClientLimits
from advisor.load.requests import Load, make_load
from advisor.load.target import Target

RATES = ((2_000, 64), (5_000, 64), (10_000, 256), (20_000, 256), (40_000, 256), (80_000, 256))
OSL, WAVES = 128, 6
CLIENTS = ("ours", "plain")


@dataclass(frozen=True)
class Cost:
    """What one client showed at one rate."""

    cpu_us_per_chunk: float
    delivered: float
    ttft_error_ms: float
    tpot_error: float
    report: ClientReport | None


def ours(target: Target, load: Load) -> dict[str, float]:
    """advisor's client."""
    start_s = time.process_time()
    run = run_load(target, load, lambda partial: False)
    cpu_s = time.process_time() - start_s
    assert not run.shortfalls, run.shortfalls
    samples = run.samples()
    client, _ = run.judged(load.nominal_open, ClientLimits())
    return {
        "cpu_s": cpu_s,
        **means(samples["sent_ms"], samples["first_token_ms"], samples["done_ms"]),
        "lag_ms": client.loop_lag_p99_ms,
        "cpu_share": client.cpu_share,
        "saturated": client.saturated,
    }


def plain(target: Target, load: Load) -> dict[str, float]:
    """A client as one writes it: a task per lane, a line at a time, JSON of each event."""
    rows: list[tuple[float, float, float]] = []
    requests = iter(load.requests)

    async def lane() -> None:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        for request in requests:
            sent_s, first_s, last_s = time.monotonic(), 0.0, 0.0
            writer.write(request)
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    if line == b"0\r\n":
                        break
                    continue
                if line != b"data: [DONE]\n" and json.loads(line[6:])["choices"]:
                    last_s = time.monotonic()
                    first_s = first_s or last_s
            rows.append((sent_s * 1e3, first_s * 1e3, last_s * 1e3))
        writer.close()
        await writer.wait_closed()

    async def lanes() -> None:
        await asyncio.gather(*(lane() for _ in range(load.nominal_open)))

    start_s = time.process_time()
    asyncio.run(lanes())
    return {"cpu_s": time.process_time() - start_s, **means(*np.array(rows).T)}


def means(sent_ms: np.ndarray, first_ms: np.ndarray, done_ms: np.ndarray) -> dict[str, float]:
    """Mean TTFT and TPOT, ms."""
    return {"ttft_ms": float((first_ms - sent_ms).mean()), "tpot_ms": float((done_ms - first_ms).mean() / (OSL - 1))}


def one_client(name: str, port: int, n_streams: int) -> None:
    """Run one client in this process, on the last core; print what it saw."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    url = f"http://127.0.0.1:{port}"
    target = Target(base_url=url, model="tiny", vocab_size=32000, n_gpus=1, block_reuse=False)
    workload = Workload(isl=16, osl=OSL, concurrency=n_streams, n_requests=WAVES * n_streams)
    load = make_load(target, workload, n_requests=workload.requests(), seed=0, run=0)
    print(json.dumps({"ours": ours, "plain": plain}[name](target, load)))


def cost(name: str, rate: int, n_streams: int) -> Cost:
    """Server and client, each in its process; server on the first core."""
    serve = [sys.executable, "-m", "benchmarks.tick_server", str(rate), str(n_streams)]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
        port = server.stdout.readline().strip()
        ask = [sys.executable, "-m", "benchmarks.load_client", name, port, str(n_streams)]
        saw = json.loads(subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout)
        server.stdin.close()
        truth = json.loads(server.stdout.read())
    report = None
    if "lag_ms" in saw:
        report = ClientReport(loop_lag_p99_ms=saw["lag_ms"], cpu_share=saw["cpu_share"], saturated=saw["saturated"])
    return Cost(
        cpu_us_per_chunk=saw["cpu_s"] / truth["n_chunks"] * 1e6,
        delivered=truth["n_chunks"] / truth["busy_s"] / rate,
        ttft_error_ms=saw["ttft_ms"] - truth["ttft_ms"],
        tpot_error=saw["tpot_ms"] / truth["tpot_ms"] - 1,
        report=report,
    )


def main() -> None:
    """One line a rate and client."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; OSL {OSL}, {WAVES} waves")
    print(f"{'offered':>14}  {'client':6}{'µs/chunk':>9}{'delivered':>10}{'TTFT':>10}{'TPOT':>8}   verdict")
    for rate, n_streams in RATES:
        costs = {name: cost(name, rate, n_streams) for name in CLIENTS}
        for name, found in costs.items():
            verdict = f"{found.cpu_us_per_chunk / costs['ours'].cpu_us_per_chunk:.1f} x the CPU of ours"
            if found.report is not None:
                state = "saturated" if found.report.saturated else "fine"
                verdict = f"{state}: {found.report.cpu_share:.0%} of a core, {found.report.loop_lag_p99_ms:.1f} ms late"
            print(
                f"{rate:>8,}/{n_streams:<5}  {name:6}{found.cpu_us_per_chunk:9.1f}{found.delivered:10.1%}"
                f"{found.ttft_error_ms:+7.1f} ms{found.tpot_error:+8.1%}   {verdict}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one_client(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
