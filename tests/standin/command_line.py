"""The command line of `trtllm-serve` per release, read from the published options, with click's texts and exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.standin.schema import schema

USAGE_EXIT = 2
_COMMANDS = ("disaggregated", "disaggregated_mpi_worker", "mm_embedding_serve", "grpc")


class UsageError(Exception):
    """What click prints before it exits with 2."""

    def __str__(self) -> str:
        return (
            "Usage: trtllm-serve serve [OPTIONS] MODEL\n"
            "Try 'trtllm-serve serve --help' for help.\n\n"
            f"Error: {self.args[0]}"
        )


@dataclass(frozen=True)
class CommandLine:
    """The arguments, by the options' names as the release's schema has them; what was not typed has its default."""

    model: str
    options: Mapping[str, Any]
    typed: frozenset[str]


def parse(release: str, argv: list[str]) -> CommandLine:
    """Read an argv (less the program's name) as that release does.

    Raises:
        UsageError: unknown option, wrong type or choice, missing or surplus argument.
    """
    words = argv[1:] if argv[:1] == ["serve"] else argv
    if words[:1] and words[0] in _COMMANDS:
        raise UsageError(f"The stand-in has no command {words[0]!r}.")
    flags = schema(release)["serve_flags"]
    names = {spelling: name for name, spec in flags.items() for spelling in (name, *spec.get("aliases", ()))}
    typed: dict[str, Any] = {}
    arguments: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            arguments += rest
        elif word.startswith("-") and word != "-":
            name, value = _option(word, rest, flags, names)
            typed[name] = (*typed.get(name, ()), value) if flags[name].get("repeatable") else value
        else:
            arguments.append(word)
    if not arguments:
        raise UsageError("Missing argument 'MODEL'.")
    if len(arguments) > 1:
        plural = "s" if len(arguments) > 2 else ""
        raise UsageError(f"Got unexpected extra argument{plural} ({' '.join(arguments[1:])})")
    defaults = {name: spec["default"] for name, spec in flags.items()}
    return CommandLine(arguments[0], {**defaults, **typed}, frozenset(typed))


def _option(word: str, rest: Iterator[str], flags: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, Any]:
    spelled, equals, value = word.partition("=")
    name = names.get(spelled)
    if name is None:
        near = difflib.get_close_matches(spelled, names)
        hint = f" (Possible options: {', '.join(sorted(near))})" if len(near) > 1 else ""
        raise UsageError(f"No such option: {spelled}{f' Did you mean {near[0]}?' if len(near) == 1 else hint}")
    if flags[name]["type"] == "flag":
        if equals:
            raise UsageError(f"Option '{spelled}' does not take a value.")
        return name, True
    if not equals:
        value = next(rest, "")
        if not value:
            raise UsageError(f"Option '{spelled}' requires an argument.")
    return name, _converted(name, value, flags[name])


def _converted(name: str, text: str, spec: Mapping[str, Any]) -> Any:
    kind, choices = spec["type"], spec.get("choices")
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            word = "integer" if kind == "int" else "float"
            raise UsageError(f"Invalid value for '{name}': {text!r} is not a valid {word}.") from None
    if choices is not None:
        text = spec.get("choice_aliases", {}).get(text, text)
        if text not in choices:
            quoted = ", ".join(map(repr, choices))
            raise UsageError(f"Invalid value for '{name}': {text!r} is not {'one of ' * (len(choices) > 1)}{quoted}.")
    return text


def help_text(release: str) -> str:
    """`--help`, which says what this is."""
    lines = [
        "Usage: trtllm-serve serve [OPTIONS] MODEL",
        "",
        "  TEST EQUIPMENT: a stand-in for TensorRT-LLM's trtllm-serve, driven by advisor's twin. It serves no model,",
        "  and nothing it reports was measured on a GPU.",
        "",
        f"Options (those of release {release}):",
    ]
    for name, spec in schema(release)["serve_flags"].items():
        value = "" if spec["type"] == "flag" else f" {'|'.join(spec.get('choices', ())) or spec['type'].upper()}"
        lines.append(f"  {', '.join((name, *spec.get('aliases', ())))}{value}")
    return "\n".join(lines)
