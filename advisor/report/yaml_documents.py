"""YAML files that other programs read: rendered by the library, long texts as blocks, comments at the top."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Never an anchor, and text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def yaml_documents(comments: Iterable[str], *documents: dict[str, Any]) -> str:
    """The documents of one file; each comment is one line already."""
    head = "".join(f"# {line}\n" for line in comments)
    return head + yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=len(documents) > 1, allow_unicode=False
    )


def literal(text: str) -> str:
    """A text in which compose and Kubernetes replace nothing: both read `$$` as one `$`."""
    return text.replace("$", "$$")
