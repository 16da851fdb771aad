"""Raw log text to events, one pass, bounded memory: what wraps a line is taken off, then a table of rules is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from advisor.domain.outcome import Phase
from advisor.memory.events import Kind, LogEvent, Meaning

ANY_LEVEL = "DIWEP"
MAX_EVIDENCE_CHARS = 400
MAX_REMEMBERED_LINES = 10_000
MAX_REMEMBERED_CHARS = 1_000

_DIGITS = "0123456789"
_NO_DIGITS = str.maketrans("", "", _DIGITS)
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_DATE = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
# What docker, Kubernetes, Slurm, Open MPI, torchrun, Ray, systemd and vLLM's own processes put before a line.
_WRAPPING = re.compile(
    r"""\s*(?:
      (?P<rank>\[\d+,\d+\]<std(?:out|err)>:            # mpirun --tag-output
      | \[?\d{1,4}\]?:(?=\s|\[|$)                      # srun --label
      | \[(?:rank|default|RANK\s)\d+\]:?
      | \((?:EngineCore|APIServer|Worker|VllmWorker|RayWorkerWrapper|ServeReplica)[^()]*(?:\([^()]*\)[^()]*)*\)
      | \[pod/[^\]]+\]                                 # kubectl logs --prefix
      | [A-Za-z0-9][\w.-]*\s*\|(?=\s|$)                # docker compose
      | \[resource\.labels[^\]]*\]                      # Google Cloud
      )
    | (?:[A-Z][a-z]{2}\s+\d+\s\d\d:\d\d:\d\d\s\S+\s\S+?\[\d+\]:)   # journald
    | """
    + _DATE
    + r"""(?:\s(?:stdout|stderr)\s[FP](?=\s|$))?
    | \["""
    + _DATE
    + r"""\]
    | (?:DEFAULT|INFO|WARNING|ERROR)\s(?=\d{4}-\d\d-\d\dT)
    | >(?=\s|$)                                        # quoted in an issue
    )\s?""",
    re.VERBOSE,
)
_LEVEL = re.compile(
    r"""\s*(?:
      (?:\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\]\s*)?\[(?:TRT-LLM|TRT|TensorRT-LLM)\]\s*(?:\[[^\]]{1,24}\]\s*)*?
         \[(?P<trt>[A-Z])[A-Z]*\]
    | (?P<glog>[IWEF])\d{4}\s\d\d:\d\d:\d\d
    | (?:\[[^\]]{4,40}\]\s*)?(?P<word>DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b
    | \S+\s\[\d+\]\sNCCL\s(?P<nccl>INFO|WARN)
    )""",
    re.VERBOSE,
)
_LEVELS = {"D": "D", "V": "D", "I": "I", "W": "W", "E": "E", "F": "E", "C": "E"}
# `ERROR 11-23 14:28:08 [core.py:1233]` in front of every line of a traceback.
_VLLM_HEAD = re.compile(r"\s*(?:INFO|WARNING|ERROR|DEBUG)\s\d\d-\d\d\s\d\d:\d\d:\d\d\s\[?[\w.]+:\d+\]")


@dataclass(frozen=True)
class Rule:
    """One row of a reader's table.

    Attributes:
        meaning: What a matching line says.
        needs: Literals of which one must stand in the line, so that most lines are passed over quickly.
        regex: What the line must match once its wrapping is off; named groups become values of the event.
        more: Further values to look for.
        levels: Log levels that may say it: D(ebug) I(nfo) W(arning) E(rror) P(lain, no level).
        with_previous: The line before belongs to it, as value `previous`.
        routine: A server prints it all day; such lines say nothing else, and one stands for all in a row.
    """

    meaning: Meaning
    needs: tuple[str, ...]
    regex: re.Pattern[str]
    more: tuple[re.Pattern[str], ...] = ()
    levels: str = "WEP"
    with_previous: bool = False
    routine: bool = False


def rule(
    meaning: Meaning,
    needs: str | tuple[str, ...],
    pattern: str | None = None,
    *,
    more: tuple[str, ...] = (),
    levels: str = "WEP",
    with_previous: bool = False,
) -> Rule:
    """A row; without a pattern the literals themselves are the pattern. Patterns ignore case."""
    literals = (needs,) if isinstance(needs, str) else needs
    source = pattern if pattern is not None else "|".join(map(re.escape, literals))
    compiled = [re.compile(each, re.IGNORECASE) for each in (source, *more)]
    return Rule(meaning, literals, compiled[0], tuple(compiled[1:]), levels, with_previous)


def cause(
    kind: Kind,
    name: str,
    needs: str | tuple[str, ...],
    pattern: str | None = None,
    *,
    stage: Phase | None = None,
    usual_stage: Phase | None = None,
    detail: str = "",
    component: str | None = None,
    advice: str = "",
    soft: bool = False,
    vague: bool = False,
    more: tuple[str, ...] = (),
    levels: str = "WEP",
    with_previous: bool = False,
) -> Rule:
    """A line that is the root of a failure."""
    meaning = Meaning(
        "cause",
        name,
        kind,
        stage=stage,
        usual_stage=usual_stage,
        detail=detail,
        component=component,
        soft=soft,
        vague=vague,
        advice=advice,
    )
    return rule(meaning, needs, pattern, more=more, levels=levels, with_previous=with_previous)


def mark(name: str, stage: Phase, detail: str, needs: str | tuple[str, ...], pattern: str | None = None) -> Rule:
    """A line with which a stage begins."""
    return rule(Meaning("mark", name, stage=stage, detail=detail), needs, pattern, levels=ANY_LEVEL)


def ready(
    name: str,
    stage: Phase,
    detail: str,
    needs: str | tuple[str, ...],
    pattern: str | None = None,
    *,
    routine: bool = False,
) -> Rule:
    """A line that only a server prints which can answer."""
    made = rule(Meaning("ready", name, stage=stage, detail=detail), needs, pattern, levels=ANY_LEVEL)
    return replace(made, routine=routine)


def fact(name: str, needs: str | tuple[str, ...], pattern: str, *more: str) -> Rule:
    """A line with a setting or a figure, as named groups."""
    return rule(Meaning("fact", name), needs, pattern, more=more, levels=ANY_LEVEL)


def block(name: str, needs: str | tuple[str, ...], pattern: str) -> Rule:
    """A line of TensorRT-LLM's memory report."""
    return rule(Meaning("block", name), needs, pattern, levels=ANY_LEVEL)


def frame(
    name: str,
    pattern: str,
    *,
    stage: Phase | None = None,
    detail: str = "",
    component: str | None = None,
    needs: str | tuple[str, ...] = ", in ",
) -> Rule:
    """A function in a traceback that tells what was being done."""
    return rule(Meaning("frame", name, stage=stage, detail=detail, component=component), needs, pattern)


def wrapper(name: str, needs: str | tuple[str, ...], pattern: str | None = None) -> Rule:
    """A line that repeats a failure told elsewhere."""
    return rule(Meaning("wrapper", name), needs, pattern, levels="EP")


def alarm(
    name: str,
    needs: str | tuple[str, ...],
    pattern: str | None = None,
    *,
    stage: Phase | None = None,
    detail: str = "",
    strong: bool = False,
) -> Rule:
    """A line that reads like a failure and is none."""
    return rule(Meaning("alarm", name, stage=stage, detail=detail, strong=strong), needs, pattern, levels="DIWP")


@dataclass(frozen=True)
class Line:
    """A line without what wraps it."""

    body: str
    source: str
    level: str


def unwrapped(text: str) -> Line:
    """Take off colours, container and launcher prefixes; tell process and level."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    text = text.rstrip("\r\n")
    if text.startswith('{"'):
        text = _json_text(text)
    start, ranks = 0, list[str]()
    for _ in range(6):
        found = _WRAPPING.match(text, start)
        if not found:
            break
        start = found.end()
        if found["rank"]:
            ranks.append(found["rank"])
    body = text[start:]
    level = _LEVEL.match(body)
    letter = _LEVELS.get((level[level.lastgroup] or "P")[0], "P") if level and level.lastgroup else "P"
    head = _VLLM_HEAD.match(body)
    return Line(body[head.end() :] if head else body, " ".join(ranks), letter)


def _json_text(text: str) -> str:
    """The message inside a line of docker's json-file driver or of a structured logger."""
    try:
        entry = json.loads(text)
    except ValueError:
        return text
    for key in ("log", "message", "msg"):
        if isinstance(entry.get(key), str):
            return str(entry[key]).rstrip("\r\n")
    return text


class RuleBook:
    """A table of rules, ready to read logs with: asked in their order, and several may match one line."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        words = sorted({word for each in rules for word in each.needs})
        if any(char in _DIGITS for word in words for char in word):
            raise ValueError("lines that differ in digits are taken for one: literals must have none")
        self._by_word = [(word, [n for n, each in enumerate(rules) if word in each.needs]) for word in words]
        self._is_routine = re.compile("|".join(each.regex.pattern for each in rules if each.routine)).search

    def events(self, lines: Iterable[tuple[int, str]]) -> Iterator[LogEvent]:
        """Events of a log in its order; text that repeats itself to the letter is read once.

        Args:
            lines: Line number from 1 and raw text. A long line may come in several pieces of one number.
        """
        read, void = _Remembered(), _Remembered()
        previous, in_routine = "", False
        for number, text in lines:
            if text in read or (in_routine and self._is_routine(text)):
                continue
            shape = text.translate(_NO_DIGITS)
            if shape in void:
                previous = text
                continue
            asked = {n for word, numbers in self._by_word if word in text for n in numbers}
            found = self._read(number, text, previous, sorted(asked)) if asked else []
            yield from (event for _, event in found)
            if found:
                in_routine = found[-1][0].routine
            if not asked:
                void.add(shape)
            elif not any(event.meaning.role in ("mark", "ready", "fact") for _, event in found):
                read.add(text)
            previous = text

    def _read(self, number: int, text: str, previous: str, asked: Sequence[int]) -> list[tuple[Rule, LogEvent]]:
        rules = [self._rules[n] for n in asked]
        found = []
        for part in text.rstrip("\r\n").split("\r"):
            line = unwrapped(part)
            events = ((each, _event(each, number, line, previous)) for each in rules)
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
    return LogEvent(asked.meaning, number, _evidence(line.body, match), values, line.source)


def _evidence(body: str, match: re.Match[str]) -> str:
    """The line, or the part around what matched where it is long."""
    if len(body) <= MAX_EVIDENCE_CHARS:
        return body.strip()
    start = max(0, min(match.start() - 80, len(body) - MAX_EVIDENCE_CHARS))
    return ("..." if start else "") + body[start : start + MAX_EVIDENCE_CHARS].strip() + "..."
