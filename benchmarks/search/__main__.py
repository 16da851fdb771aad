"""How near the best a search comes in 8, 12 and 20 launches, on servers that nobody knows: `make bench-search`.

Every contender plays the same drawn truths (`truths.py`) with the same seeds and the same noise, and launches the
baseline first. `docs/search-benchmark.md` says what is measured, and how to play a truth of one's own:
`make bench-search TRUTH=path.py`. Exits 1 when a target of advisor's own search is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence

from advisor.domain.errors import BadInput
from benchmarks.search.contenders import CONTENDERS, entry
from benchmarks.search.matches import OUTSIDE, jobs, outside_truth, run
from benchmarks.search.play import Score
from benchmarks.search.table import judged, lines
from benchmarks.search.truths import CLASSES


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table a class; 1 when a target is missed."""
    args = _parser().parse_args(argv)
    try:
        skipped = {name: entry(name).missing for name in args.contenders if entry(name).missing}
        if args.truth:
            outside_truth(args.truth)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # processes, not threads, share the cores
    for name, packages in skipped.items():
        print(f"skipped: {name} needs {' and '.join(packages)} (pip install '.[bench]')")
    started = time.monotonic()
    playing = [name for name in args.contenders if name not in skipped]
    classes = [OUTSIDE] if args.truth else args.classes
    todo = jobs(classes, playing, range(args.first, args.first + args.truths), args.truth)
    scores: dict[str, dict[str, list[Score]]] = {each: {name: [] for name in playing} for each in classes}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for job, results in pool.imap(run, todo):
            for name, score in results.items():
                scores[job.class_name][name].append(score)
    print(
        f"simulated: {args.truths} drawn truths a class from seed {args.first}, the baseline launched first; "
        f"{platform.machine()}, {os.cpu_count()} cores, {time.monotonic() - started:.0f} s"
    )
    missed = 0
    for each in classes:
        promise = CLASSES[each].promise if each in CLASSES else f"truths of {args.truth}"
        print(f"\n{each}: {promise}")
        print("\n".join(lines(scores[each])))
        verdicts = judged(each, scores[each])
        print("".join(f"  {verdict.text}\n" for verdict in verdicts), end="")
        missed += sum(not verdict.met for verdict in verdicts)
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", nargs="*", default=list(CLASSES), choices=list(CLASSES))
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS), metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--truths", type=int, default=40, help="of each class")
    parser.add_argument("--first", type=int, default=0, help="seed of the first truth")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--truth", help="Python file that defines truth(seed), instead of the classes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
