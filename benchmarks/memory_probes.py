"""What memory-only probes save and cost, in drawn worlds: `make bench-memory-probes`.

For some deployments, two of which hardly hold their weights, and each of some drawn worlds, one study without probes
and one with as many as the tuner buys by itself; everything else is the same. Nothing is measured on a GPU: hours are
virtual.

    oom       launches that ran out of memory, mean per study
    probes    memory-only starts, and of those the ones that ran out of memory
    hours     server hours, probes included
    won       true objective of the winner with probes over that without, geometric mean; 1.000 = the same
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import sys
from dataclasses import dataclass

from advisor.app.concluding import result
from advisor.app.probing import LAUNCHES_PER_PROBE, Prober
from advisor.app.setup import Question
from advisor.app.starts import NoStarts
from advisor.app.trial_maker import TrialMaker
from advisor.app.tuner import NO_PROBES, Tuner
from advisor.app.tuning import How, open_session
from advisor.domain.errors import AdvisorError
from advisor.domain.strict import parse
from benchmarks.search_quality import MemoryLedger, Nobody, truth, world_twin

WORKLOADS = ("1k1k_c64", "8k1k_c32")
LLAMA_70B = "meta-llama/Llama-3.3-70B-Instruct"
DEPLOYMENTS: dict[str, dict[str, str | int]] = {
    "Llama-8B, 1 x H100": {"study": "llama3.1-8b-h100"},
    "Llama-70B FP8, 2 x H200": {"study": "llama3.3-70b-fp8-h200"},
    "Llama-70B FP8, 1 x H100": {"model": LLAMA_70B, "quant": "fp8", "gpu": "h100_sxm", "gpus": 1, "tp": 1, "ep": 1},
    "Llama-70B BF16, 1 x H200": {"model": LLAMA_70B, "quant": "bf16", "gpu": "h200_sxm", "gpus": 1, "tp": 1, "ep": 1},
}
Job = tuple[str, str, int, int]


@dataclass(frozen=True)
class Cost:
    """One study in one world."""

    n_oom: int
    n_probes: int
    n_dead_probes: int
    hours: float
    won: float


def run(deployment: str, shape: str, world: int, launches: int, probed: bool) -> Cost:
    """One study in one world."""
    question = parse(Question, {**DEPLOYMENTS[deployment], "workloads": (shape,), "max_launches": launches}, deployment)
    session = open_session(question, How(engine="twin", twin_world=world, seed=world, transfer=False))
    ledger, nobody = MemoryLedger(session), Nobody()
    trials = TrialMaker(context=session.context, engine=session.engine, ledger=ledger, reporter=nobody)
    probes = Prober(trials, session.gate, launches // LAUNCHES_PER_PROBE) if probed else NO_PROBES
    tuner = Tuner(trials=trials, admission=session.gate, starts=NoStarts(), cancel=nobody, probes=probes)
    stopped_by, workload = tuner.run(), session.context.workloads[0]
    records = ledger.records()
    outcome = result(session.context, records, workload, stopped_by)
    best = None if outcome.best is None else outcome.best.serving_config
    value = None if best is None else truth(world_twin(session, world), session, best, workload)
    return Cost(
        n_oom=outcome.counts.oom,
        n_probes=outcome.counts.probes,
        n_dead_probes=sum(record.out_of_memory for record in records if record.role == "probe"),
        hours=sum(record.duration_s for record in records) / 3600,
        won=value or math.nan,
    )


def both(job: Job) -> tuple[str, str, Cost, Cost] | None:
    """Without and with probes; None where nothing can serve."""
    try:
        return *job[:2], run(*job, probed=False), run(*job, probed=True)
    except AdvisorError:
        return None


def main() -> int:
    """Print a row for every study and workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", nargs="+", default=list(DEPLOYMENTS))
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS))
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--launches", type=int, default=12)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    jobs: list[Job] = [
        (deployment, shape, world, args.launches)
        for deployment in args.deployments
        for shape in args.workloads
        for world in range(1, args.worlds + 1)
    ]
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        found = [pair for pair in pool.imap_unordered(both, jobs) if pair is not None]
    print(f"{'deployment':26} {'load':8} {'oom':>11} {'probes (dead)':>14} {'hours':>13} {'won':>6}")
    for name, shape in sorted({(name, shape) for name, shape, *_ in found}):
        pairs = [(off, on) for *about, off, on in found if about == [name, shape]]
        oom, hours = (
            " > ".join(f"{statistics.fmean(getattr(pair[side], field) for pair in pairs):.2f}" for side in (0, 1))
            for field in ("n_oom", "hours")
        )
        probes = f"{statistics.fmean(on.n_probes for _, on in pairs):.2f}"
        dead = f"{statistics.fmean(on.n_dead_probes for _, on in pairs):.2f}"
        ratios = [math.log(on.won / off.won) for off, on in pairs if on.won > 0 and off.won > 0]
        won = math.exp(statistics.fmean(ratios)) if ratios else math.nan
        print(f"{name:26} {shape:8} {oom:>11} {f'{probes} ({dead})':>14} {hours:>13} {won:6.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
