"""Where text goes: answers to stdout, progress to stderr. Colour and width are rich's business (NO_COLOR holds)."""

from __future__ import annotations

import functools
import os

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from advisor.domain.measurement import Source
from advisor.domain.serving_config import OptionValue

WIDTH_WITHOUT_TERMINAL = 120  # logs and files have room for a table

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


@functools.cache
def stdout() -> Console:
    """For answers."""
    return _console(stderr=False)


@functools.cache
def stderr() -> Console:
    """For progress and notes."""
    return _console(stderr=True)


class _Console(Console):
    """A console that goes on in silence when nobody reads any more (`| head`): a study is worth more than its text."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return _Console(stderr=stderr, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def show(*parts: RenderableType) -> None:
    """Print an answer on stdout."""
    for part in parts:
        stdout().print(part)


def show_document(text: str) -> None:
    """Print a whole document, such as JSON, on stdout as it is."""
    stdout().print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def show_lines(*lines: Text) -> None:
    """Print lines that must stay whole, such as paths and commands, however narrow the terminal."""
    for line in lines:
        stdout().print(line, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table: first column left, the others right; nothing but spaces and one rule, so that it pastes well."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
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
