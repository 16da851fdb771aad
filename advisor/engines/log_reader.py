"""Raw log text to events, one pass, bounded memory: a line is unwrapped, and a table of rules is asked about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from advisor.engines.log_text import Line, Rule, unwrapped
from advisor.memory.events import LogEvent

MAX_EVIDENCE_CHARS = 400
MAX_REMEMBERED_LINES = 10_000
MAX_REMEMBERED_CHARS = 1_000

_DIGITS = "0123456789"
_NO_DIGITS = str.maketrans("", "", _DIGITS)


class RuleBook:
    """A table of rules, ready to read logs with: asked in their order, and several may match one line."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        words = sorted({word for each in rules for word in each.needs})
        if any(char in _DIGITS for word in words for char in word):
            raise ValueError("lines that differ in digits are taken for one: literals must have none")
        self._by_word = [(word, [n for n, each in enumerate(rules) if word in each.needs]) for word in words]
        self.is_routine = re.compile("|".join(each.regex.pattern for each in rules if each.routine)).search

    def rules_about(self, text: str) -> list[Rule]:
        """The rules that have one of their literals in a text, in the table's order."""
        asked = {n for word, numbers in self._by_word if word in text for n in numbers}
        return [self._rules[n] for n in sorted(asked)]

    def reader(self) -> LogReader:
        """A reader for one log that is given line by line, such as that of a running server."""
        return LogReader(self)

    def events(self, lines: Iterable[tuple[int, str]]) -> Iterator[LogEvent]:
        """Events of a log in its order.

        Args:
            lines: Line number from 1 and raw text. A long line may come in several pieces of one number.
        """
        reader = self.reader()
        for number, text in lines:
            yield from reader.take(number, text)


class LogReader:
    """Reads one log in its order; text that repeats itself to the letter is read once."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book
        self._read, self._void = _Remembered(), _Remembered()
        self._previous, self._in_routine = "", False

    def take(self, number: int, text: str) -> list[LogEvent]:
        """What the next line says, if anything."""
        if text in self._read or (self._in_routine and self._book.is_routine(text)):
            return []
        shape = text.translate(_NO_DIGITS)
        if shape in self._void:
            self._previous = text
            return []
        rules = self._book.rules_about(text)
        found = self._asked(number, text, rules)
        if found:
            self._in_routine = found[-1][0].routine
        if not rules:
            self._void.add(shape)
        elif not any(event.meaning.role in ("mark", "ready", "fact") for _, event in found):
            self._read.add(text)
        self._previous = text
        return [event for _, event in found]

    def _asked(self, number: int, text: str, rules: Sequence[Rule]) -> list[tuple[Rule, LogEvent]]:
        found = []
        for part in text.rstrip("\r\n").split("\r") if rules else ():
            line = unwrapped(part)
            events = ((each, _event(each, number, line, self._previous)) for each in rules)
            found += [(each, event) for each, event in events if event is not None]
        return found


class _Remembered(set[str]):
    """Texts already seen, within bounds of number and length."""

    def add(self, text: str) -> None:
        if len(text) <= MAX_REMEMBERED_CHARS:
            if len(self) >= MAX_REMEMBERED_LINES:
                self.clear()
            super().add(text)


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
