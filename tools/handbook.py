"""The out-of-memory handbook and the list of failures, from the tables and recorded logs that the doctor is tested on.

Nothing here is told twice: phases and their order are `advisor.memory.phases`', sentences and remedies are what
`advisor doctor` says of each log, the lines to look for are the literals of its rules.
"""

from __future__ import annotations

import csv
import gzip
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from advisor.app.doctoring import Examiner, Reading
from advisor.domain.outcome import Phase
from advisor.engines.gpu_logs import GPU_RULES
from advisor.engines.host_logs import HOST_RULES
from advisor.engines.log_text import Rule
from advisor.engines.rule_book import RULES
from advisor.engines.trtllm.logs import TRTLLM_RULES
from advisor.engines.vllm.logs import VLLM_RULES
from advisor.memory.advice import ADVICE
from advisor.memory.case import root_cause
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.events import Kind
from advisor.memory.phases import STAGE_ORDER
from advisor.memory.remedies import Remedy
from advisor.memory.wording import HEADLINES, STAGE_WORDS

GENERATED = "<!-- Written by `make reference` from the doctor's tables and logs; edits here are lost. -->\n"
MEMORY: tuple[Kind, ...] = ("oom", "insufficient_kv", "host_oom")
MAX_LINE, MAX_SAMPLE = 240, 110  # characters of a log line in an example, and in the table of lines
MIN_LITERAL, MAX_LITERALS = 5, 3  # characters of a word to look for, and words of a line
MAX_PLACES = 3  # that a line is linked to; one that is found in more phases tells little
FOLDERS = ("engine_logs", "failure_logs", "rendered_logs")  # recorded here, public cases, rendered for the tests


class Story(NamedTuple):
    """What goes on in a phase and why memory runs out there, and the command that looks further."""

    text: str
    command: str


_RESCUE = "advisor tune --engine trtllm --rescue extra-llm-api-config.yml"
_PHASES: Mapping[Phase, Story] = {
    "launch": Story(
        "Before anything is loaded the server asks how much of the GPU is free. Somebody else holds it.",
        "advisor check-env --gpu h100_sxm",
    ),
    "load": Story(
        "Weights go to the GPU, then the buffers that a runtime needs whatever it serves. The KV cache does not exist "
        "yet, so its fraction changes nothing (but for a TensorRT engine's own buffers): each GPU must hold less of "
        "the model, or less of somebody else's.",
        "advisor estimate --model meta-llama/Llama-3.3-70B-Instruct --gpu h100_sxm --tp 4 --workload 4k1k_c64",
    ),
    "build": Story(
        "A TensorRT engine is being built, on the GPU. Builder and weights share it; no server is involved.",
        "advisor doctor build.log",
    ),
    "kv_estimate": Story(
        "The engine runs the largest step that it can ever get, `max_num_tokens` tokens, to see what is left for the "
        "KV cache. TensorRT-LLM also captures its CUDA graphs once, beside a small temporary pool. What does not fit "
        "here are activations, in proportion to `max_num_tokens`.",
        _RESCUE,
    ),
    "kv_allocate": Story(
        "The pool is allocated: TensorRT-LLM takes its fraction of what profiling left free, vLLM its fraction of the "
        "whole GPU less what it saw. Something took the memory in between, or the pool was given in bytes.",
        _RESCUE,
    ),
    "warm_up": Story(
        "The pool is taken. CUDA graphs are captured and buffers made in what its fraction left over. A smaller "
        "fraction is the cheap remedy: it costs KV tokens, and nothing else.",
        _RESCUE,
    ),
    "serve": Story(
        "The server was up. Under load the largest batch, its logits and its sampling buffers come together for the "
        "first time, and fragments add up. Restart it: a server that lost a step may still answer `/health` with 200.",
        _RESCUE,
    ),
}
_KINDS: Mapping[Kind, Story] = {
    "oom": Story(
        "By phase, in the order of a start. `advisor doctor` names the phase in its second line.",
        "advisor doctor server.log --config extra-llm-api-config.yml",
    ),
    "insufficient_kv": Story(
        "The opposite of the above: memory is there, but the pool that was allowed is smaller than one sequence. "
        "*Raise* the fraction, or serve shorter requests.",
        "advisor estimate --study llama3.1-8b-h100 --workload 4k1k_c64 --kv-fraction 0.9",
    ),
    "host_oom": Story(
        "Loading reads the checkpoint through host memory, and ranks share data in `/dev/shm`, of which a container "
        "has 64 MB unless told otherwise. A worker that vanishes without a word was most often killed by the kernel.",
        "advisor check-env --container-image nvcr.io/nvidia/tensorrt-llm/release:1.2.0",
    ),
}


@dataclass(frozen=True)
class Case:
    """A log of the test data, the rule and the line that tell its cause, and what the doctor says."""

    path: str
    source: str
    origin: str
    rule: str
    line: str
    diagnosis: Diagnosis

    @property
    def is_vllm(self) -> bool:
        """vLLM spells its settings otherwise."""
        return "vllm" in f"{self.diagnosis.engine} {self.path}"

    @property
    def heading(self) -> str:
        """Component and phase, without the figures of this one log."""
        component = re.split(r" \(|: ", self.diagnosis.component or "", maxsplit=1)[0]
        small = " too small" if self.diagnosis.verdict == "insufficient_kv" else ""
        return f"{component[:1].upper()}{component[1:]}{small} ({self.diagnosis.phase})"


def cases(data: Path) -> tuple[Case, ...]:
    """Every log of the folders' indexes.

    Args:
        data: The folder `tests/data`.
    """
    return tuple(
        _case(folder, row["file"], row.get("source") or "", _lines(data / folder / row["file"]))
        for folder in FOLDERS
        for row in csv.DictReader((data / folder / "index.csv").read_text(encoding="utf-8").splitlines())
    )


def _lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", "replace").splitlines()


def _case(folder: str, file: str, source: str, lines: list[str]) -> Case:
    reading = Reading()
    reading.take_all(RULES.events(enumerate(lines, start=1)))
    cause = root_cause(reading.case)
    rule, line = (cause.event.meaning.name, cause.event.text) if cause else ("", "")
    return Case(f"{folder}/{file}", source, folder, rule, line, Examiner().diagnosis(reading))


def handbook(found: Iterable[Case]) -> str:
    """The page `out-of-memory.md`."""
    known = [case for case in found if case.diagnosis.verdict in MEMORY]
    lines = [GENERATED, *_OPENING.splitlines(), *_finder(known)]
    for kind in MEMORY:
        of_kind = [case for case in known if case.diagnosis.verdict == kind]
        lines += [f"## {HEADLINES[kind]}", "", *_told(_KINDS[kind])]
        for phase in STAGE_ORDER:
            here = [case for case in of_kind if case.diagnosis.phase == phase]
            if here and kind == "oom":
                lines += [f"### {phase}: {STAGE_WORDS[phase]}", "", *_told(_PHASES[phase])]
            lines += _sections(here, "####" if kind == "oom" else "###")
    return "\n".join([*lines, *_CLOSING.splitlines()]) + "\n"


_ONE_LINE = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 48.00 MiB. "
    "GPU 0 has a total capacity of 7.70 GiB of which 42.69 MiB is free."
)
_OPENING = f"""\
# Out-of-memory handbook

Paste this, with the file that holds what the server printed, stderr included:

<!-- needs-gpu -->
```bash
advisor doctor server.log
```

It needs no GPU and no server. A part of the log will do, also through a pipe:

```bash
advisor doctor - <<< '{_ONE_LINE}'
```

The first line of the answer is the cause. Then:

1. Merge the YAML that it prints into the server's file and start again.
2. Give it the file and the model too, and the remedies say from what to what and how many GiB they free:
   `--config extra-llm-api-config.yml --model NAME --gpu h100_sxm --tp 4` ([all of it](doctor.md)).
3. Let the nearest configuration be found that runs: `advisor tune --rescue extra-llm-api-config.yml`
   ([how](gpu-node.md#a-configuration-that-crashes)).

The last line of a crash is rarely the cause: ranks that lose a peer complain of NCCL, MPI or a worker that died. Look
for the first line that names memory. What to do depends on the *phase* in which memory ran out; the
[picture of a start](concepts.md#where-memory-goes) shows them in order.

What follows is what `advisor doctor` says of logs that its tests are made of: recorded on an H100, or composed from the
programs' message formats with the figures of a public failure, which is linked
([where they come from](../tests/data/failure_logs/README.md)). Figures are those of that log, not of yours.
"""

_CLOSING = """\
## Looks like it, and is none

- `Tried to allocate` from an *autotuner* that goes on: a kernel variant was tried and skipped.
- A first KV cache that is small: TensorRT-LLM's temporary one, for profiling. The second line counts.
- `NCCL error`, `Executor worker returned error`, `MPI_ABORT`: they repeat a failure. The cause stands before them.
- Exit code 137 without a message: the *host's* memory, or somebody's `kill -9`; `dmesg` tells which.

Every other failure that advisor recognises is in [the list of failures](reference/failures.md).
"""


def _finder(known: list[Case]) -> Iterator[str]:
    """A line for each rule about memory, with the sections of the logs whose cause it told."""
    yield from ("", "## Find the line", "", "| a line like | is |", "|---|---|")
    for rule in _causes(MEMORY):
        told = [case for case in known if case.rule == rule.meaning.name]
        headings = list(dict.fromkeys(case.heading for case in told))
        links = ", ".join(f"[{heading}](#{anchor(heading)})" for heading in headings)
        if not headings or len(headings) > MAX_PLACES:
            kind = HEADLINES[rule.meaning.kind or "unknown"]
            links = f"[{kind}](#{anchor(kind)}){'; the lines around it tell the phase' if headings else ''}"
        line = _codes([_shortened(told[0].line, MAX_SAMPLE)]) if told else _codes(rule.needs)
        yield f"| {line} | {links} |"
    yield ""


def _shortened(line: str, characters: int) -> str:
    return textwrap.shorten(line, characters, placeholder=" ...")


def _told(story: Story) -> Iterator[str]:
    runs_anywhere = story.command.startswith("advisor estimate")
    yield from (
        story.text,
        "",
        *(() if runs_anywhere else ("<!-- needs-gpu -->",)),
        "```bash",
        story.command,
        "```",
        "",
    )


def _sections(here: list[Case], level: str) -> Iterator[str]:
    """A section for each component, with a log of each engine."""
    for heading in sorted({case.heading for case in here}):
        yield from (f"{level} {heading}", "")
        for is_vllm in (False, True):
            alike = [case for case in here if (case.heading, case.is_vllm) == (heading, is_vllm)]
            if alike:
                yield from _shown(alike)


def _shown(alike: list[Case]) -> Iterator[str]:
    """One log in full, those that are like it by name."""
    first = min(alike, key=lambda case: (FOLDERS.index(case.origin), not case.diagnosis.engine, not case.source))
    told = first.diagnosis
    lines = dict.fromkeys(_shortened(each.text, MAX_LINE) for each in told.evidence)
    yield from (f"> {told.summary}", "", "```output", *lines, "```", "")
    yield from (f"{number}. {_remedy(remedy)}" for number, remedy in enumerate(told.remedies, start=1))
    yield ""
    patch = told.yaml_patch or next((each.yaml_patch for each in told.remedies if each.yaml_patch), None)
    if patch:
        yield from ("```yaml", *patch.rstrip().splitlines(), "```", "")
    links = dict.fromkeys(f"[{_short(case.source)}]({case.source})" for case in alike if "://" in case.source)
    seen = f" Such failures: {', '.join(links)}." if links else ""
    yield from (f"The log is of {'vLLM' if first.is_vllm else 'TensorRT-LLM'}: `{first.path}`.{seen}", "")


def _remedy(remedy: Remedy) -> str:
    to = "" if remedy.to is None else f" = `{remedy.to}`"
    frees = f" (about {remedy.frees_gib:.2f} GiB)" if remedy.frees_gib else ""
    return f"`{remedy.setting}`{to}{frees}: {remedy.why}"


def failures() -> str:
    """The page `reference/failures.md`: every cause and every false alarm of the tables."""
    lines = [GENERATED, "# Failures that advisor recognises", "", _LIST_OPENING]
    for kind, headline in HEADLINES.items():
        rules = _causes((kind,))
        if kind in MEMORY or not rules:
            continue
        lines += ["", f"## {headline}", "", f"Verdict `{kind}`.", ""]
        lines += ["| a line with | phase | component | first remedy |", "|---|---|---|---|"]
        lines += [_row(rule) for rule in rules]
    lines += ["", "## No failure at all", "", "These lines read like one; the server goes on.", ""]
    lines += ["| a line with |", "|---|"]
    alarms = (rule for rule in ALL_RULES if rule.meaning.role == "alarm")
    lines += [f"| {_codes(rule.needs)} |" for rule in alarms]
    return "\n".join(lines) + "\n"


_LIST_OPENING = """\
What [`advisor doctor`](../doctor.md) looks for in a log, from its own tables. A line has one of the words shown, some
of them without a first letter that may be large or small, and the form that its program gives it: a model named bloom
is not out of memory. Where no phase stands, other lines tell it. What is about memory is in the
[out-of-memory handbook](../out-of-memory.md), with logs and remedies."""

ALL_RULES: tuple[Rule, ...] = (*TRTLLM_RULES, *VLLM_RULES, *GPU_RULES, *HOST_RULES)


def _causes(kinds: Sequence[Kind | None]) -> list[Rule]:
    return [rule for rule in ALL_RULES if rule.meaning.role == "cause" and rule.meaning.kind in kinds]


def _row(rule: Rule) -> str:
    meaning = rule.meaning
    advised = ADVICE.get(meaning.advice, ())
    first = f"`{advised[0].setting}`: {advised[0].why}" if advised else ""
    cells = (meaning.stage or meaning.usual_stage or "", meaning.component or "", first)
    return f"| {_codes(rule.needs)} | {' | '.join(map(_cell, cells))} |"


def _codes(literals: Sequence[str]) -> str:
    """The first few that say something."""
    chosen = sorted(literals, key=lambda literal: len(literal) < MIN_LITERAL)[:MAX_LITERALS]
    return " or ".join(f"`` {_cell(literal)} ``" if "`" in literal else f"`{_cell(literal)}`" for literal in chosen)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _short(source: str) -> str:
    """`NVIDIA/TensorRT-LLM#7818` of an address."""
    found = re.search(r"[^/]+/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)", source)
    return f"{found[1]}#{found[2]}" if found else re.sub(r"https://", "", source)


def anchor(heading: str) -> str:
    """The fragment that a heading can be linked by."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
