"""Where text goes: answers to stdout, progress to stderr. Colour and width are rich's business (NO_COLOR holds)."""

from __future__ import annotations

import functools

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from advisor.domain.measurement import Source
from advisor.domain.serving_config import OptionValue


@functools.cache
def stdout() -> Console:
    """For answers."""
    return Console(highlight=False, soft_wrap=False)


@functools.cache
def stderr() -> Console:
    """For progress and notes."""
    return Console(stderr=True, highlight=False)


def show(*parts: RenderableType) -> None:
    """Print an answer on stdout."""
    for part in parts:
        stdout().print(part)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table: first column left, the others right; nothing but spaces and one rule, so that it pastes well."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", header_style="dim", overflow="fold")
    return grid


def value_text(value: OptionValue) -> str:
    """A setting for people: on/off, 8,192, 0.9, auto."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def banner(source: Source, label: str, why: str | None = None) -> Text:
    """The first line of everything: what the numbers are."""
    if source == "measured":
        return Text(f"MEASURED  {label}", style="bold green")
    reason = f" ({why})" if why else ""
    return Text.assemble(
        (f" {source.upper()} ", "bold black on yellow"),
        (f" {label}{reason}: no GPU was used, no number below is a measurement.", "bold yellow"),
    )
