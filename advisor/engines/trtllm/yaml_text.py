"""A document as YAML text, with a comment beside what deserves one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

_WIDEST = 60


def yaml_text(document: Mapping[str, Any], comments: Mapping[str, str], head: Iterable[str] = ()) -> str:
    """YAML that reads back as the document.

    Args:
        document: Plain data.
        comments: Dotted path to comment.
        head: Lines of comment at the top.
    """
    lines = list(_lines(document, "", comments))
    width = min(_WIDEST, max((len(text) for text, _ in lines), default=0))
    body = [f"{text:<{width}}  # {one_line(comment)}" if comment else text for text, comment in lines] or ["{}"]
    top = [f"# {one_line(line)}" for line in head]
    return "\n".join([*top, *([""] if top else []), *body]) + "\n"


def one_line(text: str) -> str:
    """Text that cannot leave its comment."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _lines(document: Mapping[str, Any], above: str, comments: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    indent = "  " * above.count(".")
    for key, value in document.items():
        path, name = f"{above}{key}", scalar(key)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:", comments.get(path, "")
            yield from _lines(value, f"{path}.", comments)
        else:
            yield f"{indent}{name}: {scalar(value)}", comments.get(path, "")


def scalar(value: Any) -> str:
    """A value on one line, whatever it holds; anything beyond ASCII is escaped, since PyYAML writes some of it bare."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
