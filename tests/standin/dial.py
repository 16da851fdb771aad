"""The dials of a stand-in (`$STANDIN_HOME/standin.json`), its faults, and the record of its launches.

A fault is `{"kind": ..., "when": {...}, "launch": n, "times": k, ...}`: `when` limits it to launches whose settings
match (equal, or within `{"min": a, "max": b}`), `launch` to the n-th launch, `times` to the first k launches that
match. README.md lists the kinds.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME_VARIABLE = "STANDIN_HOME"
LAUNCHES, DOWNLOADS = "launches.jsonl", "downloads.jsonl"
Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Dial:
    """How a stand-in behaves."""

    release: str = "1.1.0"
    gpu: str = "h100_sxm"
    """System key of the twin's tables."""
    world: int = 1
    speed: float = 10.0
    """Twin seconds served in one real second."""
    start_s: float = 0.1
    """Real seconds that the phases of a start last, all together."""
    stats_wait_s: float = 0.05
    """Longest wait of `/metrics` for a first entry (upstream: 2 s)."""
    plays: str | None = None
    """Model whose times and sizes it has, whatever it serves; pipeline stages are then played as tensor parallelism."""
    faults: tuple[Fault, ...] = field(default=())


def read_dial(home: Path) -> Dial:
    """The dials of a folder; their defaults where it has no file."""
    path = home / "standin.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Dial(**{**values, "faults": tuple(values.get("faults", ()))})


class Faults:
    """The faults of one launch, looked up by kind."""

    def __init__(self, active: Mapping[int, Fault]) -> None:
        self.active = dict(active)

    def get(self, kind: str, **match: Any) -> Fault | None:
        """The first active fault of a kind whose keys have these values."""
        return next(
            (
                fault
                for fault in self.active.values()
                if fault["kind"] == kind and all(fault.get(key) == value for key, value in match.items())
            ),
            None,
        )

    def of_phase(self, phase: str) -> list[Fault]:
        """What strikes in a phase of a start, each once."""
        struck = [(index, fault) for index, fault in self.active.items() if fault.get("phase") == phase]
        self.active = {index: fault for index, fault in self.active.items() if (index, fault) not in struck}
        return [fault for _, fault in struck]


class Launch:
    """One line of the record an event, all with the number of the launch."""

    def __init__(self, record: Path, number: int) -> None:
        self.record, self.number = record, number

    def note(self, event: str, **facts: Any) -> None:
        """Append an event; later ones overwrite earlier facts for the reader."""
        with _locked(self.record):
            _append(self.record, {"n": self.number, "event": event, "at": time.time(), **facts})


def begin(record: Path, dial: Dial, argv: list[str], settings: Mapping[str, Any] | None) -> tuple[Launch, Faults]:
    """Number a launch (or download) of a record, decide which faults it has, and write both down."""
    with _locked(record):
        lines = _read(record)
        number = 1 + sum(line["event"] == "start" for line in lines)
        used = [index for line in lines for index in line.get("faults", ())]
        active = {
            index: fault
            for index, fault in enumerate(dial.faults)
            if _applies(fault, number, settings or {}, used.count(index))
        }
        facts = {"argv": argv, "settings": settings, "pid": os.getpid(), "faults": list(active)}
        _append(record, {"n": number, "event": "start", "at": time.time(), **facts})
    return Launch(record, number), Faults(active)


def recorded(record: Path) -> list[dict[str, Any]]:
    """The launches so far in their order: the facts of all their events, and the time of each under `times`."""
    merged: dict[int, dict[str, Any]] = {}
    for line in _read(record):
        launch = merged.setdefault(line["n"], {"times": {}})
        launch["times"][line["event"]] = line["at"]
        launch.update({key: value for key, value in line.items() if key not in ("event", "at")})
    return list(merged.values())


def _applies(fault: Fault, number: int, settings: Mapping[str, Any], used: int) -> bool:
    if fault.get("launch", number) != number or used >= fault.get("times", used + 1):
        return False
    return all(_matches(settings.get(name), wanted) for name, wanted in fault.get("when", {}).items())


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return value is not None and wanted.get("min", value) <= value <= wanted.get("max", value)
    return bool(value == wanted)


@contextmanager
def _locked(record: Path) -> Iterator[None]:
    with record.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _append(record: Path, line: Mapping[str, Any]) -> None:
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _read(record: Path) -> list[dict[str, Any]]:
    if not record.is_file():
        return []
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
