"""Primitives of the charts: scales, axes, marks and labels, as inline SVG whose colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from advisor.report.markup import Html, join, tag

Shape = Literal["circle", "square", "diamond", "cross", "tick", "triangle"]
Symbol = tuple[Shape | Literal["line", "dashes"], str, str]  # shape, class, words

CHARACTER_PX = 6.4  # mean advance of 12 px text, for keeping labels inside
_RADIUS_PX = 4.5


@dataclass(frozen=True)
class Scale:
    """Linear: values `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Frame:
    """A plot area inside its picture, px."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, low: float, high: float) -> Scale:
        """Values to the right."""
        return Scale(low, high, self.left, self.width - self.right)

    def y(self, low: float, high: float) -> Scale:
        """Values upwards."""
        return Scale(low, high, self.height - self.bottom, self.top)


def ticks(high: float, n_wanted: int = 6) -> list[float]:
    """Round numbers from 0 up to `high`, in steps of 1, 2 or 5 times a power of ten."""
    rough = high / n_wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * number for number in range(math.floor(high / step * (1 + 1e-9)) + 1)]


def tick_text(value: float) -> str:
    """A tick's number: 12,500 or 0.25."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def text(x: float, y: float, words: str, class_: str | None = None, anchor: str | None = None, turn: int = 0) -> Html:
    """Words at a point, turned by degrees."""
    turned = f"rotate({turn} {x:.1f} {y:.1f})" if turn else None
    return tag("text", words, x=float(x), y=float(y), class_=class_, text_anchor=anchor, transform=turned)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> Html:
    """A line through points."""
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, tooltip: str) -> Html:
    """A rectangle that says what it is."""
    said = tag("title", tooltip)
    return tag("rect", said, x=float(x), y=float(y), width=float(width), height=float(height), class_=class_)


def mark(shape: Shape, x: float, y: float, class_: str, tooltip: str | None = None) -> Html:
    """A symbol centred on a point; the tooltip says all about it."""
    said = tag("title", tooltip) if tooltip else None
    r = _RADIUS_PX
    if shape == "circle":
        return tag("circle", said, cx=float(x), cy=float(y), r=r, class_=class_)
    drawn = {
        "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        "diamond": f"M{x:.1f} {y - r - 1.5:.1f}l{r + 1.5} {r + 1.5}l{-r - 1.5} {r + 1.5}l{-r - 1.5} {-r - 1.5}z",
        "triangle": f"M{x:.1f} {y - r:.1f}l{r} {2 * r}h{-2 * r}z",
        "cross": f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}",
        "tick": f"M{x:.1f} {y - 2 * r:.1f}v{2 * r}",
    }
    return tag("path", said, d=drawn[shape], class_=class_)


def axes(
    frame: Frame, x: Scale, y: Scale, x_title: str, y_title: str, whole_x: bool = False, y_numbers: bool = True
) -> Html:
    """Grid, numbers and titles; the title of y stands above its axis, to be read without turning the head."""
    floor, wall = y.start, x.start
    parts: list[Html] = []
    for value in ticks(y.high) if y_numbers else [0.0]:
        parts.append(line(wall, y(value), x.end, y(value), "grid" if value else "axis"))
        parts.append(text(wall - 7, y(value) + 4, tick_text(value), "tick", "end"))
    for value in ticks(x.high, 6):
        if value >= x.low and not (whole_x and value != int(value)):
            parts.append(line(x(value), floor, x(value), floor + 4, "axis"))
            parts.append(text(x(value), floor + 18, tick_text(value), "tick", "middle"))
    parts.append(text(x.end, frame.height - 6, x_title, "axis-title", "end"))
    parts.append(text(2, 13, y_title, "axis-title"))
    return tag("g", *parts, class_="axes")


def called_out(x: float, y: float, height: float, words: str, class_: str, right_px: float) -> Html:
    """A label at a height of its own with a line to its point; to the left where it would leave the picture."""
    fits = x + 22 + CHARACTER_PX * len(words) <= right_px
    side = 18 if fits else -18
    lead = path([(x + side, height), (x + side / 3, height), (x, y)], f"lead {class_}")
    return join(lead, text(x + side * 1.25, height + 4, words, f"label {class_}", None if fits else "end"))


def picture(id_: str, width: float, height: float, title: str, description: str, *parts: str) -> Html:
    """A whole chart, named and described for those who cannot see it."""
    names = tag("title", title, id=f"{id_}-title"), tag("desc", description, id=f"{id_}-desc")
    return tag(
        "svg",
        *names,
        *parts,
        id=id_,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{id_}-title {id_}-desc",
    )


def stamp(frame: Frame, source: str) -> Html:
    """Who the numbers are from, inside the picture: pictures are cut out and sent around."""
    return text(frame.width - frame.right, 13, source, "stamp", "end")


def legend(entries: Sequence[Symbol]) -> Html:
    """What the symbols mean."""
    items = []
    for shape, class_, words in entries:
        if shape == "line" or shape == "dashes":
            drawn = line(0, 8, 20, 8, class_)
        else:
            drawn = mark(shape, 10, 13 if shape == "tick" else 8, class_)
        symbol = tag("svg", drawn, width=20, height=16, viewBox="0 0 20 16", aria_hidden="true", focusable="false")
        items.append(tag("li", symbol, join(" ", words)))
    return tag("ul", *items, class_="legend")
