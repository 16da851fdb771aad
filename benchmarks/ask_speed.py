"""How long the sampler thinks: `make bench-ask-speed`. At most 100 ms an ask, the prior already computed.

One workload, three outputs (throughput, TTFT, TPOT), a grid of 51,184 configurations and up to 100 trials, which are
launches of a drawn truth of the search benchmark at random places. Elapsed time, best of a few, since machines are
shared: processor time would count the second core, on which BLAS spins while it waits, as work.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from advisor.app.admission import LearntFrontier
from advisor.app.setup import Question, resolve
from advisor.app.twin_prior import TwinPrior
from advisor.domain.objective import parse_slo
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.expectation import Sought
from advisor.search.proposer import OwnProposer
from advisor.search.space import all_configs, restrict
from advisor.store import catalog
from benchmarks.search.problems import Problem, make_problem
from benchmarks.search.truths import DrawnTruth, Effects, draw_constants

TARGET_MS, REPEATS = 100.0, 5
TRIALS = (1, 12, 24, 100)
SLO = parse_slo("ttft:p95<8s,tpot:mean<40ms")
FRACTION = "kv_cache_free_gpu_memory_fraction"
VARIED = ("enable_attention_dp", "enable_chunked_prefill", "kv_cache_dtype")


def drawn_problem() -> Problem:
    """The shipped study of Llama-4-Maverick on B200, with further options and seven KV fractions."""
    resolved = resolve(Question(study="llama4-maverick-fp8-b200", workloads=("4k1k_c256",)))
    whole = restrict(catalog.search_space("default"), VARIED)
    dimensions = [changed(each, values=each.values[3:]) if each.name == FRACTION else each for each in whole.dimensions]
    space = changed(whole, dimensions=tuple(dimensions))
    return replace(make_problem("default", resolved.deployment, resolved.workloads, space), slo=SLO)


def launched(problem: Problem, n: int) -> list[TrialRecord]:
    """Launches of a server that nobody knows."""
    assert problem.forecaster is not None
    rng = np.random.default_rng(0)
    twin = replace(problem.forecaster.twin, constants=draw_constants(rng))
    spreads = {
        name: dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), 1.0) for name in ("ttft", "tpot", "itl", "e2e")
    }
    truth = DrawnTruth(problem, twin, Effects(), (), spreads, (0,))
    configs = all_configs(problem.space)
    return [truth.launch(configs[int(row)], n) for n, row in enumerate(rng.choice(len(configs), n, replace=False))]


def ask_ms(proposer: OwnProposer, history: Sequence[TrialRecord]) -> float:
    """Elapsed time of one ask, ms."""
    times = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        proposer.propose(history)
        times.append(time.perf_counter() - began_s)
    return 1e3 * min(times)


def main() -> int:
    """Print the times; 1 when the target is missed."""
    problem = drawn_problem()
    assert problem.forecaster is not None
    prior = TwinPrior(problem.forecaster, problem.space, problem.objective, problem.slo)
    began_s = time.perf_counter()
    prior.over_grid()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {len(all_configs(problem.space)):,} configurations; "
          f"prior, once a study: {time.perf_counter() - began_s:.1f} s")  # fmt: skip
    sought = Sought(problem.space, problem.workloads, problem.objective, problem.slo, prior, problem.baseline)
    proposer = OwnProposer(sought, LearntFrontier(problem.forecaster))
    records = launched(problem, max(TRIALS))
    times = {n: ask_ms(proposer, records[:n]) for n in TRIALS}
    for n, each in times.items():
        print(f"{n:4d} trials  {each:6.1f} ms an ask")
    met = max(times.values()) <= TARGET_MS
    print(f"target at most {TARGET_MS:.0f} ms: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
