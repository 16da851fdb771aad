"""A drawing as an SVG file that holds its own colours, light and dark: lines, boxes, words and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

# Hues of Okabe and Ito, which colour-blind people tell apart; their lightness serves both backgrounds.
_STYLE = """\
svg{font:13px system-ui,-apple-system,"Segoe UI",sans-serif}
.page{fill:#fff}text{fill:#24292f}.dim{fill:#57606a}.small{font-size:11px}.head{font-weight:600}
.axis{stroke:#8c959f;fill:none}.grid{stroke:#d8dee4;fill:none}.limit{stroke:#24292f;fill:none;stroke-dasharray:5 4}
.blue{fill:#2f81c1}.orange{fill:#dd8a00}.green{fill:#009e73}.pink{fill:#cc79a7}.sky{fill:#56b4e9}.grey{fill:#a7b0b9}
.red{fill:#d1453b}.bad{fill:#d1453b;fill-opacity:.16}.wait{stroke:#a7b0b9;fill:none;stroke-width:2}
.line{fill:none;stroke-width:2.5}.line.blue{stroke:#2f81c1}.line.orange{stroke:#dd8a00}.line.green{stroke:#009e73}
.line.red{stroke:#d1453b}.ring{fill:none;stroke:#57606a;stroke-width:1.5}
@media (prefers-color-scheme:dark){.page{fill:#1e2129}text{fill:#e6edf3}.dim{fill:#adb6c0}.axis{stroke:#768390}
.grid{stroke:#373e47}.limit{stroke:#e6edf3}.ring{stroke:#adb6c0}.wait,.grey{stroke:#768390}.grey{fill:#768390}}"""


@dataclass(frozen=True)
class Scale:
    """Values `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


@dataclass
class Drawing:
    """Marks in the order in which they are drawn. Positions are px from the upper left corner.

    Attributes:
        title: What a screen reader says.
    """

    width: int
    height: int
    title: str
    marks: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> None:
        """A filled rectangle."""
        inner = f"<title>{escape(hint)}</title>" if hint else ""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="{max(height, 0.0):.1f}"'
        self.marks.append(f'<rect class="{kind}" {size}>{inner}</rect>')

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.marks.append(f'<path class="{kind}" d="M{path}"/>')

    def dot(self, x: float, y: float, kind: str, radius: float = 4.5) -> None:
        """A circle."""
        self.marks.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def words(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", turn: int = 0) -> None:
        """Text with its baseline at a point, turned by degrees."""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}'
        self.marks.append(f'<text class="{kind}" {place}>{escape(text)}</text>')

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """Boxes with what they stand for, from left to right."""
        for kind, text in entries:
            self.box(x, y - 10, 11, 11, kind)
            self.words(x + 16, y, text, "dim")
            x += 16 + 6.9 * len(text) + 22

    def y_axis(self, scale: Scale, left: float, right: float, values: Sequence[float], unit: str) -> None:
        """Lines across at values, with their numbers to the left and the unit above."""
        for value in values:
            self.line([(left, scale(value)), (right, scale(value))], "grid")
            self.words(left - 8, scale(value) + 4, f"{value:,g}", "dim", "end")
        self.words(left, scale.end - 12, unit, "dim")

    def x_axis(self, scale: Scale, y: float, values: Sequence[float], unit: str) -> None:
        """A line below with numbers at values, and the unit below them."""
        self.line([(scale.start, y), (scale.end, y)], "axis")
        for value in values:
            self.line([(scale(value), y), (scale(value), y + 4)], "axis")
            self.words(scale(value), y + 18, f"{value:,g}", "dim", "middle")
        self.words((scale.start + scale.end) / 2, y + 36, unit, "dim", "middle")

    def svg(self) -> str:
        """The file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img"'
        size = f'width="{self.width}" height="{self.height}"'
        page = f'<rect class="page" width="{self.width}" height="{self.height}" rx="6"/>'
        title = f"<title>{escape(self.title)}</title>"
        return "\n".join([f"{head} {size}>", title, f"<style>{_STYLE}</style>", page, *self.marks, "</svg>", ""])
