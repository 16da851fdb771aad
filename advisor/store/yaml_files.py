"""Reading files that people write, and writing files that are either whole or not there."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from advisor.domain.errors import BadInput
from advisor.domain.units import MIB_BYTES

MAX_TEXT_BYTES = MIB_BYTES  # no configuration file is near it

_WAY_OUT = {
    errno.ENOSPC: "The disk is full: free some space, then run again with --resume.",
    errno.EDQUOT: "The disk quota is used up: free some space, then run again with --resume.",
    errno.EROFS: "The file system is read-only: choose another folder with --out.",
    errno.EACCES: "Permission is missing: choose another folder with --out, or change its owner.",
    errno.EPERM: "Permission is missing: choose another folder with --out, or change its owner.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it away, or choose another folder with --out.",
    errno.EEXIST: "A file stands where a folder is needed: move it away, or choose another folder with --out.",
    errno.EISDIR: "A folder stands where a file is needed: move it away.",
}
_NOT_PLAIN = ("timestamp", "merge", "value")  # YAML types that stay text here, since JSON has none of them
_INSTEAD = {  # part of a complaint about YAML -> what to do about it
    "anchors and aliases": "write the value out wherever it is used, also in place of a merge key (<<)",
    "the tag ": "write the value without it",
    "found another document": "keep one, or write each to a file of its own",
    "found character '\\t'": "use spaces, not tabs",
}
_serial = itertools.count()


def cannot_write(path: Path, error: OSError) -> BadInput:
    """The error for a file or folder that the system refused to write, with the way out."""
    way_out = _WAY_OUT.get(error.errno or 0, "Choose another folder with --out.")
    return BadInput(f"Cannot write {path}: {error.strerror or error}. {way_out}")


def make_folder(path: Path) -> Path:
    """The folder, made with its parents when it is not there.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that every reader, and every crash, sees the old one or the new one whole.

    Raises:
        BadInput: the system refused; nothing half-written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}-{next(_serial)}.tmp")
    try:
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None


def sweep(folder: Path) -> None:
    """Remove what killed writers left aside, here and below; only where nobody else is writing."""
    for aside in folder.rglob(".*.tmp"):
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file.

    Raises:
        BadInput: no such file, not readable, not UTF-8, or larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise BadInput(f"There is no file {path}.") from None
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from None
    if len(data) > max_bytes:
        raise BadInput(f"{path} is larger than {max_bytes:,} bytes; that is not a file advisor can mean.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].rpartition(b"\n")
        line, column = before[0].count(b"\n") + bool(before[1]) + 1, len(before[2]) + 1
        raise BadInput(f"{path}, line {line}, column {column}: not UTF-8 text; save it as UTF-8.") from None


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """Plain data of one YAML mapping: no tags, anchors or repeated keys.

    Args:
        text: The document.
        where: What it is, for the message: a path.

    Raises:
        BadInput: with line and column.
    """
    try:
        data = yaml.load(text, _StrictLoader)  # noqa: S506 - a stricter SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = ", ".join(filter(None, (error.context, error.problem)))
        way_out = next((f": {do}" for sign, do in _INSTEAD.items() if sign in said), "")
        raise BadInput(f"{where}{place}: {said}{way_out}.") from None
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        raise BadInput(f"{where}, line {line}, column {column}: not YAML ({error.reason}).") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{where}: not YAML ({str(error).splitlines()[0]}).") from None
    except RecursionError:
        raise BadInput(f"{where}: nested too deeply.") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise BadInput(f"{where}: a mapping of keys to values is needed, found {found}.")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML text of plain data, keys in their order; anything beyond ASCII is escaped."""
    text: str = yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=False, width=1000)
    return text


class _StrictLoader(yaml.SafeLoader):
    """`SafeLoader` without what plain data do not need, and without silently dropping a repeated key."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases are not allowed here"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            problem = f"the tag {tag} is not allowed here"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"a key is read as {key!r}, not as text; put it in quotes"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            if key in lines:
                problem = f"the key {key!r} was already given in line {lines[key]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _NOT_PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
