"""A YAML of one release as another release wants it, with every change said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.engines.trtllm.dialects import Dialect
from advisor.engines.trtllm.documents import in_yaml, nested
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
    switches = {mapping: _Switch(mapping, leaves, old, new) for mapping in spellings().switches}
    placed: dict[str, _Placed] = {}
    for path, value in leaves.items():
        switch = next((switch for switch in switches.values() if switch.owns(path)), None)
        placed[path] = switch.placed(path) if switch and switch.is_said_by(path) else _place(path, value, old, new)
        if switch and switch.drops(path):
            placed[path] = _left_out("dropped", path, value, switch.why_off)
    placed = _without_collisions(placed, old)
    added = [change for switch in switches.values() for change in switch.added()]
    spoken = {each.to: each.value for each in placed.values() if each.to is not None}
    spoken.update({change.to: change.new_value for change in added if change.to is not None})
    refused = [each for each in objections(new, spoken) if each.kind == "illegal" and each.path in spoken]
    changes = [each.change for each in placed.values() if each.change is not None] + added
    for each in refused:  # rules about several keys at once; single ones were kept above
        changes.append(_left_out("dropped", each.path, spoken.pop(each.path), each.why).change)  # type: ignore[arg-type]
    flags = {path: value for path, value in spoken.items() if path.startswith("--") and value is not False}
    return Migration(
        document=nested({path: value for path, value in spoken.items() if not path.startswith("--")}),
        flags={**({"--backend": "pytorch"} if new.backend_flag else {}), **flags},
        changes=tuple(changes),
        notes=tuple(_notes(spoken, leaves, old, new)),
    )


def _place(path: str, value: Any, old: Dialect, new: Dialect) -> _Placed:
    """One leaf in the words of the new release."""
    for way in _ways(path, new):
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


def _ways(path: str, new: Dialect) -> tuple[str, ...]:
    """Spellings to try, the path's own first. A `build_config` resets what it leaves out, so none is begun."""
    ways = ways_to_say(path)
    return (path, *(way for way in ways if way != path and not way.startswith(BUILD_CONFIG)))


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
    if old.release != new.release and not obeyed(old.table, path) and not any(
        obeyed(old.table, other) for other in ways_to_say(path) if not other.startswith("--")
    ):
        why = f"TensorRT-LLM {old.release} does not obey it, TensorRT-LLM {new.release} does."
        return Change(kind="obeyed", why=why + doubt, **fields)
    return None


def _left_out(kind: ChangeKind, path: str, value: Any, why: str) -> _Placed:
    return _Placed(to=None, change=Change(kind=kind, path=in_yaml(path), to=None, old_value=value, why=why))


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
            f"The default MoE backend of TensorRT-LLM {old.release} is {old.moe_backend_default}, that of {new.release} "
            f"is {new.moe_backend_default}; write {new.keys['moe_backend']} to keep one (models without experts: no matter)."
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
        self._mapping, self._old, self._new = mapping, old, new
        self._keys = spellings().switches[mapping]
        self._members = [path for path in leaves if self._is_member(path)]
        graphs = mapping == "cuda_graph_config"
        self._by_default = (old.graphs_by_default and graphs, new.graphs_by_default and graphs)
        said = switched(mapping, leaves)
        self._source = next((path for path in (*self._keys, mapping) if path in leaves and self.is_said_by(path)), None)
        self._leaves = leaves
        self._said = said
        self._on = self._by_default[0] if said is None else said
        self._key = next((key for key in self._keys if key in new.table), None)

    def owns(self, path: str) -> bool:
        """True for the switch itself and its members, in any spelling."""
        return path == self._mapping or path in self._keys or self._is_member(path)

    def is_said_by(self, path: str) -> bool:
        """True when the path is the switch itself, in any spelling."""
        return path == self._mapping or path in self._keys

    @property
    def why_off(self) -> str:
        return f"{self._mapping.removesuffix('_config')} is off in this file, so it has no effect."

    def drops(self, path: str) -> bool:
        """True for members that have nowhere to stand once the mapping is null."""
        return self._is_member(path) and not self._on and self._key is None

    def placed(self, path: str) -> _Placed:
        """The switch as the new release throws it."""
        value = self._leaves[path]
        if not isinstance(value, (bool, dict, type(None))):
            return _place(path, value, self._old, self._new)
        to, new_value = self._thrown()
        if path != self._source or to is None:
            why = "It is said by other keys."
            return _left_out("dropped", path, value, why) if to != path else _Placed(to=None)
        if to == path:
            return _Placed(to=to, value=value)
        kind: ChangeKind = "renamed" if to.rpartition(".")[0] == path.rpartition(".")[0] else "moved"
        why = f"TensorRT-LLM {self._new.release} turns it on and off so."
        change = Change(kind=kind, path=path, to=to, old_value=value, new_value=new_value, why=why)
        return _Placed(to=to, value=new_value, change=change)

    def added(self) -> list[Change]:
        """The switch where the file threw it by silence, or by its members alone, and the new release would not."""
        if self._source is not None:
            return []
        to, value = self._thrown()
        same = self._on == self._by_default[1] and not (self._key and self._said)
        if to is None or same:
            return []
        said = "on" if self._on else "off"
        why = f"TensorRT-LLM {self._old.release} has it {said} here; TensorRT-LLM {self._new.release} has to be told."
        return [Change(kind="added", path=to, to=to, new_value=value, why=why)]

    def _thrown(self) -> tuple[str | None, Any]:
        """(path, value) that throws the switch in the new release; no path when the members do it."""
        if self._key is not None:
            return self._key, self._on
        if not self._on:
            return self._mapping, None
        return (None, None) if self._members else (self._mapping, {})

    def _is_member(self, path: str) -> bool:
        return any(way.startswith(f"{self._mapping}.") for way in ways_to_say(path))
