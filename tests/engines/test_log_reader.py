"""Bytes to events: whatever the chunks, as if every line had been asked about every rule."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.engines.log_reader import MAX_LINE_BYTES, MOST_ALIKE, RuleBook
from advisor.engines.log_sieve import Sieve
from advisor.engines.log_text import cause, fact, mark
from advisor.engines.rule_book import RULES
from advisor.memory.events import LogEvent
from tests.memory.log_cases import FOLDERS, LogCase, cases

ALL = [case for folder in FOLDERS for case in cases(folder)]
LITERALS = ["out of memory", "abc", "signal 9", "memory", " / ", "aaaa", "größe"]
WORDS = st.sampled_from([*LITERALS, "out of memor", "ab", "a", "signal 11", "\n", "\r", "\0", " ", "/", "é", "x" * 70])

LITERAL_SIEVE = Sieve({literal: [number] for number, literal in enumerate(LITERALS)})


def streamed(data: bytes, *cuts: int, book: RuleBook = RULES) -> list[LogEvent]:
    stream = book.stream()
    ends = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(ends)]
    return [*(event for chunk in chunks for event in stream.take(chunk)), *stream.end()]


@given(st.lists(WORDS, max_size=40).map("".join))
def test_sieve_finds_every_literal(text: str) -> None:
    sieve = LITERAL_SIEVE
    block = text.encode() + b"\n\n\n"
    found = sieve.rules_at(block, sieve.places(block).tolist())
    assert found == {number for number, literal in enumerate(LITERALS) if literal in text}


def test_literals_are_long_enough_to_look_for() -> None:
    with pytest.raises(ValueError, match="too short"):
        Sieve({"ab": [0]})


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.path.name)
def test_stream_and_lines_say_the_same(case: LogCase) -> None:
    data = "\n".join(case.lines).encode()
    rng = random.Random(case.path.name)
    expected = list(RULES.events(enumerate(case.lines, start=1)))
    assert streamed(data) == expected
    assert streamed(data, *(rng.randrange(len(data) + 1) for _ in range(20))) == expected


TOY = RuleBook(
    [cause("oom", "oom", "out of memory"), fact("abc", "abc", r"abc(?P<abc>\w)"), mark("s", "serve", "", "signal 9")]
)


@given(st.lists(WORDS, max_size=60).map("".join), st.lists(st.integers(0, 500), max_size=4))
@settings(max_examples=60)
def test_chunks_do_not_matter(text: str, cuts: list[int]) -> None:
    data = text.encode()
    assert streamed(data, *cuts, book=TOY) == streamed(data, book=TOY)
    lines = text.replace("\0", "").split("\n")
    assert streamed(data, book=TOY) == list(TOY.events(enumerate(lines, start=1)))


def test_line_ends_and_zeros_do_no_harm() -> None:
    (event,) = streamed(b"\0\0[TRT-LLM] [E] out\0 of memory\r\n\0\0", book=TOY)
    assert (event.line, event.text) == (1, "[TRT-LLM] [E] out of memory")


def test_enormous_line_keeps_its_number() -> None:
    data = b"x" * (5 * MAX_LINE_BYTES) + b" out of memory " + b"y" * 10 + b"\nabcd\n"
    assert [(event.line, event.meaning.name) for event in streamed(data, 7, book=TOY)] == [(1, "oom"), (2, "abc")]


def test_a_failure_that_repeats_is_read_a_few_times_and_a_figure_every_time() -> None:
    failing = b"".join(b"[TRT-LLM] [E] request %d: out of memory\n" % number for number in range(500))
    assert len(streamed(failing, book=TOY)) == MOST_ALIKE
    figures = b"".join(b"abc%d\n" % (number % 10) for number in range(500))
    assert len(streamed(figures, book=TOY)) == 500


def test_memory_stays_bounded() -> None:
    def endless() -> Iterator[bytes]:
        letters = str.maketrans("0123456789", "ghijklmnop")
        rng = random.Random(0)
        for _ in range(130):
            names = (f"{rng.getrandbits(64):x}".translate(letters) for _ in range(100))
            yield "".join(f"[TRT-LLM] [E] Exception: {name} of {'a busy day ' * 9}\n" for name in names).encode()

    stream = RULES.stream()
    tracemalloc.start()
    for chunk in endless():
        for _ in stream.take(chunk):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_server_that_starts_again_is_heard_again() -> None:
    start, end = "[TRT-LLM] [I] Using LLM with PyTorch backend", "torch.OutOfMemoryError: CUDA out of memory."
    lines = [start, end, end, start, end, end]
    log = "".join(f"{line}\n" for line in lines).encode()
    stream = RULES.stream()
    heard = [event.line for event in (*stream.take(log), *stream.end()) if event.meaning.kind == "oom"]
    assert sorted(set(heard)) == [2, 5]
