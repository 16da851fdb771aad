"""A table that a narrow terminal and a screen reader can take: where it does not fit, its rows become records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

LEAST_TEXT = 24  # columns that a cell of words keeps before its table is given up
INDENT = 2


class Sheet(Table):
    """A table, or one record a row where its cells would be squeezed or `console.plain` asks for that."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table without trailing spaces, or the records."""
        if getattr(console, "plain", False) or self._needed(console, options) > options.max_width:
            yield from self._records(console, options.max_width)
        else:
            drawn = (part for part in super().__rich_console__(console, options) if isinstance(part, Segment))
            for row in Segment.split_lines(drawn):
                yield from (*_without_trailing_spaces(row), Segment.line())

    def _needed(self, console: Console, options: ConsoleOptions) -> int:
        """Columns of the terminal below which cells would be squeezed."""
        widths = [self._column_needs(column, console, options) for column in self.columns]
        return sum(widths) + INDENT * (len(widths) - 1)

    def _column_needs(self, column: Column, console: Console, options: ConsoleOptions) -> int:
        wide = options.update(width=10_000)
        cells = (column.header, *column.cells)
        natural = max(Measurement.get(console, wide, cell).maximum for cell in cells)
        return natural if column.no_wrap else min(natural, LEAST_TEXT)

    def _records(self, console: Console, width: int) -> Iterator[Text]:
        """Lines of all rows, none wider than `width`."""
        heads = [_text(column.header) for column in self.columns]
        first, *others = heads
        if len(others) == 1:
            first, others = ": ".join(filter(None, heads)), [""]
        if first:
            yield from _wrapped(first, 0, width, console, "dim")
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            name, *values = map(_text, cells)
            title, pairs = record(name, others, values)
            yield from _wrapped(title, 0, width, console, "bold" if pairs else "")
            together = ", ".join(pairs)
            for line in [together] if pairs and INDENT + len(together) <= width else pairs:
                yield from _wrapped(line, INDENT, width, console)


def record(name: str, heads: Sequence[str], values: Sequence[str]) -> tuple[str, list[str]]:
    """A row in words: its name with all that stands below no head, and `head value` of each other cell.

    Empty cells are left out.
    """
    unnamed = " ".join(value for head, value in zip(heads, values, strict=True) if value and not head)
    pairs = [f"{head} {value}" for head, value in zip(heads, values, strict=True) if value and head]
    return ": ".join(filter(None, (name, unnamed))), pairs


def _text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _wrapped(line: str, indent: int, width: int, console: Console, style: str = "") -> Iterator[Text]:
    for part in Text(line, style).wrap(console, max(1, width - indent), overflow="fold"):
        part.rstrip()
        yield Text(" " * indent).append_text(part)


def _without_trailing_spaces(row: list[Segment]) -> list[Segment]:
    while row and not row[-1].text.strip():
        row = row[:-1]
    return [*row[:-1], Segment(row[-1].text.rstrip(), row[-1].style)] if row else []
