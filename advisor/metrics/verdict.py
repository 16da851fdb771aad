"""Whether a server still does what was measured of it: the sequential rule of `advisor verify`.

Symbols: d mean log value of the n launches so far, larger is better, minus that of the n0 launches of the reference;
s pooled deviation of one launch. The variance of d is s^2 (1/n + 1/n0), so what the reference lacks no number of
launches makes up for. Differences from look to look have independent increments in 1 / variance, with or without an
estimated reference (Jennison and Turnbull, Group Sequential Methods, 2000, chapter 11): a plan that spends the
probability of a false alarm over its looks never spends more than all of it. `docs/decisions/verify.md` derives sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.metrics.confidence import Interval, LogRatio, NoisePrior, log_ratio, mean_interval, pooled_noise
from advisor.metrics.confidence import student_t_quantile as t_quantile

FALSE_ALARM = 0.002  # of an unchanged server, over all looks and all tests of one verification
MISS = 0.01  # of a server that lost LOSS
LOSS = 0.05
LOOKS = (3, 5, 8, 12, 16)
SHARES = (0.05, 0.05, 0.1, 0.2, 0.6)
"""Of the false alarms at each look: little early, where few launches tell the deviation, and most at the end."""
EARLY_MISS = 0.0005  # at each look but the last, of ending on "same"; what is left of MISS is the last one's
FULL_REFERENCE = LOOKS[-1]
VERIFY_NOISE = NoisePrior(sd=0.02, dof=4)
"""Of one launch against the next: the noise that the error rates are promised for, until launches tell better."""
TAIL_NOISE = NoisePrior(sd=0.05, dof=4)
"""Of TTFT and of high percentiles, which repeat less well."""
MOST_TOLD = 0.05  # family-wise, of calling a difference real

Direction = Literal["same", "slower", "faster"]


class Look(StrictModel):
    """A number of launches at which it is asked whether they suffice."""

    n_launches: int = Field(ge=1)
    alarm: float = Field(gt=0, lt=1, description="Probability of a false alarm that this look may spend, two-sided")
    is_last: bool


class Decision(StrictModel):
    """What one look says of one metric."""

    direction: Direction | None = Field(description="null: more launches are needed")
    ratio: Interval = Field(description="Now over the reference, above 1 is better; outside 1 is a drift")
    largest_loss: float = Field(ge=0, description="A fraction: with 99 % confidence it lost no more")
    detectable_loss: float = Field(description="A fraction; a loss of so much is called a drift with 99 % at this look")


def looks(most: int, alarm: float = FALSE_ALARM) -> tuple[Look, ...]:
    """The plan of a verification of at most so many launches; the last look gets what those left out do not spend."""
    before = [(n, share) for n, share in zip(LOOKS[:-1], SHARES, strict=False) if n < most]
    rest = 1.0 - sum(share for _, share in before)
    early = tuple(Look(n_launches=n, alarm=alarm * share, is_last=False) for n, share in before)
    return (*early, Look(n_launches=most, alarm=alarm * rest, is_last=True))


def decide(
    launches: Sequence[float],
    reference: Sequence[float],
    look: Look,
    others: Sequence[Sequence[float]] = (),
    tolerance: float = 0.0,
) -> Decision:
    """What the launches up to a look say against the reference.

    Args:
        launches: Values of the verification, one a launch, larger is better.
        reference: Values of the launches behind the result.
        look: Of the plan.
        others: Repeats of further configurations; they share in the deviation.
        tolerance: A fraction by which both may differ anyway, as of a prediction.

    Raises:
        ValueError: no launch or no reference.
    """
    found = log_ratio(launches, reference, others, VERIFY_NOISE)
    if found is None:
        raise ValueError("nothing to compare")
    ratio = found.interval(1 - look.alarm)
    direction: Direction | None = None
    if ratio.high < 1 - tolerance:
        direction = "slower"
    elif ratio.low > 1 + tolerance:
        direction = "faster"
    elif look.is_last or _within(found.interval(1 - 2 * EARLY_MISS), max(LOSS, tolerance)):
        direction = "same"
    return Decision(
        direction=direction,
        ratio=ratio,
        largest_loss=max(0.0, 1 - found.interval(1 - 2 * MISS).low),
        detectable_loss=detectable_loss(found, look.alarm),
    )


def noticeable_loss(
    n: int, reference: Sequence[float], others: Sequence[Sequence[float]] = (), alarm: float = FALSE_ALARM
) -> float:
    """The loss that a verification of all its launches notices with 1 - MISS if n launches stand behind the result.

    At the noise seen, or that of `VERIFY_NOISE` where less was seen: launches that agree by luck promise too much.

    Args:
        n: At least one.
        reference: Values of the launches behind the result so far; none, where nothing is known but the prior.
        others: Repeats of further configurations; they share in the deviation.
        alarm: Probability of a false alarm that one test of the verification may spend over all looks.
    """
    sd, dof = pooled_noise([np.log(np.asarray(each, float)) for each in (reference, *others)], VERIFY_NOISE)
    last, more = looks(LOOKS[-1], alarm)[-1], n - max(1, len(reference))
    error = max(sd, VERIFY_NOISE.sd) * math.sqrt(1 / last.n_launches + 1 / n)
    then = LogRatio(estimate=0.0, error=error, dof=dof + more + last.n_launches - 1)
    return detectable_loss(then, last.alarm)


def reference_needed(
    reference: Sequence[float], others: Sequence[Sequence[float]] = (), alarm: float = FALSE_ALARM
) -> int:
    """Launches that must stand behind a result for `LOSS` to be noticed; see `noticeable_loss`.

    Where no number suffices, as above a noise of 2.4 %, it is the most that a result is completed to.
    """
    sizes = range(max(1, len(reference)), FULL_REFERENCE)
    return next((n for n in sizes if noticeable_loss(n, reference, others, alarm) <= LOSS), FULL_REFERENCE)


def _within(ratio: Interval, loss: float) -> bool:
    """True when neither a loss of so much nor its inverse, a gain, is left possible."""
    return ratio.low > 1 - loss and ratio.high < 1 / (1 - loss)


def detectable_loss(found: LogRatio, alarm: float) -> float:
    """The loss that is noticed with probability 1 - MISS where a false alarm has probability `alarm`, two-sided."""
    sds = t_quantile(1 - alarm / 2, found.dof) + t_quantile(1 - MISS, found.dof)
    return -math.expm1(-sds * found.error)


def limit_state(
    values_ms: Sequence[float], reference_ms: Sequence[float], limit_ms: float, alarm: float
) -> Literal["kept", "edge", "broken"]:
    """Whether launches keep a limit: broken only beyond noise, `edge` where their mean is above it within noise.

    Args:
        values_ms: One a launch.
        reference_ms: Of the result; they tell of noise alone.
        limit_ms: At most.
        alarm: Probability of calling a limit broken that is kept.
    """
    mean = mean_interval(values_ms, [reference_ms], TAIL_NOISE, 1 - 2 * alarm)
    if mean is None or mean.estimate <= limit_ms:
        return "kept"
    return "broken" if mean.low > limit_ms else "edge"


class Change(StrictModel):
    """One metric here and there, and whether the difference is more than noise."""

    metric: str
    before: float | None
    after: float | None
    ratio: Interval | None = Field(description="After over before; null where one side has no value")
    kind: Literal["real", "noise", "untold"]


def change(
    metric: str,
    before: Sequence[float],
    after: Sequence[float],
    others: Sequence[Sequence[float]],
    n_told: int,
    prior: NoisePrior,
) -> Change:
    """The difference of a metric between two sets of launches.

    Args:
        metric: Its name.
        before: Values, one a launch.
        after: The same later, or elsewhere.
        others: Repeats of further configurations; they share in the deviation.
        n_told: Metrics told together: with 95 % none of them is called real by luck.
        prior: Of the deviation.
    """
    usable = all(value > 0 for value in (*before, *after))
    found = log_ratio(after, before, others, prior) if usable else None
    ratio = None if found is None else found.interval(1 - MOST_TOLD / n_told)
    kind: Literal["real", "noise", "untold"] = "noise" if before and list(before) == list(after) else "untold"
    if ratio is not None:
        kind = "noise" if ratio.low <= 1 <= ratio.high else "real"
    return Change(metric=metric, before=_mean(before), after=_mean(after), ratio=ratio, kind=kind)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def size_change(metric: str, before: float | None, after: float | None, tolerance: float) -> Change:
    """The difference of something that is no matter of repeats, such as GiB of a component.

    Args:
        metric: Its name.
        before: In one place.
        after: In the other.
        tolerance: What is no difference, in the unit of both.
    """
    kind: Literal["real", "noise", "untold"] = "untold"
    if before is not None and after is not None:
        kind = "real" if abs(after - before) > tolerance else "noise"
    return Change(metric=metric, before=before, after=after, ratio=None, kind=kind)
