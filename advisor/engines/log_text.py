"""Raw log text to events, one pass, bounded memory: what wraps a line is taken off, then a table of rules is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from advisor.memory.events import LogEvent, Meaning

MAX_EVIDENCE_CHARS = 400
MAX_REMEMBERED_LINES = 10_000
MAX_REMEMBERED_CHARS = 1_000

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
      )
    | (?:[A-Z][a-z]{2}\s+\d+\s\d\d:\d\d:\d\d\s\S+\s\S+?\[\d+\]:)   # journald
    | """
    + _DATE
    + r"""(?:\s(?:stdout|stderr)\s[FP](?=\s|$))?
    | \["""
    + _DATE
    + r"""\]
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
_VLLM_HEAD = re.compile(r"\s*(?:INFO|WARNING|ERROR|DEBUG)\s\d\d-\d\d\s\d\d:\d\d:\d\d\s\[[^\]]+\]")


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
    """

    meaning: Meaning
    needs: tuple[str, ...]
    regex: re.Pattern[str]
    more: tuple[re.Pattern[str], ...] = ()
    levels: str = "WEP"
    with_previous: bool = False


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


def find_events(lines: Iterable[tuple[int, str]], rules: Sequence[Rule]) -> Iterator[LogEvent]:
    """Events of a log in its order; each (rule, line) once.

    Args:
        lines: Line number from 1 and raw text. A long line may come in several pieces of one number.
        rules: Asked in their order; several may match one line.
    """
    wanted = re.compile("|".join(sorted({re.escape(word) for each in rules for word in each.needs}, key=len)))
    could_mean = wanted.search
    seen: set[str] = set()
    previous = ""
    for number, text in lines:
        if text in seen:
            continue
        if could_mean(text):
            found = list(_events_of(number, text, previous, rules))
            yield from found
            again = any(event.meaning.role in ("mark", "ready", "fact") for event in found)
        else:
            again = False
        previous = text
        if not again and len(text) <= MAX_REMEMBERED_CHARS:
            if len(seen) >= MAX_REMEMBERED_LINES:
                seen.clear()
            seen.add(text)


def _events_of(number: int, text: str, previous: str, rules: Sequence[Rule]) -> Iterator[LogEvent]:
    for part in text.rstrip("\r\n").split("\r"):
        line: Line | None = None
        for each in rules:
            if not any(word in part for word in each.needs):
                continue
            line = line or unwrapped(part)
            match = each.regex.search(line.body)
            if match is None or line.level not in each.levels:
                continue
            values = {name: value for name, value in match.groupdict().items() if value is not None}
            for extra in each.more:
                more = extra.search(line.body)
                values |= {name: value for name, value in (more.groupdict() if more else {}).items() if value}
            if each.with_previous:
                values["previous"] = unwrapped(previous).body.strip()
            yield LogEvent(each.meaning, number, _evidence(line.body, match), values, line.source)


def _evidence(body: str, match: re.Match[str]) -> str:
    """The line, or the part around what matched where it is long."""
    if len(body) <= MAX_EVIDENCE_CHARS:
        return body.strip()
    start = max(0, min(match.start() - 80, len(body) - MAX_EVIDENCE_CHARS))
    return ("..." if start else "") + body[start : start + MAX_EVIDENCE_CHARS].strip() + "..."
