"""Scores as a table, and the targets of advisor's own search."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.search.contenders import CONTENDERS, OURS
from benchmarks.search.play import MARKS, OOM_MARK, Score

NEVER = max(MARKS) + 1
"""What a run that never came near counts as, in launches."""


@dataclass(frozen=True)
class Target:
    """Median regret after 12 launches (at 8: twice that) and mean out-of-memory launches in 12."""

    regret: float
    n_oom: float | None = None


TARGETS = {
    "right-form": Target(0.015, 0.3),
    "wrong-form": Target(0.04, 0.8),
    "no-twin": Target(0.06, 1.0),
    "tight": Target(0.03),
    "multi": Target(0.03),
}
STOCK = {name for name, each in CONTENDERS.items() if each.is_optuna}
MOST_BROKEN = 0.02
LEAST_SPEED_UP = 3.0


@dataclass(frozen=True)
class Verdict:
    """One target: what was asked and what came out."""

    text: str
    met: bool


def median_regret(scores: Sequence[Score], mark: int) -> float:
    """Median over truths, of the workload (first, second ...) where it is worst."""
    by_workload = zip(*(score.regret[mark] for score in scores), strict=True)
    return max(float(statistics.median(regrets)) for regrets in by_workload)


def mean_regret(scores: Sequence[Score], mark: int) -> float:
    """Mean over truths and workloads."""
    return statistics.fmean(regret for score in scores for regret in score.regret[mark])


def broken_share(scores: Sequence[Score]) -> float:
    """Share of picks that break their SLO in truth by over 3 %."""
    return statistics.fmean(broken for score in scores for broken in score.broken)


def mean_oom(scores: Sequence[Score]) -> float:
    """Out-of-memory launches among the first 12."""
    return statistics.fmean(score.n_oom for score in scores)


def median_to_near(scores: Sequence[Score]) -> float:
    """Launches to come within 5 % of the best; a run that never does counts as `NEVER`."""
    return statistics.median(NEVER if score.n_to_near is None else score.n_to_near for score in scores)


def lines(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """The table of one class, in the order of the contenders; regret in %."""
    head = " ".join(f"{f'@{mark}':>11}" for mark in MARKS)
    rest = f"{f'OOM in {OOM_MARK}':>9} {'broken %':>8} {'to 5 %':>6} {'ms/ask':>7} {'runs':>4}"
    played = [_line(name, each) for name, each in scores.items() if each]
    return [f"{'regret %: median (mean)':24} {head} {rest}", *played]


def _line(name: str, scores: Sequence[Score]) -> str:
    cells = " ".join(
        f"{100 * median_regret(scores, mark):5.1f}{f'({100 * mean_regret(scores, mark):.1f})':>6}" for mark in MARKS
    )
    near = median_to_near(scores)
    to_near = f">{max(MARKS)}" if near >= NEVER else f"{near:g}"
    return (
        f"{name:24} {cells} {mean_oom(scores):9.2f} {100 * broken_share(scores):8.1f} {to_near:>6} "
        f"{statistics.fmean(score.ask_ms for score in scores):7.1f} {len(scores):4d}"
    )


def judged(class_name: str, scores: Mapping[str, Sequence[Score]]) -> list[Verdict]:
    """Every target of a class against advisor's own search; nothing where it did not play or nothing is asked."""
    ours, target = scores.get(OURS), TARGETS.get(class_name)
    if not ours or target is None:
        return []
    verdicts = [
        _at_most("median regret at 12, %", 100 * median_regret(ours, 12), 100 * target.regret),
        _at_most("median regret at 8, %", 100 * median_regret(ours, 8), 200 * target.regret),
        _at_most("picks that break their SLO, %", 100 * broken_share(ours), 100 * MOST_BROKEN),
    ]
    if target.n_oom is not None:
        verdicts.append(_at_most(f"out of memory in {OOM_MARK} launches", mean_oom(ours), target.n_oom))
    stock = [median_to_near(each) for name, each in scores.items() if each and name in STOCK]
    if class_name == "right-form" and stock:
        verdicts.append(_at_most("launches to 5 %", median_to_near(ours), min(stock) / LEAST_SPEED_UP))
    return verdicts


def _at_most(what: str, value: float, limit: float) -> Verdict:
    met = value <= limit
    return Verdict(f"{OURS}: {what}: {value:.2f}, target at most {limit:.2f}: {'met' if met else 'MISSED'}", met)
