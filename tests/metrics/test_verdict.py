"""The rule of `advisor verify`: laws of its plan, symmetry, and how often it errs on drawn launches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.metrics.verdict import (
    FALSE_ALARM,
    FULL_REFERENCE,
    LOOKS,
    LOSS,
    TAIL_NOISE,
    VERIFY_NOISE,
    Decision,
    Look,
    change,
    decide,
    limit_state,
    looks,
    noticeable_loss,
    reference_needed,
    size_change,
)

paces = st.lists(st.floats(0.9, 1.1), min_size=2, max_size=16)
LAST = Look(n_launches=5, alarm=FALSE_ALARM, is_last=True)


@given(st.integers(1, 40), st.floats(1e-6, 0.5))
def test_a_plan_spends_what_it_may_and_ends_with_the_most_launches(most: int, alarm: float) -> None:
    plan = looks(most, alarm)
    assert math.isclose(sum(look.alarm for look in plan), alarm)
    assert [look.is_last for look in plan] == [False] * (len(plan) - 1) + [True]
    numbers = [look.n_launches for look in plan]
    assert numbers == sorted(set(numbers)) and numbers[-1] == most


@given(paces, paces, st.floats(0.1, 1e6))
def test_only_ratios_count(now: list[float], then: list[float], unit: float) -> None:
    plain, scaled = decide(now, then, LAST), decide([unit * x for x in now], [unit * x for x in then], LAST)
    assert scaled.direction == plain.direction
    assert scaled.ratio.estimate == pytest.approx(plain.ratio.estimate)
    assert scaled.detectable_loss == pytest.approx(plain.detectable_loss)


@given(paces, paces)
def test_slower_and_faster_are_the_same_question(now: list[float], then: list[float]) -> None:
    mirror = {"slower": "faster", "faster": "slower", "same": "same"}
    there, back = decide(now, then, LAST), decide(then, now, LAST)
    assert there.direction is not None and back.direction == mirror[there.direction]
    assert there.ratio.low * back.ratio.high == pytest.approx(1.0)


@given(paces, st.floats(0.2, 5.0))
def test_a_tolerance_never_turns_agreement_into_drift(then: list[float], pace: float) -> None:
    now = [pace * value for value in then]
    strict, tolerant = decide(now, then, LAST), decide(now, then, LAST, tolerance=0.2)
    assert tolerant.direction in (strict.direction, "same")
    assert decide(then, then, LAST).direction == "same"


@given(paces, st.integers(2, 16))
def test_more_launches_behind_the_result_notice_smaller_losses(then: list[float], n: int) -> None:
    few, many = (decide(then, [1.0] * size, LAST, [then]).detectable_loss for size in (n, 2 * n))
    assert many < few


def test_no_reference_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        decide([1.0], [], LAST)


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 0.0, 0.005), (0.05, 0.98, 1.0), (-0.08, 0.98, 1.0)])
def test_errors_at_2_percent_noise(loss: float, least: float, most: float) -> None:
    """A coarse check on 600 servers; `make bench-verify-errors` bounds the errors themselves."""
    rng = np.random.default_rng(2026)
    drifts = 0
    for _ in range(600):
        then = np.exp(0.02 * rng.standard_normal(FULL_REFERENCE))
        now = (1 - loss) * np.exp(0.02 * rng.standard_normal(LOOKS[-1]))
        drifts += _verdict(now.tolist(), then.tolist()) != "same"
    assert least <= drifts / 600 <= most


def _verdict(now: list[float], then: list[float]) -> str:
    decisions: list[Decision] = [decide(now[: look.n_launches], then, look) for look in looks(LOOKS[-1])]
    return next(each.direction for each in decisions if each.direction is not None)


@given(st.lists(st.floats(50, 60), min_size=3, max_size=8))
def test_a_limit_is_broken_only_beyond_noise(values_ms: list[float]) -> None:
    assert limit_state(values_ms, values_ms, 60.0, 0.001) == "kept"
    assert limit_state(values_ms, values_ms, sum(values_ms) / len(values_ms) / 1.005, 0.001) in ("edge", "kept")
    assert limit_state([10 * ms for ms in values_ms], values_ms, 60.0, 0.001) == "broken"


@given(paces, st.sampled_from([VERIFY_NOISE, TAIL_NOISE]))
def test_what_is_equal_is_noise_and_what_is_far_apart_is_real(values: list[float], prior: object) -> None:
    noise = VERIFY_NOISE if prior == VERIFY_NOISE else TAIL_NOISE
    same = change("ttft:p95", values, values, [], 19, noise)
    assert (same.kind, same.before) == ("noise", same.after)
    far = change("ttft:p95", values, [100 * value for value in values], [values], 19, noise)
    assert far.kind == "real" and far.ratio is not None and far.ratio.estimate == pytest.approx(100)


def test_what_has_no_ratio_is_untold() -> None:
    assert change("goodput", [0.0], [1.0], [], 1, VERIFY_NOISE).kind == "untold"
    assert change("itl:p50", [0.0, 0.0], [0.0, 0.0], [], 1, TAIL_NOISE).kind == "noise", "tokens that come together"
    assert change("goodput", [], [1.0], [], 1, VERIFY_NOISE).before is None
    assert [size_change("weights_gib", 1.0, at, 0.1).kind for at in (1.05, 1.2, None)] == ["noise", "real", "untold"]


@given(paces, st.integers(1, 15), st.sampled_from([FALSE_ALARM, FALSE_ALARM / 6]))
def test_more_launches_behind_a_result_tell_smaller_losses_and_stricter_tests_larger_ones(
    reference: list[float], n: int, alarm: float
) -> None:
    loss = noticeable_loss(n, reference, alarm=alarm)
    assert noticeable_loss(n + 1, reference, alarm=alarm) < loss
    assert noticeable_loss(n, reference, alarm=alarm / 2) > loss
    assert noticeable_loss(n, [1e3 * value for value in reference], alarm=alarm) == pytest.approx(loss)


@given(paces, st.sampled_from([FALSE_ALARM, FALSE_ALARM / 6]))
def test_the_launches_needed_are_the_fewest_that_suffice(reference: list[float], alarm: float) -> None:
    needed = reference_needed(reference, alarm=alarm)
    assert len(reference) <= needed <= FULL_REFERENCE
    if needed < FULL_REFERENCE:
        assert noticeable_loss(needed, reference, alarm=alarm) <= LOSS
    if needed > len(reference):
        assert noticeable_loss(needed - 1, reference, alarm=alarm) > LOSS


def test_nine_launches_are_needed_at_the_noise_that_is_promised_for() -> None:
    """As docs/decisions/verify.md derives; two that agree by luck promise no less, two that do not ask for more."""
    assert reference_needed(()) == reference_needed([1.0, 1.0]) == 9
    assert 9 < reference_needed([1.0, 1.0, 1.06, 1.0, 0.96]) <= FULL_REFERENCE
