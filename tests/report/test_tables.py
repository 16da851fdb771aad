"""Tables on any width: nothing is wider than the terminal, nothing is lost, and foreign text does nothing."""

from __future__ import annotations

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from advisor.report.console import Screen, table
from advisor.report.tables import record

WIDTHS = st.integers(20, 200)
WORDS = st.text(st.sampled_from("abcdefghij-_.,0123456789 "), max_size=50).map(str.strip)
HOSTILE = st.sampled_from(["\x1b[31mred\x1b[0m", "[bold]x[/bold]", "[/]", "\r\x1b[2K", "\u202eabc", ":boom:", "\x07"])


def shown(*parts: object, width: int, plain: bool = False) -> str:
    """What a file of that width gets."""
    stream = io.StringIO()
    Screen(stream, {"ADVISOR_PLAIN": "1"} if plain else {}, width).print(*parts)
    return stream.getvalue()


def letters(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(st.lists(st.lists(WORDS, min_size=3, max_size=3), min_size=1, max_size=4), WIDTHS, st.booleans())
def test_nothing_is_wider_than_the_terminal_and_nothing_is_lost(rows: list[list[str]], width: int, plain: bool) -> None:
    grid = table("name", "", "amount")
    for row in rows:
        grid.add_row(*row)
    text = shown(grid, width=width, plain=plain)
    assert max(map(cell_len, text.splitlines())) <= width
    assert all(line == line.rstrip() for line in text.splitlines())
    for character in set("".join(map("".join, rows))) - {" "}:
        assert text.count(character) >= sum("".join(row).count(character) for row in rows)


@given(st.lists(WORDS.filter(bool), min_size=4, max_size=4), st.integers(20, 50))
def test_a_record_keeps_every_cell_in_order(cells: list[str], width: int) -> None:
    grid = table("what", "first", "second", "third")
    grid.add_row(*cells)
    text = letters(shown(grid, width=width, plain=True))
    wanted = f"what{cells[0]}first{cells[1]},second{cells[2]},third{cells[3]}"
    assert text in (letters(wanted), letters(wanted.replace(",second", "second").replace(",third", "third")))


def test_a_wide_terminal_has_a_table_and_a_narrow_one_records() -> None:
    grid = table("setting", "best", "guide")
    grid.add_row("max_num_tokens", "8,192", "16,384")
    assert shown(grid, width=40) == "setting          best   guide\nmax_num_tokens  8,192  16,384\n"
    assert shown(grid, width=26) == "setting\nmax_num_tokens\n  best 8,192, guide 16,384\n"
    assert shown(grid, width=40, plain=True) == "setting\nmax_num_tokens\n  best 8,192, guide 16,384\n"


def test_a_table_of_two_columns_is_read_as_pairs() -> None:
    grid = table("plan", "")
    grid.add_row("fixed", "a model on a GPU")
    grid.add_row("", "and more")
    assert shown(grid, width=80, plain=True) == "plan\nfixed: a model on a GPU\nand more\n"
    assert record("", ["a", ""], ["", "x"]) == ("x", [])


@given(HOSTILE, WIDTHS)
def test_escape_sequences_and_markup_in_foreign_text_are_shown_and_do_nothing(said: str, width: int) -> None:
    grid = table("model", "value")
    grid.add_row(said, said)
    text = shown(grid, Text(said), said, width=width)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text)
    if said.isprintable() and width > 40:
        assert text.count(said) == 4
    assert max(map(cell_len, text.splitlines())) <= width
