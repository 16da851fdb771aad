"""When a study is over: what a budget buys, when nothing more is expected of it, and what one more hour would bring.

Symbols: g expected gain of a proposal, a fraction of the incumbent's objective; s standard deviation of the log
objective between launches of one configuration.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.domain.study import Budget
from advisor.domain.trial import TrialRecord
from advisor.metrics.confidence import NoisePrior, pooled_noise
from advisor.search.standings import TIE_FRACTION

MAX_ROUNDS = 2  # of winner and baseline; with the noise of the whole study this gives an interval that can decide 3 %
FEWEST_FOR_ROUNDS = 8  # launches of a budget that keeps both rounds of one winner and the baseline, half of it or less
RACE_LAUNCHES = 6  # beyond the rounds, for the best few against each other
DRIFT_EVERY = 8  # launches after which the baseline is launched again
LOW_IN_A_ROW = 2  # proposals that expect too little; one may be a slip of a fit that the next launch mends
FLOOR_DOF = 4  # the floor of the noise weighs as much as five repeats: two that differ by luck must not end a study
TREND = 4  # expected gains that tell how fast they fade


class Outlook(StrictModel):
    """What one more hour of launches would bring."""

    launches_per_hour: float = Field(gt=0, description="At the pace of the study; virtual hours on the twin")
    expected_gain: float = Field(
        ge=0,
        description="Of the whole hour at most, a fraction of the incumbent, as the sampler expects: no measurement",
    )


def confirmation_launches(budget: Budget, n_workloads: int) -> int:
    """Launches kept for the confirmation: a third of the budget, at most what its rounds and the race can use.

    From eight launches on it is at least both rounds of one winner and the baseline: one launch a side cannot tell a
    gain of 9 % from noise. None below six: then every winner is only a candidate.
    """
    third = budget.max_launches // 3
    if budget.max_launches >= FEWEST_FOR_ROUNDS:
        third = max(third, 2 * MAX_ROUNDS)
    return min(third, MAX_ROUNDS * (n_workloads + 1) + RACE_LAUNCHES) if third > 1 else 0


def search_launches(budget: Budget, n_workloads: int) -> int:
    """Launches left for baselines and search once the confirmation is reserved."""
    return budget.max_launches - confirmation_launches(budget, n_workloads)


def noise(repeats: Iterable[Sequence[float]]) -> float:
    """s, from repeats of any configurations (log values), never below what a benchmark can tell apart.

    A posterior mean of the variance: the floor counts as `FLOOR_DOF` degrees of freedom beside those of the repeats.
    """
    return max(TIE_FRACTION, pooled_noise(repeats, NoisePrior(sd=TIE_FRACTION, dof=FLOOR_DOF))[0])


def is_drift_check_due(records: Sequence[TrialRecord]) -> bool:
    """True when the search has launched so often since the baseline that the server's pace may have drifted.

    Launching the baseline again is what tells: it is compared with everything.
    """
    launched = [record.role for record in records if record.launched]
    return "baseline" in launched and launched[::-1].index("baseline") >= DRIFT_EVERY - 1


def repeats(
    records: Iterable[TrialRecord], value_of: Callable[[TrialRecord], float | None]
) -> tuple[tuple[float, ...], ...]:
    """Values of the launches that measured, by configuration."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        value = value_of(record)
        if value is not None:
            values[record.config.key].append(value)
    return tuple(map(tuple, values.values()))


def expected_gains(records: Iterable[TrialRecord]) -> tuple[float | None, ...]:
    """g of every proposal of the search that said something about its configuration, in order; None where unsaid."""
    return tuple(r.expected_gain for r in records if r.role == "search" and not r.infrastructure)


def no_gain_expected(gains: Sequence[float | None], log_noise: float) -> bool:
    """True when each of the last two proposals was expected to gain less than the noise, log(1 + g) < s."""
    last = gains[-LOW_IN_A_ROW:]
    return len(last) == LOW_IN_A_ROW and all(g is not None and math.log1p(g) < log_noise for g in last)


def outlook(gains: Sequence[float | None], n_launches: int, hours: float) -> Outlook | None:
    """What another hour would bring, None where the proposer did not say or no time passed.

    The gains of launches to come fade as the last ones did, by a constant factor q <= 1 from launch to launch:
    g q + g q^2 + ... over one hour. An expected improvement never grows by waiting, so without a trend q is 1.
    """
    known = [gain for gain in gains if gain is not None][-TREND:]
    if not known or gains[-1] is None or n_launches < 1 or hours <= 0:
        return None
    pace, first, last = n_launches / hours, known[0], known[-1]
    q = min(1.0, (last / first) ** (1 / (len(known) - 1))) if first > 0 and len(known) > 1 else 1.0
    weight = pace if q == 1.0 else q * (1 - q**pace) / (1 - q)
    return Outlook(launches_per_hour=pace, expected_gain=last * weight)
