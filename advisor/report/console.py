"""Where text goes: answers to stdout, progress to stderr; and how much a terminal can take.

`ADVISOR_PLAIN=1` is for screen readers: nothing is drawn anew, no colour, and a table is read row by row.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from advisor.domain.measurement import Source
from advisor.domain.serving_config import OptionValue
from advisor.report.tables import Sheet
from advisor.report.visible import visible

WIDTH_WITHOUT_TERMINAL = 120  # logs and files have room for a table
LEAST_WIDTH = 20
HEIGHT = 25  # of a dumb terminal, which is never drawn anew
DUMB = ("dumb", "unknown")

SHORT_NAMES = {
    "max_batch_size": "batch",
    "max_num_tokens": "tokens",
    "cuda_graph_max_batch_size": "graphs",
    "kv_cache_free_gpu_memory_fraction": "kv frac",
    "enable_attention_dp": "attn DP",
    "enable_chunked_prefill": "chunked",
    "stream_interval": "stream",
    "kv_cache_dtype": "kv dtype",
    "cuda_graph_batch_sizes": "graph sizes",
}


def short_name(name: str) -> str:
    """A setting in the head of a column: by its usual short name, else by the last part of its key."""
    return SHORT_NAMES.get(name, name.rpartition(".")[2].replace("_", " "))


def stdout() -> Screen:
    """For answers."""
    return Screen(sys.stdout, os.environ)


def stderr() -> Screen:
    """For progress and notes."""
    return Screen(sys.stderr, os.environ)


class Screen(Console):
    """A console for one stream.

    It goes on in silence when nobody reads any more (`| head`): a study is worth more than its text. Escape sequences
    and markup in foreign text, such as a model's name, are shown and do nothing.

    Args:
        file: Where it writes.
        env: `NO_COLOR`, `TERM`, `COLUMNS` and `ADVISOR_PLAIN` are read.
        width: Of the terminal, where that is to be another than it has.
    """

    def __init__(self, file: IO[str], env: Mapping[str, str], width: int | None = None) -> None:
        self.plain = env.get("ADVISOR_PLAIN", "0") not in ("", "0")
        super().__init__(
            file=file,
            width=width or _width(file, env),
            height=HEIGHT if env.get("TERM") in DUMB else None,
            color_system=None if self.plain or env.get("NO_COLOR") else "auto",
            highlight=False,
            markup=False,
            emoji=False,
            _environ=env,
        )

    @property
    def is_live(self) -> bool:
        """True where lines can be drawn anew before somebody's eyes."""
        return self.is_interactive and self.file.isatty() and not self.plain

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)

    def render_str(self, text: str, **how: Any) -> Text:
        """As rich does it, with what is foreign made visible."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, with what is foreign made visible."""
        if isinstance(renderable, Text) and visible(renderable.plain) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = visible(renderable.plain)
        return super().render(renderable, options)


def _width(file: IO[str], env: Mapping[str, str]) -> int | None:
    """Columns to write in; None where rich asks the terminal, again and again as it may be resized."""
    said = env.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return max(LEAST_WIDTH, int(said))
    if not file.isatty():
        return WIDTH_WITHOUT_TERMINAL
    if env.get("TERM") not in DUMB:
        return None
    with contextlib.suppress(OSError):  # rich takes a dumb terminal for one of 80 columns
        return max(LEAST_WIDTH, os.get_terminal_size(file.fileno()).columns)
    return None


def show(*parts: RenderableType) -> None:
    """Print an answer on stdout."""
    for part in parts:
        stdout().print(part)


def show_document(text: str) -> None:
    """Print a whole document, such as JSON, on stdout as it is."""
    stdout().print(text, soft_wrap=True)


def show_lines(*lines: Text) -> None:
    """Print lines that must stay whole, such as paths and commands, however narrow the terminal."""
    for line in lines:
        stdout().print(line, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Sheet:
    """A plain table: first column left, the others right; nothing but spaces, so that it pastes well."""
    grid = Sheet(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        first = number == 0  # names are copied from it, so they stay whole
        grid.add_column(
            column, justify="left" if first else "right", header_style="dim", overflow="fold", no_wrap=first
        )
    return grid


def value_text(value: OptionValue) -> str:
    """A setting for people: on/off, 8,192, 0.9, auto."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def banner(source: Source, label: str, why: str | None = None) -> Text:
    """The first line of everything: what the numbers are."""
    if source == "measured":
        return Text(label[:1].upper() + label[1:], style="bold green")
    said = label.removeprefix(source).strip()
    reason = f" ({why})" if why else ""
    return Text.assemble(
        (f" {source.upper()} ", "bold black on yellow"),
        (f" {said}{reason}. No GPU was used, and no number below is a measurement.", "yellow"),
    )
