"""Raw log to events, one pass, bounded memory: a line is unwrapped, and a table of rules is asked about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from advisor.engines.log_sieve import Sieve
from advisor.engines.log_text import Line, Rule, unwrapped
from advisor.memory.events import LogEvent

MAX_LINE_BYTES = 65_536  # longer lines come in pieces
MAX_EVIDENCE_CHARS = 400
MAX_REMEMBERED_LINES = 10_000
MAX_REMEMBERED_BYTES = 1_000
MOST_ALIKE = 20
_DIGITS = b"0123456789"


class RuleBook:
    """A table of rules, ready to read logs with: asked in their order, and several may match one line."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._literals: dict[str, set[int]] = {}
        for number, each in enumerate(rules):
            for literal in each.needs:
                self._literals.setdefault(literal, set()).add(number)
        routine = "|".join(each.regex.pattern for each in rules if each.routine)
        self.is_routine = re.compile(routine.encode()).search

    @cached_property
    def sieve(self) -> Sieve:
        """Finds the literals of all rules in bytes."""
        return Sieve(self._literals)

    def rules_about(self, text: str) -> list[Rule]:
        """The rules that have one of their literals in a text, in the table's order."""
        return self.rules(n for literal, numbers in self._literals.items() if literal in text for n in numbers)

    def rules(self, numbers: Iterable[int]) -> list[Rule]:
        """Rules by their numbers, in the table's order."""
        return [self._rules[n] for n in sorted(set(numbers))]

    def reader(self) -> LogReader:
        """A reader for one log that is given line by line."""
        return LogReader(self)

    def stream(self) -> LogStream:
        """A reader for one log that is given as bytes in chunks of any size: a file's, or those of a running server."""
        return LogStream(self)

    def events(self, lines: Iterable[tuple[int, str]]) -> Iterator[LogEvent]:
        """Events of a log in its order.

        Args:
            lines: Line number from 1 and raw text. A long line may come in several pieces of one number.
        """
        reader = self.reader()
        for number, text in lines:
            yield from reader.take(number, text)


class LogReader:
    """Reads one log line by line, in its order."""

    def __init__(self, book: RuleBook) -> None:
        self._book, self._said, self._before = book, _Said(book), ""

    def take(self, number: int, text: str) -> list[LogEvent]:
        """What the next line says, if anything; `number` counts from 1."""
        before, self._before = self._before, text
        raw = text.encode("utf-8", "replace")
        return [] if self._said.again(raw) else self._said.events(number, raw, self._book.rules_about(text), before)


class LogStream:
    """Reads one log from its bytes, line by line as soon as each is whole; lines that no rule asks for cost no more
    than a scan. Bytes that are no UTF-8 do no harm.
    """

    def __init__(self, book: RuleBook) -> None:
        self._book, self._said, self._before = book, _Said(book), ""
        self._number, self._rest = 1, b""

    def take(self, chunk: bytes) -> Iterator[LogEvent]:
        """Events of the lines that are whole with this chunk."""
        end = chunk.rfind(b"\n") + 1
        if end:
            yield from self._block(self._rest + chunk[:end])
            self._rest = b""
        self._rest += chunk[end:]
        if len(self._rest) > 4 * MAX_LINE_BYTES:
            yield from self.end()

    def end(self) -> Iterator[LogEvent]:
        """Events of what follows the last line end."""
        rest, self._rest = self._rest, b""
        yield from self._block(rest)

    def _block(self, block: bytes) -> Iterator[LogEvent]:
        """Whole lines, or a piece of one; only the last may lack its end."""
        lines = _Lines(block.replace(b"\0", b""))
        for line, start, end, places in lines.with_places(self._book.sieve):
            for piece in range(start, end, MAX_LINE_BYTES):
                raw = lines.block[piece : min(end, piece + MAX_LINE_BYTES)]
                if not self._said.again(raw):
                    yield from self._new(lines, line, raw, [place for place in places if 0 <= place - piece < len(raw)])
        n_ended = block.count(b"\n")
        self._number += n_ended
        if n_ended:
            self._before = lines.text(n_ended - 1)

    def _new(self, lines: _Lines, line: int, raw: bytes, places: list[int]) -> list[LogEvent]:
        numbers = self._book.sieve.rules_at(lines.block, places)
        if not numbers:
            return []
        before = lines.text(line - 1) if line else self._before
        return self._said.events(self._number + line, raw, self._book.rules(numbers), before)


class _Said:
    """What a log has said so far. Text that repeats itself to the letter is read once, text that differs in digits
    alone a few times: a server that fails every request says so all day.
    """

    def __init__(self, book: RuleBook) -> None:
        self._is_routine = book.is_routine
        self._read, self._alike = _Counts(), _Counts()
        self._in_routine, self._routine_shape = False, b""

    def again(self, raw: bytes) -> bool:
        """True for a line that would say nothing new."""
        shape = raw.translate(None, _DIGITS)
        if self._in_routine and shape == self._routine_shape:
            return True
        if raw in self._read or self._alike.get(shape, 0) >= MOST_ALIKE:
            return True
        if self._in_routine and self._is_routine(raw):
            self._routine_shape = shape
            return True
        return False

    def events(self, number: int, raw: bytes, rules: Sequence[Rule], before: str) -> list[LogEvent]:
        """What the rules make of a line; `before` is the line before it."""
        found = []
        for part in raw.decode("utf-8", "replace").rstrip("\r\n").split("\r") if rules else ():
            line = unwrapped(part)
            events = ((each, _event(each, number, line, before)) for each in rules)
            found += [(each, event) for each, event in events if event is not None]
        if found:
            self._in_routine = found[-1][0].routine
        if any(event.meaning.role == "mark" and event.meaning.stage == "launch" for _, event in found):
            self._read.clear()  # a server that starts again may fail in the same words
            self._alike.clear()
        if not any(event.meaning.role in ("mark", "ready", "fact") for _, event in found):
            self._read.count(raw)
            self._alike.count(raw.translate(None, _DIGITS))
        return [event for _, event in found]


class _Lines:
    """The lines of a block; what follows the last line end counts as one."""

    def __init__(self, block: bytes) -> None:
        self.block = block + b"\n\n\n"  # so that four bytes begin at every place
        self._ends = np.flatnonzero(np.frombuffer(self.block, np.uint8) == ord("\n"))

    def text(self, line: int) -> str:
        """A line as text, as much of it as anyone needs."""
        start, end = int(self._ends[line - 1]) + 1 if line else 0, int(self._ends[line])
        return self.block[start : min(end, start + MAX_LINE_BYTES)].decode("utf-8", "replace")

    def with_places(self, sieve: Sieve) -> Iterator[tuple[int, int, int, list[int]]]:
        """(line, its start, its end without the line end, places) of each line in which a literal may stand."""
        places = sieve.places(self.block)
        rows = np.searchsorted(self._ends, places)
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        lines = rows[firsts]
        starts = np.where(lines > 0, self._ends[lines - 1] + 1, 0)
        spans = zip(lines.tolist(), starts.tolist(), self._ends[lines].tolist(), strict=True)
        cuts, everywhere = [*firsts.tolist(), len(places)], places.tolist()
        for number, (line, start, end) in enumerate(spans):
            yield line, start, end, everywhere[cuts[number] : cuts[number + 1]]


class _Counts(dict[bytes, int]):
    """How often texts were seen, within bounds of number and length."""

    def count(self, text: bytes) -> None:
        if len(text) <= MAX_REMEMBERED_BYTES:
            if len(self) >= MAX_REMEMBERED_LINES:
                self.clear()
            self[text] = self.get(text, 0) + 1


def _event(asked: Rule, number: int, line: Line, previous: str) -> LogEvent | None:
    """What a rule makes of a line, if anything."""
    match = asked.regex.search(line.body) if line.level in asked.levels else None
    if match is None:
        return None
    matches = [match, *(extra.search(line.body) for extra in asked.more)]
    values = {name: value for each in matches if each for name, value in each.groupdict().items() if value}
    if asked.with_previous:
        values["previous"] = unwrapped(previous).body.strip()
    return LogEvent(asked.meaning, number, _evidence(line.body, match), values, line.source, line.rank)


def _evidence(body: str, match: re.Match[str]) -> str:
    """The line, or the part around what matched where it is long."""
    if len(body) <= MAX_EVIDENCE_CHARS:
        return body.strip()
    start = max(0, min(match.start() - 80, len(body) - MAX_EVIDENCE_CHARS))
    return ("..." if start else "") + body[start : start + MAX_EVIDENCE_CHARS].strip() + "..."
