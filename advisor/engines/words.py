"""A launch in words: entries of a configuration file, and flags of a command line, whatever the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel

YamlValue = OptionValue | list[Any] | None


class YamlEntry(StrictModel):
    """One line of the YAML: where it stands, its value, and the neutral name under which its origin is known."""

    name: str
    path: tuple[str, ...]
    value: YamlValue
    note: str | None = Field(default=None, description="What the release does with it, when that is not obvious")


def as_mapping(entries: Iterable[YamlEntry]) -> dict[str, Any]:
    """The nested mapping that a YAML parser reads from the entries."""
    document: dict[str, Any] = {}
    for entry in entries:
        inner = document
        for part in entry.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[entry.path[-1]] = entry.value
    return document


def flag_words(typed: Mapping[str, object]) -> tuple[str, ...]:
    """Flags and values as command-line words; True is a bare flag, False and None are left out."""
    words: list[str] = []
    for flag, value in typed.items():
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return tuple(words)


def model_argument(deployment: Deployment) -> str:
    """The model as a command-line word.

    Raises:
        BadInput: a name that would be read as a flag.
    """
    if deployment.model.startswith("-"):
        raise BadInput(f"Model {deployment.model!r} would be read as a flag; write ./{deployment.model} for a folder.")
    return deployment.model
