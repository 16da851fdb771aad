"""An explanation for people. What stands in a file is shown as text, whatever characters it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.explaining import ExplainedKey, Explanation
from advisor.engines.explained import NO_TEXT
from advisor.report.console import banner, table
from advisor.report.plan_view import estimate_view
from advisor.report.visible import visible

_STYLES = {"error": "bold red", "warning": "yellow", "note": ""}
LONGEST_VALUE = 40  # characters; the file itself is at hand
KEYS_NOTE = (
    "takes: GiB of one GPU, by the memory law. gives: KV tokens of the server against the file without the key. "
    "Both are predicted; a key that the release spells otherwise is read as meant."
)


def explanation_view(found: Explanation) -> RenderableType:
    """The verdict, the keys, what looks wrong, what changes silently, then memory and speed."""
    deployment = found.deployment
    count = sum(each.severity != "note" for each in found.findings)
    verdict = (
        f"{found.file}, as {found.engine} {found.engine_version} reads it: "
        + ("nothing stands against it" if not count else f"{count} to look at")
        + ("." if found.starts else ", and it would not serve.")
    )
    where = (
        f"Held against {deployment.model} {deployment.quantization} on {deployment.gpus} x {deployment.gpu}, "
        f"tp {deployment.tp} pp {deployment.pp} ep {deployment.ep} "
        f"(study {found.study}; --model, --gpu, --isl, --osl and --concurrency name yours)."
    )
    label = [] if found.estimates else [banner("predicted", "predicted by the memory law")]  # estimates have their own
    parts: list[RenderableType] = [
        *label,
        Text(shown(verdict), "bold"),
        Text(shown(where)),
        *map(_line, found.warnings),
    ]
    if found.accepted_as_is:
        parts.append(Text(f"Obeyed as it is by {', '.join(found.accepted_as_is)}."))
    parts += [Text(), _keys(found.keys), Text(KEYS_NOTE, style="dim"), Text(), *_what_they_do(found.keys)]
    if found.findings:
        parts += [Text(), Text("What looks wrong", "bold")]
        parts += [_finding(each.severity, f"{each.about}: {each.message}") for each in found.findings]
    if found.changes:
        parts += [Text(), Text("What the server makes of it without saying so", "bold"), *map(_line, found.changes)]
    if found.published:
        parts += [Text(), Text("Published nearby", "bold"), *map(_line, found.published)]
    return Group(*parts, *(part for each in found.estimates for part in (Text(), estimate_view(each))))


def _keys(keys: Sequence[ExplainedKey]) -> RenderableType:
    grid = table("key", "value", "", "default", "takes, GiB", "gives, KV tokens")
    for number in (1, 2):
        grid.columns[number].justify = "left"
    for key in keys:
        standing = "" if key.standing == "obeyed" else "not in the file" if key.standing == "default" else key.standing
        grid.add_row(
            Text(shown(key.path)),
            Text(_value(key.value)),
            standing,
            key.default or "?",
            "" if key.takes_gib is None else f"{key.takes_gib:.2f}",
            f"{key.kv_tokens_gained:+,}" if key.kv_tokens_gained else "",
        )
    return grid


def _what_they_do(keys: Sequence[ExplainedKey]) -> Iterator[Text]:
    yield Text("What each key does", "bold")
    for key in keys:
        takes = f" Takes {key.takes}." if key.takes else ""
        yield Text(shown(f"  {key.path}: {key.meaning or f'{NO_TEXT}.'}{takes}"))


def _value(value: Any) -> str:
    text = shown(value if isinstance(value, str) else json.dumps(value, default=str))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def shown(text: str) -> str:
    """Text in which control characters can be seen and do nothing, on one line."""
    return visible(text.replace("\n", "\N{SYMBOL FOR NEWLINE}"))


def _line(text: str) -> Text:
    return Text(f"  {shown(text)}")


def _finding(severity: str, text: str) -> Text:
    return Text.assemble((f"  {severity}: ", _STYLES[severity]), shown(text))
