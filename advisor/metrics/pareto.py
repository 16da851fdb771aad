"""The non-dominated set of points where more is better in both coordinates."""

from __future__ import annotations

from collections.abc import Sequence


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other one dominates, ascending.

    One point dominates another when it is at least as good in both coordinates and better in one; so equal points
    stand or fall together, and the order of the points does not matter.
    """
    kept: list[int] = []
    best_x, best_y = float("-inf"), float("-inf")  # of the highest point so far, the rightmost where several are
    for place in sorted(range(len(points)), key=lambda each: points[each], reverse=True):
        x, y = points[place]
        if y > best_y:
            best_x, best_y = x, y
        if (x, y) == (best_x, best_y):
            kept.append(place)
    return sorted(kept)
