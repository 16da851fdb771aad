"""The bounds that the figures of `verify` are told with, and that its targets follow from lives."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.verify_errors import CHUNK, Life, live, targets, upper_bound

GOOD = Life("same", "slower", "same", "slower", "same", "slower", (3, 3, 3, 3, 3, 3), 9)


@pytest.mark.parametrize("n", [10, 1000, 60_000])
def test_the_upper_bound_of_nothing_seen_is_the_exact_one(n: int) -> None:
    assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n))
    assert upper_bound(n, n) == 1.0


def test_the_upper_bound_is_that_of_clopper_and_pearson() -> None:
    assert upper_bound(5, 100) == pytest.approx(0.1022534, abs=1e-6)  # scipy.stats.beta.ppf(0.95, 6, 95)


def test_targets_follow_from_lives() -> None:
    assert all(targets([GOOD] * 5000).values())
    spoilt = [
        dataclasses.replace(GOOD, first="faster"),
        dataclasses.replace(GOOD, second="faster"),
        dataclasses.replace(GOOD, verifiable="slower"),
        dataclasses.replace(GOOD, second_slower="same"),
        dataclasses.replace(GOOD, verifiable_slower="same"),
    ]
    for place, life in enumerate(spoilt):
        met = list(targets([GOOD] * 5000 + [life] * 200).values())
        assert met == [number != place for number in range(len(spoilt))]


def test_lives_without_much_noise_are_all_told_right() -> None:
    found = live(0.002, 0)
    assert len(found) == CHUNK
    unchanged = {each for life in found for each in (life.first, life.second, life.verifiable)}
    slower = {each for life in found for each in (life.second_slower, life.verifiable_slower)}
    assert (unchanged, slower) == ({"same"}, {"slower"})
    assert {life.n_reference for life in found} == {9}
