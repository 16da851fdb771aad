"""Points in a plane of characters: a plot that any terminal, log and mail can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_COLUMNS = 16  # fewer tell nothing


@dataclass(frozen=True)
class Mark:
    """A point and the character that stands for it."""

    x: float
    y: float
    symbol: str


@dataclass(frozen=True)
class Frame:
    """The extremes of all points on a raster, and where each point falls."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    columns: int
    rows: int

    def place(self, mark: Mark) -> tuple[int, int]:
        """Row from the top and column of a point."""
        row = _share(self.high_y - mark.y, self.high_y - self.low_y) * (self.rows - 1)
        column = _share(mark.x - self.low_x, self.high_x - self.low_x) * (self.columns - 1)
        return round(row), round(column)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.5


def frame_of(marks: Sequence[Mark], columns: int, rows: int) -> Frame:
    """The smallest frame that holds all points."""
    xs, ys = [mark.x for mark in marks], [mark.y for mark in marks]
    return Frame(min(xs), max(xs), min(ys), max(ys), columns, rows)


def scatter(
    marks: Sequence[Mark], width: int, height: int, *, x_title: str, y_title: str, x_format: str, y_format: str
) -> list[str]:
    """Lines of a plot with axes; of points in one place the last one is seen.

    The ends of the axes are the extremes of the points, and are written there.

    Args:
        marks: What is drawn, at least one.
        width: Characters of a line at most.
        height: Lines of the plane, at least two.
        x_title: Below it.
        y_title: Above it.
        x_format: Of the numbers below, such as `,.1f`.
        y_format: Of the numbers beside.

    Returns:
        Nothing where `width` leaves no room for a plane.
    """
    low_x, high_x = (format(end(mark.x for mark in marks), x_format) for end in (min, max))
    low_y, high_y = (format(end(mark.y for mark in marks), y_format) for end in (min, max))
    margin = max(len(low_y), len(high_y))
    columns = width - margin - 2
    if columns < max(LEAST_COLUMNS, len(low_x) + len(high_x) + 2, len(x_title)) or len(y_title) > width:
        return []
    frame = frame_of(marks, columns, height)
    plane = [[" "] * columns for _ in range(height)]
    for mark in marks:
        row, column = frame.place(mark)
        plane[row][column] = mark.symbol
    beside = [high_y, *[""] * (height - 2), low_y]
    between = " " * (columns - len(low_x) - len(high_x))
    return [
        y_title,
        *(f"{label:>{margin}} |{''.join(cells)}".rstrip() for label, cells in zip(beside, plane, strict=True)),
        f"{'':>{margin}} +{'-' * columns}",
        f"{'':>{margin}}  {low_x}{between}{high_x}",
        f"{'':>{margin}}  {x_title:^{columns}}".rstrip(),
    ]
