"""The plot of characters: every point is where it belongs, and the axes say what they span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.report.scatter import LEAST_COLUMNS, Mark, frame_of, scatter

NUMBERS = st.floats(0.01, 1e6)
MARKS = st.lists(st.builds(Mark, NUMBERS, NUMBERS, st.sampled_from("*oxB")), min_size=1, max_size=20)
HEIGHT = 9


def drawn(marks: list[Mark], width: int) -> list[str]:
    return scatter(marks, width, HEIGHT, x_title="per user", y_title="per GPU", x_format=",.1f", y_format=",.0f")


@given(MARKS, st.integers(20, 200))
def test_every_point_is_drawn_at_its_place_and_no_line_is_too_wide(marks: list[Mark], width: int) -> None:
    lines = drawn(marks, width)
    if not lines:
        return
    assert max(map(len, lines)) <= width
    low_y, high_y = (f"{end(mark.y for mark in marks):,.0f}" for end in (min, max))
    margin = max(len(low_y), len(high_y)) + 2
    frame = frame_of(marks, width - margin, HEIGHT)
    last = {frame.place(mark): mark.symbol for mark in marks}
    for (row, column), symbol in last.items():
        assert lines[1 + row].ljust(width)[margin + column] == symbol
    inside = "".join(line[margin:] for line in lines[1 : 1 + HEIGHT])
    assert len(inside.replace(" ", "")) == len(last), "and nothing else is"


@given(MARKS, st.integers(60, 200))
def test_the_axes_hold_the_extremes(marks: list[Mark], width: int) -> None:
    lines = drawn(marks, width)
    assert lines[0] == "per GPU"
    assert lines[1].split("|")[0].strip() == f"{max(mark.y for mark in marks):,.0f}"
    assert lines[HEIGHT].split("|")[0].strip() == f"{min(mark.y for mark in marks):,.0f}"
    assert lines[HEIGHT + 2].split() == [f"{end(mark.x for mark in marks):,.1f}" for end in (min, max)]
    assert lines[-1].strip() == "per user"


def test_more_output_is_higher_and_more_speed_is_further_right() -> None:
    frame = frame_of([Mark(1, 1, "a"), Mark(2, 5, "b")], 40, HEIGHT)
    assert frame.place(Mark(1, 1, "a")) == (HEIGHT - 1, 0)
    assert frame.place(Mark(2, 5, "b")) == (0, 39)
    assert frame.place(Mark(1.5, 3, "c")) == (HEIGHT // 2, 20)


def test_no_room_is_no_plot() -> None:
    assert drawn([Mark(1, 1, "*")], LEAST_COLUMNS) == []
