"""What a machine lacks, for people: the verdict, then area by area what is so and how to mend it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from advisor.app.checking import EnvReport
from advisor.app.checks.finding import Finding, Level, Way
from advisor.report.console import WIDTH_WITHOUT_TERMINAL
from advisor.report.visible import visible

AREAS = {"engine": "Engine", "gpu": "GPUs", "host": "Host", "checkpoint": "Checkpoint"}
_STYLES: dict[Level, str] = {"ok": "green", "note": "cyan", "warning": "bold yellow", "miss": "bold red"}
_WORDS: dict[Level, str] = {"ok": "ok", "note": "note", "warning": "WARNING", "miss": "MISS"}
_INDENT = " " * 11


def report_json(report: EnvReport) -> str:
    """One JSON document."""
    return report.model_dump_json(indent=2)


def report_lines(report: EnvReport) -> Iterator[Text]:
    """Lines of text; commands stay whole, so that they can be pasted."""
    yield _verdict(report)
    for area, title in AREAS.items():
        found = [each for each in report.findings if each.area == area]
        if found:
            yield Text(f"\n{report.facts.wanted.title if area == 'engine' else title}", style="bold")
        for each in found:
            yield from _finding(each)
    yield Text(f"\n{_next(report)}", style="dim")


def _next(report: EnvReport) -> str:
    """What to type now."""
    wanted = report.facts.wanted
    if wanted.model is None:
        return "To have a model and its layout checked too: advisor check-env --model NAME --tp N, or --study NAME."
    if report.launchable:
        return "Next: advisor tune, with the same options and --isl 4096 --osl 1024."
    return "Mend what is a MISS, and ask again."


def _verdict(report: EnvReport) -> Text:
    counts = Counter(each.level for each in report.findings)
    said = [f"{counts[level]} {_plural(word, counts[level])}" for level, word in _COUNTED.items() if counts[level]]
    tail = f" ({', '.join(said)})" if said else ""
    command = report.facts.wanted.program.command
    if report.launchable:
        return Text(f"{command} can be launched here{tail}.", style="bold green")
    return Text(f"{command} cannot be launched here{tail}.", style="bold red")


_COUNTED: dict[Level, str] = {"miss": "miss", "warning": "warning", "note": "note"}


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"


def _finding(found: Finding) -> Iterator[Text]:
    first, *more = _wrapped(found.what)
    head = Text.assemble((f"  {_WORDS[found.level]:<9}", _STYLES[found.level]), first)
    lines = [head, *(Text(f"{_INDENT}{line}") for line in more)]
    lines[-1].append(f"  [{found.id}]", style="dim")
    yield from lines
    yield from (Text(f"{_INDENT}{line}") for line in _wrapped(found.why or ""))
    for number, way in enumerate(found.ways, start=1):
        yield from _way(f"{number}. " if len(found.ways) > 1 else "", way)


def _way(number: str, way: Way) -> Iterator[Text]:
    hanging = " " * len(number)
    for line_number, line in enumerate(_wrapped(way.what)):
        yield Text(f"{_INDENT}{hanging if line_number else number}{line}")
    for command in way.commands:
        for line in visible(command).splitlines():
            yield Text(f"{_INDENT}{hanging}  {line}", style="cyan")


def _wrapped(text: str) -> list[str]:
    """Lines beside the indentation; words such as paths and commands are never cut."""
    width = WIDTH_WITHOUT_TERMINAL - len(_INDENT)
    return textwrap.wrap(visible(text), width, break_long_words=False, break_on_hyphens=False)
