"""A line of a log without what wraps it, and the rows of the tables of rules that such lines are asked about."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from advisor.domain.outcome import Phase
from advisor.memory.events import Kind, Meaning

ANY_LEVEL = "DIWEP"

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
    | (?:[^\W_]{2,5}\s+\d+\s\d\d:\d\d:\d\d\s\S+\s\S+?\[\d+\]:)   # journald, in any language
    | [\u2502\u2503|](?=\s)                                 # a box around it
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
      (?:\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\]\s*)?\[(?:TRT-LLM|TRT|TensorRT-LLM)\]\s*
         (?:\[RANK\s(?P<rank>\d+)\]\s*|\[[^\]]{1,24}\]\s*)*?\[(?P<trt>[A-Z])[A-Z]*\]
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
    rank: str


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
    source = " ".join(ranks)
    return Line(body[head.end() :] if head else body, source, letter, (level and level["rank"]) or source)


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
