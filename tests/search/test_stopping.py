"""What a budget keeps, when a study is over, and what another hour would bring: laws, and hand arithmetic."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.study import Budget
from advisor.search.standings import TIE_FRACTION
from advisor.search.stopping import (
    FLOOR_DOF,
    MAX_ROUNDS,
    RACE_LAUNCHES,
    confirmation_launches,
    no_gain_expected,
    noise,
    outlook,
    search_launches,
)

gains = st.floats(0, 0.5)
logs = st.lists(st.floats(-1, 1), min_size=1, max_size=6)


@given(st.integers(1, 200), st.integers(1, 30))
def test_the_confirmation_takes_a_third_or_two_rounds_and_never_more_than_it_can_use(n_launches: int, n: int) -> None:
    budget = Budget(max_launches=n_launches)
    kept = confirmation_launches(budget, n)
    assert kept + search_launches(budget, n) == n_launches
    assert kept <= max(n_launches / 3, 2 * MAX_ROUNDS if n_launches >= 8 else 0)
    assert kept <= n_launches / 2
    assert kept <= MAX_ROUNDS * (n + 1) + RACE_LAUNCHES
    assert (kept == 0) == (n_launches < 6)


@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.integers(1, 64))
def test_the_tighter_of_two_limits_binds(hours: float, gpu_hours: float, n_gpus: int) -> None:
    both = Budget(max_hours=hours, gpu_hours=gpu_hours)
    assert both.server_hours(n_gpus) == pytest.approx(min(hours, gpu_hours / n_gpus))
    assert both.binds(n_gpus) == ("hours" if hours <= gpu_hours / n_gpus else "gpu_hours")
    assert Budget(max_hours=hours).server_hours(n_gpus) == hours
    assert Budget(gpu_hours=gpu_hours).server_hours(n_gpus) == gpu_hours / n_gpus
    assert math.isinf(Budget().server_hours(n_gpus))


# --- noise ---


@given(st.lists(logs, max_size=6), st.floats(-5, 5))
def test_noise_has_a_floor_and_does_not_depend_on_the_level(groups: list[list[float]], shift: float) -> None:
    s = noise(groups)
    assert s >= TIE_FRACTION
    assert noise([[value + shift for value in group] for group in groups]) == pytest.approx(s, rel=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=40, max_size=60))
def test_many_repeats_outweigh_the_floor(values: list[float]) -> None:
    sd = statistics.stdev(values)
    assert noise([values]) <= max(sd, TIE_FRACTION) * (1 + 1e-9)
    if sd > 0.1:
        assert noise([values]) == pytest.approx(sd, rel=0.06)


def test_two_repeats_that_differ_by_luck_do_not_decide_what_the_noise_is() -> None:
    squares = 2 * 0.015**2
    expected = math.sqrt((FLOOR_DOF * TIE_FRACTION**2 + squares) / (FLOOR_DOF + 1))
    assert noise([[0.0, 0.03], [1.0]]) == pytest.approx(expected)
    assert expected < 0.03 / math.sqrt(2) / 2


# --- the rule ---


@given(st.lists(st.none() | gains, max_size=8), st.floats(0.001, 0.1))
def test_it_fires_exactly_when_the_last_two_expect_less_than_the_noise(
    history: list[float | None], log_noise: float
) -> None:
    said = history[-2:]
    low = [gain is not None and math.log1p(gain) < log_noise for gain in said]
    assert no_gain_expected(history, log_noise) == (low == [True, True])


@given(st.lists(gains, max_size=8), st.floats(0.001, 0.1))
def test_a_proposer_that_cannot_say_never_ends_a_study(history: list[float], log_noise: float) -> None:
    assert not no_gain_expected([*history, None], log_noise)
    assert not no_gain_expected([None] * 5, log_noise)


# --- the next hour ---

paces = st.floats(0.5, 50)


@given(st.lists(st.floats(0, 0.5, allow_subnormal=False), min_size=1, max_size=6), paces)
def test_an_hour_brings_no_more_than_its_launches_at_the_last_gain(history: list[float], pace: float) -> None:
    found = outlook(history, 10, 10 / pace)
    assert found is not None
    assert found.launches_per_hour == pytest.approx(pace)
    assert 0 <= found.expected_gain <= history[-1] * pace * (1 + 1e-9)


def test_gains_that_halve_go_on_halving() -> None:
    found = outlook([0.08, 0.04, 0.02], n_launches=6, hours=2.0)
    assert found is not None
    assert found.expected_gain == pytest.approx(0.01 + 0.005 + 0.0025)


@given(st.floats(1e-4, 0.1), st.floats(0.3, 1.0), st.floats(0.5, 20), st.floats(0.5, 20))
def test_a_faster_pace_never_brings_less(gain: float, fade: float, slow: float, more: float) -> None:
    history = [gain / fade, gain]
    one, other = outlook(history, 8, 8 / slow), outlook(history, 8, 8 / (slow + more))
    assert one is not None
    assert other is not None
    assert other.expected_gain >= one.expected_gain - 1e-12


def test_nothing_is_said_where_nobody_said_anything() -> None:
    assert outlook([], 5, 1.0) is None
    assert outlook([0.1, None], 5, 1.0) is None
    assert outlook([0.1], 0, 1.0) is None
    assert outlook([0.1], 5, 0.0) is None
