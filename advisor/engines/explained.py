"""What a server's file says, key by key, whatever the engine."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from advisor.domain.strict import StrictModel, parse

Severity = Literal["error", "warning", "note"]
Standing = Literal["obeyed", "ignored", "illegal", "unchecked", "default"]
NO_TEXT = "no description known here"


class Finding(StrictModel):
    """Something about a file that deserves a look. error: the server does not start, or does not serve."""

    severity: Severity
    about: str = Field(description="Key of the file, or name of a setting")
    message: str


class FileKey(StrictModel):
    """One key of a file under one release.

    obeyed: the release acts on it. ignored: accepted without any effect. illegal: it refuses to start. unchecked: not
    all that the release takes is known here. default: not in the file.
    """

    path: str = Field(description="As in the file; below a mapping behind a dot")
    name: str | None = Field(description="What advisor calls it; null where it has no name of its own for it")
    value: Any
    standing: Standing
    meaning: str | None = Field(description="What it does; null where no text is known here")
    takes: str | None = Field(description="What the release takes for it; null where that is not known here")
    default: str | None = Field(description="What the release does without it; null where that is not known here")


class FileReading(StrictModel):
    """A whole file under one release."""

    keys: tuple[FileKey, ...]
    findings: tuple[Finding, ...] = Field(description="What the release refuses, ignores, or warns about")
    changes: tuple[str, ...] = Field(description="What the release makes of the file without saying so")
    accepted_as_is: tuple[str, ...] = Field(description="Known releases that obey every key; empty where none is known")
    settings: tuple[FileKey, ...] = Field(description="The four settings as they are where a file is silent")


class Meanings(StrictModel):
    """The file `meanings.yaml`, where each field is explained."""

    names: dict[str, str]
    trtllm: dict[str, str]
    vllm: dict[str, str]


@cache
def meanings() -> Meanings:
    """What stands in the file."""
    text = files("advisor.engines").joinpath("meanings.yaml").read_text(encoding="utf-8")
    return parse(Meanings, yaml.safe_load(text), "meanings.yaml")
