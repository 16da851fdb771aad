"""The logs of `tests/data` with the truth about them, and what happens to a log on its way to a person."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from advisor.memory.diagnosis import Diagnosis

DATA = Path(__file__).parents[1] / "data"
FOLDERS = ("failure_logs", "engine_logs", "rendered_logs")


@dataclass(frozen=True)
class LogCase:
    """One log and the truth; an empty stage or component is not stated."""

    path: Path
    kind: str
    stage: str
    component: str
    short_gib: float | None
    expected_knob: str
    judged: bool
    cause_line: int

    @property
    def lines(self) -> list[str]:
        """As in the file, without the line ends."""
        data = self.path.read_bytes()
        text = (gzip.decompress(data) if self.path.suffix == ".gz" else data).decode()
        return text.removesuffix("\n").split("\n")

    def is_right(self, found: Diagnosis) -> bool:
        """Verdict and phase as they should be."""
        return found.verdict == self.kind and self.stage in ("", found.phase)


def cases(folder: str) -> list[LogCase]:
    """All logs of a folder of `tests/data`."""
    with (DATA / folder / "index.csv").open(newline="") as file:
        return [
            LogCase(
                path=DATA / folder / row["file"],
                kind=row["kind"],
                stage=row["stage"],
                component=row["component"],
                short_gib=float(row["amount_short_gib"]) if row["amount_short_gib"] else None,
                expected_knob=row.get("expected_knob", ""),
                judged=row.get("expected_knob_basis") == "judgement",
                cause_line=int(row["cause_line"]),
            )
            for row in csv.DictReader(file)
        ]


Journey = Callable[[random.Random, LogCase, list[str]], list[str]]


def _truncated(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
    return lines[: rng.randint(case.cause_line, len(lines))]


def _interleaved(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
    """Several ranks print the same, each in its order; with or without their number in front."""
    labels = rng.choice([["", "", ""], ["0: ", "1: ", "2: "], ["[1,0]<stdout>:", "[1,1]<stderr>:", "[1,2]<stdout>:"]])
    ranks = [list(lines) for _ in range(rng.randint(2, 3))]
    mixed = []
    while any(ranks):
        number = rng.choice([number for number, rank in enumerate(ranks) if rank])
        mixed.append(labels[number] + ranks[number].pop(0))
    return mixed


def _in_front(*prefixes: str) -> Journey:
    def journey(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
        prefix = rng.choice(prefixes)
        return [prefix.format(rank=rng.randint(0, 7), second=number % 60) + line for number, line in enumerate(lines)]

    return journey


def _json_lines(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
    time = "2026-01-15T10:00:01.123456789Z"
    return [json.dumps({"log": f"{line}\n", "stream": "stderr", "time": time}) for line in lines]


def _coloured(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
    return [f"\x1b[{rng.randint(31, 37)}m{line}\x1b[0m" for line in lines]


def _crlf(rng: random.Random, case: LogCase, lines: list[str]) -> list[str]:
    return [f"{line}\r" for line in lines]


JOURNEYS: dict[str, Journey] = {
    "truncated": _truncated,
    "interleaved": _interleaved,
    "docker": _in_front("trtllm-1  | ", "via-server | ", "2026-01-15T10:00:{second:02d}.123456789Z "),
    "docker json": _json_lines,
    "kubernetes": _in_front(
        "2026-01-15T10:00:{second:02d}.123456789Z stderr F ", "[pod/trtllm-serve-7d9f8-abcde/server] "
    ),
    "slurm": _in_front(" {rank}: ", "{rank:2d}: ", "[1,{rank}]<stdout>:", "[1,{rank}]<stderr>: "),
    "timestamps": _in_front("2026-01-15 10:00:{second:02d},123 ", "Jan 15 10:00:{second:02d} host serve[412]: "),
    "coloured": _coloured,
    "crlf": _crlf,
}
TWO_AT_ONCE = ("truncated", "interleaved")
