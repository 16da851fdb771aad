"""A `--config` file of vLLM key by key, as one release reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advisor.domain.deployment import GpuFacts
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS
from advisor.domain.strict import did_you_mean
from advisor.engines.explained import FileKey, FileReading, Finding, Standing, meanings
from advisor.engines.vllm.command import ACCESS_LOG
from advisor.engines.vllm.read_config import COMPILATION, SILENT
from advisor.engines.vllm.releases import Release, check_option, default_config

EAGER = "enforce-eager"
_TYPES = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
_FURTHER = {COMPILATION: "a mapping", EAGER: "true or false", ACCESS_LOG: "true or false", "model": "text"}


def explain(document: Mapping[str, Any], row: Release, gpu: GpuFacts) -> FileReading:
    """What the release makes of every key of a file; its default sizes depend on the GPU."""
    read = [_key(str(key), value, row, gpu) for key, value in document.items()]
    return FileReading(
        keys=tuple(key for key, _ in read),
        findings=tuple(finding for _, finding in read if finding is not None),
        changes=tuple(_dropped(document, row)),
        accepted_as_is=(),
        settings=tuple(_silent(row, gpu, name) for name in FOUR_SETTINGS),
    )


def _silent(row: Release, gpu: GpuFacts, name: str) -> FileKey:
    return FileKey(
        path=row.keys[name],
        name=name,
        value=getattr(default_config(row, gpu), name),
        standing="default",
        meaning=_meaning(row.keys[name], name),
        takes=None,
        default=_default(row, gpu, name),
    )


def _meaning(plain: str, name: str | None) -> str | None:
    return meanings().vllm.get(plain) or meanings().names.get(name or "")


def _key(said: str, value: Any, row: Release, gpu: GpuFacts) -> tuple[FileKey, Finding | None]:
    plain = said.replace("_", "-")
    plain = plain.removeprefix("no-") if value is True else plain
    neutral = {key: name for name, key in row.keys.items()}
    name = neutral.get(plain)
    option = plain.replace("-", "_")
    kind = row.options.get(option)
    takes = _TYPES[kind] if kind else _FURTHER.get(plain)
    standing: Standing = "obeyed"
    finding = None
    if kind is not None:
        try:
            check_option(row, option, value)
        except BadInput as refusal:
            standing, finding = "illegal", Finding(severity="error", about=said, message=str(refusal))
    elif name is None and plain not in _FURTHER:
        known = [*neutral, *_FURTHER, *(each.replace("_", "-") for each in row.options)]
        message = f"Not among the keys of vLLM {row.release} that are known here.{did_you_mean(plain, known)}"
        standing, finding = "unchecked", Finding(severity="note", about=said, message=message)
    key = FileKey(
        path=said,
        name="cuda_graph_max_batch_size" if plain in (COMPILATION, EAGER) else name,
        value=value,
        standing=standing,
        meaning=_meaning(plain, name),
        takes=takes,
        default=_default(row, gpu, name),
    )
    return key, finding


def _default(row: Release, gpu: GpuFacts, name: str | None) -> str | None:
    value = {**SILENT, **default_config(row, gpu).flat()}.get(name or "")
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def _dropped(document: Mapping[str, Any], row: Release) -> Iterator[str]:
    """What releases do with `key: false` that know no `--no-key` in a file."""
    for key, value in document.items():
        if value is False and not row.no_in_file:
            plain = str(key).replace("_", "-")
            yield f"vLLM {row.release} drops '{plain}: false' without a word; write 'no-{plain}: true'."
