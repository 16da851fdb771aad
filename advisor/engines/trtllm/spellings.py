"""One meaning, many spellings: `spellings.yaml` as functions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from advisor.domain.strict import StrictModel, parse
from advisor.engines.trtllm.options import Options, every_option

BUILD_CONFIG = "build_config."


class Spellings(StrictModel):
    """The file, where each field is explained."""

    same: tuple[tuple[str, ...], ...]
    switches: dict[str, tuple[str, ...]]
    equal: tuple[tuple[tuple[str, bool | str], ...], ...]
    kinds: dict[str, str]


@cache
def spellings() -> Spellings:
    """What stands in the file."""
    text = files("advisor.engines.trtllm").joinpath("spellings.yaml").read_text(encoding="utf-8")
    return parse(Spellings, yaml.safe_load(text), "spellings.yaml")


def ways_to_say(path: str) -> tuple[str, ...]:
    """Every spelling of the meaning that a path has, in order of preference; the path alone when it has no other."""
    return _groups().get(path, (path,))


def obeyed(options: Options, path: str) -> bool:
    """True when a release has the option and acts on it."""
    return path in options and not options[path].ignored


def spelled(options: Options, path: str) -> str | None:
    """How a release spells what a path means, the path itself if it can; None when it has no word for it.

    Never below `build_config`, unless the path stands there: such a mapping resets every size limit it leaves out.
    """
    ways = (path, *(way for way in ways_to_say(path) if not way.startswith(BUILD_CONFIG)))
    return next((way for way in ways if obeyed(options, way)), None)


def values_to_say(path: str, value: Any, way: str) -> Iterator[Any]:
    """What a value under `path` is under another spelling of it: itself, unless the table translates it."""
    here = [row for row in spellings().equal if (path, value) in row and isinstance(value, (bool, str))]
    if way == path or not any(way == other for row in spellings().equal for other, _ in row):
        yield value
    for row in here:
        yield from (equal for other, equal in row if other == way and equal != value)


@cache
def _groups() -> dict[str, tuple[str, ...]]:
    found = {}
    for group in spellings().same:
        for ways in _unfolded(group):
            found.update(dict.fromkeys(ways, ways))
    return found


def _unfolded(group: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if "[*]" not in group[0]:
        yield group
        return
    mapping = group[0].partition("[")[0]
    kinds = {path.partition("]")[0].partition("[")[2] for path in every_option() if path.startswith(f"{mapping}[")}
    for kind in sorted(kinds):
        yield tuple(way.replace("[*]", f"[{kind}]") for way in group)
