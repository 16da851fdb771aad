"""A YAML of `--extra_llm_api_options` key by key, as one release reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from advisor.domain.serving_config import FOUR_SETTINGS
from advisor.engines.explained import FileKey, FileReading, Finding, Severity, meanings
from advisor.engines.trtllm.dialects import SILENT, Dialect, default_config
from advisor.engines.trtllm.documents import flatten, in_yaml
from advisor.engines.trtllm.identify import Identity, Objection, identify, objections, remarks, written_for
from advisor.engines.trtllm.migrate import Change, migrate
from advisor.engines.trtllm.options import Option
from advisor.engines.trtllm.precedence import settled, switched
from advisor.engines.trtllm.spellings import obeyed, spellings, ways_to_say

_SEVERITY: Mapping[str, Severity] = {"illegal": "error", "ignored": "warning", "unchecked": "note"}
_GRAPHS = "cuda_graph_config"


def explain(document: Mapping[str, Any], spoken: Dialect) -> FileReading:
    """What the release makes of every key of a file.

    Raises:
        BadInput: a key that no option can have.
    """
    leaves = flatten(document)
    identity, against = identify(leaves), objections(spoken, leaves)
    changes = migrate(leaves, written_for(identity, spoken), spoken).changes
    return FileReading(
        keys=tuple(_keys(leaves, spoken, against)),
        findings=(
            *(_finding(each, spoken, identity, changes) for each in against),
            *(Finding(severity="warning", about="the file", message=each) for each in remarks(spoken, leaves)),
        ),
        changes=tuple(_silent_changes(leaves, spoken)),
        accepted_as_is=identity.accepted_as_is,
        settings=tuple(_silent(spoken, name) for name in FOUR_SETTINGS),
    )


def _silent(spoken: Dialect, name: str) -> FileKey:
    path = spoken.keys.get(name) or spoken.flags.get(name) or spoken.names[name]
    option = spoken.table.get(path)
    return FileKey(
        path=in_yaml(path),
        name=name,
        value=getattr(default_config(spoken), name),
        standing="default",
        meaning=meanings().names[name],
        takes=_taken(option) if option else None,
        default=_default(spoken, name),
    )


def _keys(leaves: Mapping[str, Any], spoken: Dialect, against: tuple[Objection, ...]) -> Iterator[FileKey]:
    names = {way: name for name, path in spoken.names.items() for way in ways_to_say(path)}
    switches = dict.fromkeys((_GRAPHS, *spellings().switches[_GRAPHS]), "cuda_graph_max_batch_size")
    standing = {each.path: each.kind for each in reversed(against)}
    for path, value in leaves.items():
        name, option = names.get(path), spoken.table.get(path)
        yield FileKey(
            path=in_yaml(path),
            name=name or switches.get(path),
            value=value,
            standing=standing.get(path, "obeyed"),
            meaning=_meaning(path, name),
            takes=_taken(option) if option else None,
            default=_default(spoken, name),
        )


def _meaning(path: str, name: str | None) -> str | None:
    known = meanings()
    return known.names.get(name or "") or known.trtllm.get(in_yaml(ways_to_say(path)[0]))


def _taken(option: Option) -> str:
    """`a whole number > 0`, `AUTO, NCCL or null`."""
    words = [", ".join(option.choices) or option.said, *(["null"] if "null" in option.types else [])]
    status = f" ({option.status})" if option.status else ""
    return " or ".join(words) + status


def _default(spoken: Dialect, name: str | None) -> str | None:
    known = {**SILENT, **default_config(spoken).flat(), "moe_backend": spoken.moe_backend_default}
    value = known.get(name or "")
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def _finding(against: Objection, spoken: Dialect, identity: Identity, changes: tuple[Change, ...]) -> Finding:
    """An objection, with what to write instead of a key that the release does not have."""
    path, way_out = in_yaml(against.path), ""
    if not obeyed(spoken.table, against.path):
        instead = next((each.to for each in changes if each.path == path and each.to not in (None, path)), None)
        known_to = next((each.known_to for each in identity.telling if each.path == path), ())
        if instead is not None:
            way_out = f" Write {instead}."
        elif known_to:
            way_out = f" These releases obey it: {', '.join(known_to)}."
    return Finding(severity=_SEVERITY[against.kind], about=path, message=against.why + way_out)


def _silent_changes(leaves: Mapping[str, Any], spoken: Dialect) -> Iterator[str]:
    """Values that other keys overrule, and CUDA graphs that stay off."""
    for name in spoken.names:
        note = settled(spoken, name, leaves, {}).note
        if note is not None:
            yield note
    asked = any(path.startswith((f"{_GRAPHS}.", "cuda_graph_")) for path in leaves)
    if asked and not spoken.graphs_by_default and switched(_GRAPHS, leaves) is None:
        key = " ".join(spoken.graphs_on)
        yield f"CUDA graphs stay off in TensorRT-LLM {spoken.release} until the file says {key}: true."
