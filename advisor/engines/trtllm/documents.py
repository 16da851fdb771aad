"""A YAML document as leaves: dotted path to value, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advisor.domain.errors import BadInput
from advisor.engines.trtllm.options import every_mapping
from advisor.engines.trtllm.spellings import spellings


def flatten(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a document as `options.csv` names them: `a.b`, and `a[KIND].b` where a key selects the kind of `a`.

    A mapping is taken apart where some release has options below it; an empty one is a leaf.

    Raises:
        BadInput: a key that no option can have.
    """
    return dict(_leaves(document, ""))


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the leaves; the inverse of `flatten`."""
    document: dict[str, Any] = {}
    for path, value in leaves.items():
        *above, last = in_yaml(path).split(".")
        inner = document
        for part in above:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
    return document


def in_yaml(path: str) -> str:
    """The path as it stands in a file: without the kind of a mapping."""
    head, bracket, tail = path.partition("[")
    return head + tail.partition("]")[2] if bracket else path


def _leaves(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        path = f"{prefix}{key}"
        if key.startswith(("-", "$")) or "." in key or "[" in key:
            raise BadInput(f"{key!r} is no key of TensorRT-LLM: nest what stands behind a dot, and type flags instead.")
        if not isinstance(value, Mapping) or not value or path not in every_mapping():
            yield path, value
            continue
        selector = spellings().kinds.get(path)
        below = dict(value)
        if selector is None:
            yield from _leaves(below, f"{path}.")
            continue
        if selector in below:
            yield f"{path}.{selector}", below.pop(selector)
        kind = str(value.get(selector)).replace("_", "")
        yield from _leaves(below, f"{path}[{kind}].")
