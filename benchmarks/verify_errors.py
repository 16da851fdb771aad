"""How often `advisor verify` errs, on servers whose noise is known: `make bench-verify-errors`.

The rule of `advisor/metrics/verdict.py` on drawn throughputs: a launch has a pace of its own, each benchmark another,
together `--noise`. A result stands on two launches; a first verification of the unchanged server completes it, and a
second one meets the same server or one that lost 5 %. Or its study was `--verifiable`, and bought launches by the noise
that they show, as `tune` does: then the first verification must tell. Exits 1 when a target is missed with its 95 %
bound.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.metrics.verdict import FULL_REFERENCE, LOOKS, LOSS, Direction, decide, looks, reference_needed

NOISE = 0.02
BETWEEN_SHARE = 0.36  # of the variance: launch to launch; the rest is of each benchmark
N_RESULT = 2  # launches of a winner in a confirmation
MOST_FALSE_ALARMS, LEAST_NOTICED = 0.002, 0.99
CHUNK = 1000
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Life:
    """Verdicts on an unchanged and a slower server: of a first verification, a second one, and with `--verifiable`."""

    first: Direction
    first_slower: Direction
    second: Direction
    second_slower: Direction
    verifiable: Direction
    verifiable_slower: Direction
    n_launches: tuple[int, int, int, int, int, int]
    n_reference: int


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line a case and noise; 1 when a target is missed."""
    args = _parser().parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # processes, not threads, share the cores
    started, missed = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for noise in args.noise:
            n_chunks = math.ceil(args.lives / CHUNK)
            chunks = pool.starmap(live, [(noise, args.first + chunk) for chunk in range(n_chunks)])
            found = [life for chunk in chunks for life in chunk]
            print("\n".join(lines(noise, found)), flush=True)
            missed += noise == NOISE and not all(targets(found).values())
    print(f"simulated: {platform.machine()}, {os.cpu_count()} cores, {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


def live(noise: float, seed: int) -> list[Life]:
    """A thousand results on servers with this noise."""
    rng = np.random.default_rng([seed, round(noise * 1e6)])
    return [_life(rng, noise) for _ in range(CHUNK)]


def _life(rng: np.random.Generator, noise: float) -> Life:
    result = _launches(rng, noise, N_RESULT)
    again = _launches(rng, noise, LOOKS[-1])
    first, n_first = verdict(again, result)
    first_slower, n_first_slower = verdict((1 - LOSS) * _launches(rng, noise, LOOKS[-1]), result)
    joined = again[:n_first] if first == "same" else again[:0]
    complete = np.concatenate([result, joined])[:FULL_REFERENCE]
    second, n_second = verdict(_launches(rng, noise, LOOKS[-1]), complete)
    second_slower, n_second_slower = verdict((1 - LOSS) * _launches(rng, noise, LOOKS[-1]), complete)
    reference = verifiable_result(rng, noise)
    sharp, n_sharp = verdict(_launches(rng, noise, LOOKS[-1]), reference)
    sharp_slower, n_sharp_slower = verdict((1 - LOSS) * _launches(rng, noise, LOOKS[-1]), reference)
    n_launches = (n_first, n_first_slower, n_second, n_second_slower, n_sharp, n_sharp_slower)
    return Life(first, first_slower, second, second_slower, sharp, sharp_slower, n_launches, len(reference))


def verifiable_result(rng: np.random.Generator, noise: float) -> Values:
    """Launches behind a result of `tune --verifiable`, of whose noise nothing else tells."""
    values, n = _launches(rng, noise, FULL_REFERENCE), N_RESULT
    while n < reference_needed(values[:n].tolist()):
        n += 1
    return values[:n]


def _launches(rng: np.random.Generator, noise: float, n: int) -> Values:
    between, within = noise * math.sqrt(BETWEEN_SHARE), noise * math.sqrt(1 - BETWEEN_SHARE)
    return np.asarray(np.exp(between * rng.standard_normal(n) + within * rng.standard_normal(n)))


def verdict(launches: Values, reference: Values) -> tuple[Direction, int]:
    """What a verification says, and after how many launches."""
    for look in looks(LOOKS[-1]):
        direction = decide(launches[: look.n_launches].tolist(), reference.tolist(), look).direction
        if direction is not None:
            return direction, look.n_launches
    raise AssertionError("the last look decides")


def targets(found: Sequence[Life]) -> dict[str, bool]:
    """Which targets are met with 95 % confidence, by what they ask for."""
    n = len(found)
    met = {}
    for name, title in (("first", "first"), ("second", "second"), ("verifiable", "first, --verifiable")):
        alarms = sum(getattr(life, name) != "same" for life in found)
        met[f"{title}: false alarms at most {MOST_FALSE_ALARMS:.1%}"] = upper_bound(alarms, n) <= MOST_FALSE_ALARMS
    for name, title in (("second_slower", "second"), ("verifiable_slower", "first, --verifiable")):
        missed = sum(getattr(life, name) == "same" for life in found)
        what = f"{title}: {LOSS:.0%} less noticed in at least {LEAST_NOTICED:.0%}"
        met[what] = upper_bound(missed, n) <= 1 - LEAST_NOTICED
    return met


def lines(noise: float, found: Sequence[Life]) -> list[str]:
    """What a person reads of one noise."""
    n = len(found)
    rows = [f"noise {noise:.1%} a launch, {n:,} results of {N_RESULT} launches"]
    cases = (
        ("first", "first verification, unchanged"),
        ("first_slower", f"first verification, {LOSS:.0%} slower"),
        ("second", "second, unchanged"),
        ("second_slower", f"second, {LOSS:.0%} slower"),
        ("verifiable", "first, --verifiable, unchanged"),
        ("verifiable_slower", f"first, --verifiable, {LOSS:.0%} slower"),
    )
    for place, (name, title) in enumerate(cases):
        said = Counter(getattr(life, name) for life in found)
        drifts = n - said["same"]
        launches = sum(life.n_launches[place] for life in found) / n
        if name.endswith("slower"):
            rows.append(f"  {title:<34} DRIFT {drifts / n:8.3%}, at least {1 - upper_bound(n - drifts, n):.3%}")
        else:
            rows.append(f"  {title:<34} DRIFT {drifts / n:8.3%}, at most  {upper_bound(drifts, n):.3%}")
        rows[-1] += f"; {launches:4.1f} launches"
    behind = Counter(life.n_reference for life in found)
    rows.append(
        f"  --verifiable: {sum(size * count for size, count in behind.items()) / n:.1f} launches behind a result; "
        f"{behind[min(behind)] / n:.0%} on {min(behind)}, {behind[FULL_REFERENCE] / n:.0%} on {FULL_REFERENCE}"
    )
    if noise == NOISE:
        rows += [f"  {what}: {'met' if met else 'MISSED'}" for what, met in targets(found).items()]
    return rows


def upper_bound(n_events: int, n: int, level: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound of a probability of which `n_events` in `n` came."""
    if n_events >= n:
        return 1.0
    low, high = n_events / n, 1.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if _binomial_cdf(n_events, n, p) > 1 - level else (low, p)
    return high


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(at most k of n)."""
    log_n = math.lgamma(n + 1)
    logs = (
        log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return math.fsum(map(math.exp, logs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-verify-errors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=60_000, help="results of each noise")
    parser.add_argument("--first", type=int, default=0, help="seed of the first thousand")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.01, NOISE, 0.03])
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    return parser


if __name__ == "__main__":
    sys.exit(main())
