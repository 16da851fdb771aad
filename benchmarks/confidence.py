"""Whether "best with 95 % confidence" is honest, on servers that nobody knows: `make bench-confidence`.

Whole studies, with stop rule, race and confirmation, against the drawn truths of `make bench-search`; their values
without noise are the judge. `--drift 0.05` lets the pace of every server change by 5 % over 24 launches. Exits 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Sequence

from advisor.domain.study import Budget
from benchmarks.search.truths import CLASSES, draw_truth
from benchmarks.search.whole import Drifting, Verdict, play_study

LEAST_HONEST, LEAST_ANNOUNCED, MOST_BROKEN = 0.93, 0.5, 0.02
ANNOUNCING_CLASS = "right-form"
"""Of which half the studies must announce."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a class; 1 when a target is missed."""
    args = _parser().parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # processes, not threads, share the cores
    started, missed = time.monotonic(), 0
    play = functools.partial(study, max_launches=args.max_launches, drift=args.drift)
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for name in args.classes:
            jobs = [(name, seed) for seed in range(args.first, args.first + args.truths)]
            found = [verdict for verdicts in pool.imap(play, jobs) for verdict in verdicts]
            print("\n".join(lines(name, found)), flush=True)
            missed += any(not met for met in targets(name, found).values())
    print(
        f"simulated: {args.truths} drawn truths a class from seed {args.first}, {args.max_launches} launches at most; "
        f"{platform.machine()}, {os.cpu_count()} cores, {time.monotonic() - started:.0f} s"
    )
    return 1 if missed else 0


def study(job: tuple[str, int], max_launches: int, drift: float) -> tuple[Verdict, ...]:
    """One study against truth (class, seed)."""
    truth = draw_truth(*job)
    return play_study(Drifting(truth, math.log1p(drift)), job[1], Budget(max_launches=max_launches))


def targets(name: str, found: Sequence[Verdict]) -> dict[str, bool]:
    """Which targets are met, by what they ask for."""
    announced = [verdict for verdict in found if verdict.announced]
    met = {
        f"honest where announced, at least {LEAST_HONEST:.0%}": _share(v.honest for v in announced) >= LEAST_HONEST,
        f"SLO broken, at most {MOST_BROKEN:.0%}": _share(v.breaks for v in found) <= MOST_BROKEN,
    }
    if name == ANNOUNCING_CLASS:
        met[f"announced, at least {LEAST_ANNOUNCED:.0%}"] = len(announced) >= LEAST_ANNOUNCED * len(found)
    return met


def lines(name: str, found: Sequence[Verdict]) -> list[str]:
    """What a person reads of one class."""
    announced = [verdict for verdict in found if verdict.announced]
    covered = [verdict.covered for verdict in found if verdict.covered is not None]
    told = [(v.expected_distance, v.regret) for v in found if v.expected_distance is not None]
    expected, came = zip(*told, strict=True) if told else ((math.nan,), (math.nan,))
    return [
        f"{name}: {CLASSES[name].promise}",
        f"  announced {len(announced)} of {len(found)}, honest {sum(v.honest for v in announced)} of {len(announced)} "
        f"({_share(v.honest for v in found):.0%} of all); SLO broken in {sum(v.breaks for v in found)}",
        f"  gain over the baseline in its 95 % interval: {sum(covered)} of {len(covered)}; "
        f"launches {statistics.fmean(v.n_launches for v in found):.1f}",
        f"  distance to the best of the grid, mean (median) %: expected {100 * statistics.fmean(expected):.1f} "
        f"({100 * statistics.median(expected):.1f}), came {100 * statistics.fmean(came):.1f} "
        f"({100 * statistics.median(came):.1f})",
        *(f"  {what}: {'met' if met else 'MISSED'}" for what, met in targets(name, found).items()),
    ]


def _share(flags: Iterable[bool]) -> float:
    """Of true ones; 1 of none."""
    each = list(flags)
    return sum(each) / len(each) if each else 1.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-confidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    with_twin = [name for name, each in CLASSES.items() if each.has_twin]
    parser.add_argument("--classes", nargs="*", default=with_twin, choices=with_twin)
    parser.add_argument("--truths", type=int, default=40, help="of each class")
    parser.add_argument("--first", type=int, default=0, help="seed of the first truth")
    parser.add_argument("--max-launches", type=int, default=24)
    parser.add_argument("--drift", type=float, default=0.0, help="of the pace over 24 launches, 0.05 = 5 %% faster")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    return parser


if __name__ == "__main__":
    sys.exit(main())
