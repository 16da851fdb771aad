"""Which options each release has and what it takes for them: the table `options.csv`, one column per release.

A cell holds the types that the release takes, and is empty where it has no such option; `=` repeats the cell on its
left. `{forbid}`, `{ignore}` and `{open}` are mappings, named by what becomes of a member that is not in the table
(`open`: not known here). Choices stand in brackets, a range behind a space: `>0`, `0..1`, `>0..<1` without its ends.
`beta` and `prototype` are the release's own marks, of which it warns. A leading `~` means accepted without any effect,
a trailing ` ?` that the option was not read in a file of that very release. Options with `--` are flags, with `$`
environment variables.

Facts of NVIDIA TensorRT-LLM (github.com/NVIDIA/TensorRT-LLM), Copyright (c) NVIDIA CORPORATION & AFFILIATES,
Apache-2.0, read from the published pages of each release (`llm_args`, `trtllm-serve`; for 1.3.0rc24 `trtllm-serve` and
`telemetry`) and, for 1.3.0rc and main, from the source.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from advisor.domain.strict import StrictModel, did_you_mean, parse

UnknownKeys = Literal["forbid", "ignore", "open"]
Status = Literal["beta", "prototype"]

_RANGE = re.compile(r"(?P<low_sign>>=?)?(?P<low>-?\d+)(?:\.\.(?P<high_sign><)?(?P<high>\d+))?")
_CELL = re.compile(
    r"(?P<ignored>~)?(?P<types>.+?)(?: (?P<range>[>\d][^ )]*))?(?: (?P<status>beta|prototype))?(?P<unconfirmed> \?)?"
)
_TYPE = re.compile(r"\{(?P<unknown>\w+)\}|(?P<name>\w+)(?:\((?P<choices>[^)]*)\))?")
_PYTHON: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "list": (list,),
    "mapping": (Mapping,),
}


class Option(StrictModel):
    """What one release takes for one option."""

    types: tuple[str, ...]
    choices: tuple[str, ...] = ()
    range: str | None = None
    unknown_keys: UnknownKeys | None = None
    status: Status | None = None
    ignored: bool = False
    unconfirmed: bool = False

    def refusal(self, value: Any) -> str | None:
        """Why the release would not take the value; None when it would."""
        if value is None:
            return None if "null" in self.types else f"it takes {self.said}, not null"
        if isinstance(value, bool):
            return None if {"bool", "flag"} & set(self.types) else f"it takes {self.said}, not {value!r}"
        if not any(isinstance(value, _PYTHON.get(name, ())) for name in self.types):
            return f"it takes {self.said}, not {value!r}"
        if isinstance(value, list) and self.choices and not set(map(str, value)) <= set(self.choices):
            return f"it takes {', '.join(self.choices)}, not {value!r}"
        if isinstance(value, str) and self.choices and value not in self.choices:
            same = next((choice for choice in self.choices if choice.lower() == value.lower()), None)
            near = did_you_mean(value, self.choices).strip()
            hint = f": write {same}" if same else f" ({near})" if near else ""
            return f"it takes {', '.join(self.choices)}, not {value!r}{hint}"
        if isinstance(value, (int, float)) and not self._in_range(value):
            return f"it takes {self.said}, not {value!r}"
        return None

    @property
    def said(self) -> str:
        """The types in words."""
        words = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "flag": "true"}
        said = " or ".join(words.get(name, f"a {name}") for name in self.types if name != "null")
        return f"{said} {self.range.replace('..', ' to ')}" if self.range else said

    def _in_range(self, value: float) -> bool:
        match = _RANGE.fullmatch(self.range or "")
        if match is None:
            return not math.isnan(value)
        low, high = float(match["low"]), float(match["high"] or "inf")
        above = value > low if match["low_sign"] == ">" else value >= low
        return above and (value < high if match["high_sign"] else value <= high)


Options = Mapping[str, Option]


@cache
def table() -> dict[str, dict[str, Option]]:
    """Release to option path to what it takes; releases oldest first."""
    text = files("advisor.engines.trtllm").joinpath("options.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    releases = list(rows.fieldnames or ())[1:]
    found: dict[str, dict[str, Option]] = {release: {} for release in releases}
    for row in rows:
        cell = ""
        for release in releases:
            cell = cell if row[release] == "=" else row[release]
            if cell:
                found[release][row["option"]] = _option(cell)
    return found


@cache
def every_option() -> frozenset[str]:
    """Every option of any release."""
    return frozenset(path for options in table().values() for path in options)


@cache
def every_mapping() -> frozenset[str]:
    """Every option below which others stand."""
    return frozenset(above for path in every_option() for above in ancestors(path))


def ancestors(path: str) -> Iterable[str]:
    """The mappings above an option, nearest first: `a.b[X].c` has `a.b` and `a`."""
    while "." in path:
        path = path.rpartition(".")[0]
        path = path.partition("[")[0] if path.endswith("]") else path
        yield path


@cache
def _option(cell: str) -> Option:
    match = _CELL.fullmatch(cell)
    assert match, f"options.csv: {cell!r}"
    names, choices, unknown = [], "", None
    for part in _TYPE.finditer(match["types"]):
        names.append(part["name"] or "mapping")
        choices, unknown = part["choices"] or choices, part["unknown"] or unknown
    return parse(
        Option,
        {
            "types": names,
            "choices": choices.split(),
            "range": match["range"],
            "unknown_keys": unknown,
            "status": match["status"],
            "ignored": bool(match["ignored"]),
            "unconfirmed": bool(match["unconfirmed"]),
        },
        "options.csv",
    )
