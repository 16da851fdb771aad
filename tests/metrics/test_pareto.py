"""The non-dominated set against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.metrics.pareto import non_dominated

Point = tuple[float, float]
coordinates = st.one_of(st.integers(0, 6).map(float), st.floats(0, 1e6))  # few values make ties and equal points
clouds = st.lists(st.tuples(coordinates, coordinates), max_size=40)


def dominates(one: Point, other: Point) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other


@given(clouds)
def test_no_member_is_dominated_and_every_other_point_is_by_a_member(cloud: list[Point]) -> None:
    members = [cloud[place] for place in non_dominated(cloud)]
    assert not any(dominates(point, member) for member in members for point in cloud)
    others = [point for place, point in enumerate(cloud) if place not in non_dominated(cloud)]
    assert all(any(dominates(member, point) for member in members) for point in others)


@given(clouds, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(cloud: list[Point], random: object) -> None:
    shuffled = list(cloud)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(cloud[i] for i in non_dominated(cloud)) == sorted(shuffled[i] for i in non_dominated(shuffled))


@given(clouds)
def test_equal_points_stand_or_fall_together_and_a_second_look_drops_nothing(cloud: list[Point]) -> None:
    members = [cloud[place] for place in non_dominated(cloud)]
    twice = [cloud[place % len(cloud)] for place in range(2 * len(cloud))]
    assert len(non_dominated(twice)) == 2 * len(members)
    assert non_dominated(members) == list(range(len(members)))


def test_along_both_axes_by_hand() -> None:
    assert non_dominated([(1, 5), (2, 4), (2, 3), (1, 4), (3, 1), (3, 1)]) == [0, 1, 4, 5]
    assert non_dominated([]) == []
