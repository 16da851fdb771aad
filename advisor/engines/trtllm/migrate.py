"""A YAML of one release as another release wants it, with every change said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.engines.trtllm.dialects import Dialect
from advisor.engines.trtllm.documents import flatten, in_yaml, nested
from advisor.engines.trtllm.identify import objection, objections
from advisor.engines.trtllm.options import every_option
from advisor.engines.trtllm.precedence import switched
from advisor.engines.trtllm.spellings import BUILD_CONFIG, obeyed, spellings, values_to_say, ways_to_say

ChangeKind = Literal["renamed", "moved", "changed", "added", "dropped", "ignored", "illegal", "unchecked", "obeyed"]


class Change(StrictModel):
    """What became of one key.

    renamed: another name in its place. moved: another place, or the command line. changed: another word for the value.
    added: what the old release did by default, written out. dropped: the new release has nothing like it. ignored: the
    new release would accept it without any effect. illegal: the new release would refuse to start. unchecked: kept, the
    options of the new release are not all known. obeyed: kept, but the old release ignored it.
    """

    kind: ChangeKind
    path: str = Field(description="In the file as it was; of what is added, in the new one")
    to: str | None = Field(description="Path in the new file, or flag; null when it is left out")
    old_value: Any = None
    new_value: Any = None
    why: str


class Migration(StrictModel):
    """The new file, and what happened to each key of the old one that did not stay as it was."""

    document: dict[str, Any]
    flags: dict[str, Any] = Field(description="What has to stand on the command line instead, value true: a bare flag")
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


class _Placed(StrictModel):
    """Where a leaf goes; nowhere when `to` is None."""

    to: str | None
    value: Any = None
    change: Change | None = None


def migrate(leaves: Mapping[str, Any], old: Dialect, new: Dialect) -> Migration:
    """Spell the leaves of a file for another release.

    What the new release cannot say is left out and listed; what the old one did by default and the new one does not is
    written out.
    """
    switches = [_Switch(mapping, leaves, old, new) for mapping in spellings().switches]
    placed: dict[str, _Placed] = {}
    for path, value in leaves.items():
        owner = next((switch for switch in switches if switch.owns(path)), None)
        placed[path] = (owner and owner.placed(path)) or _place(path, value, leaves, old, new)
    placed = _without_collisions(_without_orphans(placed), old)
    added = [change for switch in switches for change in switch.added()]
    spoken = {each.to: each.value for each in placed.values() if each.to is not None}
    spoken.update({change.to: change.new_value for change in added if change.to is not None})
    changes = [each.change for each in placed.values() if each.change is not None] + added
    in_file = flatten(nested({path: value for path, value in spoken.items() if not path.startswith("--")}))
    changes += _refused(in_file, leaves, old, new)
    flags = {path: value for path, value in spoken.items() if path.startswith("--") and value is not False}
    return Migration(
        document=nested(in_file),
        flags={**({"--backend": "pytorch"} if new.backend_flag else {}), **flags},
        changes=tuple(changes),
        notes=tuple(_notes(spoken, leaves, old, new)),
    )


def _refused(in_file: dict[str, Any], leaves: Mapping[str, Any], old: Dialect, new: Dialect) -> Iterator[Change]:
    """Take out what keys break together, and members of a mapping that moved as a whole, until the rest is legal."""
    before = {each.path for each in objections(old, leaves) if each.kind == "illegal"}
    while against := [each for each in objections(new, in_file) if each.kind != "unchecked"]:
        for each in against:
            kind: ChangeKind = "illegal" if each.path in before else "dropped"
            for path in [
                path for path in in_file if path == each.path or path.startswith((f"{each.path}.", f"{each.path}["))
            ]:
                yield _without(kind, path, in_file.pop(path), each.why)


def _place(path: str, value: Any, leaves: Mapping[str, Any], old: Dialect, new: Dialect) -> _Placed:
    """One leaf in the words of the new release."""
    for way in _ways(path, leaves, new):
        for said in values_to_say(path, value, way) if obeyed(new.table, way) else ():
            if new.table[way].refusal(said) is None:
                return _Placed(to=way, value=said, change=_change(path, value, way, said, old, new))
    against = objection(new, path, value)
    assert against is not None
    if against.kind == "unchecked":
        change = Change(kind="unchecked", path=in_yaml(path), to=in_yaml(path), old_value=value, why=against.why)
        return _Placed(to=path, value=value, change=change)
    known = any(way in every_option() for way in ways_to_say(path)) and path not in new.table
    if against.kind == "illegal" and known:
        why = f"TensorRT-LLM {new.release} has nothing like it and would refuse to start."
        return _left_out("dropped", path, value, why)
    return _left_out(against.kind, path, value, against.why)


def _ways(path: str, leaves: Mapping[str, Any], new: Dialect) -> list[str]:
    """Spellings to try, the path's own first.

    A `build_config` resets the size limits that it leaves out: none is begun, and one that is there takes them all.
    """
    ways = [way for way in ways_to_say(path) if way != path]
    built = [way for way in ways if way.startswith(BUILD_CONFIG)]
    others = [path, *(way for way in ways if way not in built)]
    takes_all = new.build_config == "replaces" and any(leaf.startswith(BUILD_CONFIG) for leaf in leaves)
    return [*built, *others] if takes_all else others


def _change(path: str, value: Any, way: str, said: Any, old: Dialect, new: Dialect) -> Change | None:
    doubt = " That spelling was not confirmed for it." if new.table[way].unconfirmed else ""
    fields: dict[str, Any] = {"path": in_yaml(path), "to": in_yaml(way), "old_value": value, "new_value": said}
    if way.startswith("--"):
        why = f"TensorRT-LLM {new.release} obeys it on the command line only."
        return Change(kind="moved", why=why + doubt, **fields)
    if way != path:
        same_place = way.rpartition(".")[0] == path.rpartition(".")[0]
        why = f"TensorRT-LLM {new.release} spells it so."
        return Change(kind="renamed" if same_place else "moved", why=why + doubt, **fields)
    if said != value:
        return Change(kind="changed", why=f"TensorRT-LLM {new.release} has another word for the value.", **fields)
    if not obeyed(old.table, path):
        why = f"TensorRT-LLM {old.release} does not obey it, TensorRT-LLM {new.release} does."
        return Change(kind="obeyed", why=why + doubt, **fields)
    return None


def _left_out(kind: ChangeKind, path: str, value: Any, why: str) -> _Placed:
    return _Placed(to=None, change=_without(kind, path, value, why))


def _without(kind: ChangeKind, path: str, value: Any, why: str) -> Change:
    return Change(kind=kind, path=in_yaml(path), to=None, old_value=value, why=why)


def _without_orphans(placed: Mapping[str, _Placed]) -> dict[str, _Placed]:
    """Members of a mapping whose kind was left out mean nothing any more."""
    kept = dict(placed)
    for mapping, selector in spellings().kinds.items():
        chosen = placed.get(f"{mapping}.{selector}")
        if chosen is None or chosen.to is not None:
            continue
        for path, each in placed.items():
            if path.startswith(f"{mapping}[") and each.to is not None:
                kept[path] = _left_out("dropped", path, each.value, f"It means nothing without {mapping}.{selector}.")
    return kept


def _without_collisions(placed: Mapping[str, _Placed], old: Dialect) -> dict[str, _Placed]:
    """Where two keys mean one thing, the one that the old release obeys stays."""
    winner: dict[str, str] = {}
    for path, each in sorted(placed.items(), key=lambda item: not obeyed(old.table, item[0])):
        if each.to is not None:
            winner.setdefault(each.to, path)
    kept = {}
    for path, each in placed.items():
        first = winner.get(each.to, path) if each.to is not None else path
        why = f"{in_yaml(first)} says the same thing and stays."
        kept[path] = each if first == path else _left_out("dropped", path, each.value, why)
    return kept


def _notes(spoken: Mapping[str, Any], leaves: Mapping[str, Any], old: Dialect, new: Dialect) -> Iterator[str]:
    if new.keys["moe_backend"] not in spoken and old.moe_backend_default != new.moe_backend_default:
        yield (
            f"Without {new.keys['moe_backend']} the experts run on {new.moe_backend_default} under TensorRT-LLM "
            f"{new.release}, on {old.moe_backend_default} under {old.release}; write it to keep one."
        )
    if old.graph_ladder != new.graph_ladder and switched("cuda_graph_config", leaves) is not False:
        yield (
            f"TensorRT-LLM {new.release} chooses other CUDA-graph sizes below the maximum than {old.release}; "
            "the largest stays the same."
        )
    resets = new.build_config != "ignored" and any(path.startswith(BUILD_CONFIG) for path in spoken)
    if resets:
        yield (
            "build_config resets every size limit that it leaves out to the built-in default, "
            "whatever the command line says."
        )


class _Switch:
    """A thing that some releases turn on by a mapping and others by a true/false key."""

    def __init__(self, mapping: str, leaves: Mapping[str, Any], old: Dialect, new: Dialect) -> None:
        self._mapping, self._leaves, self._old, self._new = mapping, leaves, old, new
        self._keys = spellings().switches[mapping]
        self._key = next((key for key in self._keys if key in new.table), None)
        self._members = [path for path in leaves if self._is_member(path)]
        self._source = next((path for path in (*self._keys, mapping) if self._is_thrown_by(path)), None)
        graphs = mapping == "cuda_graph_config"  # what else can be switched is off by default everywhere
        said = switched(mapping, leaves)
        self._on = (graphs and old.graphs_by_default) if said is None else said
        self._on_by_default = graphs and new.graphs_by_default

    def owns(self, path: str) -> bool:
        """True for the switch itself and its members, in any spelling."""
        return path == self._mapping or path in self._keys or self._is_member(path)

    def placed(self, path: str) -> _Placed | None:
        """The switch as the new release throws it; None for what is spelled like any other option."""
        value = self._leaves[path]
        if self._is_member(path):
            if self._on or self._key is not None:
                return None
            what = self._mapping.removesuffix("_config")
            return _left_out("dropped", path, value, f"{what} is off here, so it had no effect.")
        if not self._is_thrown_by(path):
            return None
        if path != self._source:
            return _left_out("dropped", path, value, f"{self._source} decides.")
        to, new_value = self._thrown()
        if to == path:
            return _Placed(to=path, value=value)
        way = to or self._mapping
        same_place = way.rpartition(".")[0] == path.rpartition(".")[0]
        how = f"has {way} for it" if to else f"turns it on by the keys below {way}"
        change = Change(
            kind="renamed" if same_place else "moved",
            path=path,
            to=way,
            old_value=value,
            new_value=new_value,
            why=f"TensorRT-LLM {self._new.release} {how}.",
        )
        return _Placed(to=to, value=new_value, change=change)

    def added(self) -> list[Change]:
        """The switch where the file threw it by silence, or by its members alone, and the new release would not."""
        to, value = self._thrown()
        if self._source is not None or to is None or self._on == self._on_by_default:
            return []
        said = "on" if self._on else "off"
        why = (
            f"It is {said} here under TensorRT-LLM {self._old.release}; TensorRT-LLM {self._new.release} must be told."
        )
        return [Change(kind="added", path=to, to=to, new_value=value, why=why)]

    def _thrown(self) -> tuple[str | None, Any]:
        """(path, value) that throws the switch in the new release; no path when the members do it."""
        if self._key is not None:
            return self._key, self._on
        if not self._on:
            return self._mapping, None
        return (None, None) if self._members else (self._mapping, {})

    def _is_thrown_by(self, path: str) -> bool:
        if path not in self._leaves:
            return False
        value = self._leaves[path]
        return isinstance(value, bool) if path in self._keys else path == self._mapping and not value

    def _is_member(self, path: str) -> bool:
        return any(way.startswith(f"{self._mapping}.") for way in ways_to_say(path))
