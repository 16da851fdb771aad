"""Which value a server uses when the YAML and the command line both speak, or when it listens to neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel
from advisor.engines.trtllm.dialects import Dialect
from advisor.engines.trtllm.options import Option
from advisor.engines.trtllm.spellings import BUILD_CONFIG, obeyed, spellings, ways_to_say

SIZE_LIMITS = ("max_batch_size", "max_num_tokens", "max_seq_len")
FRACTION = "kv_cache_free_gpu_memory_fraction"


class Said(StrictModel):
    """A value, and the path or flag under which it was said."""

    where: str
    value: Any


class Settled(StrictModel):
    """The value that the server uses (None: its default), where it comes from, and what is not plain about it."""

    said: Said | None = None
    note: str | None = None

    @property
    def value(self) -> Any:
        return self.said.value if self.said else None


def said_in_file(leaves: Mapping[str, Any], spoken: Dialect, name: str) -> Said | None:
    """What the file says about a neutral name, outside `build_config`; the release's own spelling first."""
    own = spoken.keys.get(name)
    ways = [way for way in ways_to_say(spoken.names[name]) if not way.startswith(("--", BUILD_CONFIG))]
    where = next((way for way in (*([own] if own else []), *ways) if leaves.get(way) is not None), None)
    return Said(where=where, value=leaves[where]) if where else None


def typed_flags(spoken: Dialect, argv: Sequence[str]) -> dict[str, Said]:
    """What a command line says, by neutral name or by the name of a further option.

    Raises:
        BadInput: a value that is no number where one is needed.
    """
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    named = {**spoken.names, **{name: name for name in spoken.options}}
    found: dict[str, Said] = {}
    for name, path in named.items():
        for flag in ways_to_say(path):
            if flag.startswith("--") and obeyed(spoken.table, flag) and flag in words:
                found[name] = Said(where=flag, value=_typed(spoken.table[flag], flag, words))
    return found


def _typed(option: Option, flag: str, words: list[str]) -> Any:
    if "flag" in option.types:
        return True
    rest = words[words.index(flag) + 1 :]
    try:
        return {"int": int, "float": float}.get(option.types[0], str)(rest[0])
    except (ValueError, IndexError):
        raise BadInput(f"{flag} {' '.join(rest[:1])!r} is not {option.said}.") from None


def settled(spoken: Dialect, name: str, leaves: Mapping[str, Any], typed: Mapping[str, Said]) -> Settled:
    """What a server of the release makes of a file and a command line for one neutral name.

    What the release ignores is taken as meant where nothing else speaks, with a note.
    """
    if name in SIZE_LIMITS:
        return _size_limit(spoken, name, leaves, typed.get(name))
    inside, flag = said_in_file(leaves, spoken, name), typed.get(name)
    if inside is not None and flag is not None:
        return Settled(said=flag if spoken.explicit_flag_wins else inside)
    if name == FRACTION and flag is not None and not spoken.kv_cache_config_merges and _has(leaves, "kv_cache_config"):
        note = (
            f"TensorRT-LLM {spoken.release} replaces the whole kv_cache_config by the file's, so {flag.where} "
            f"{flag.value:g} has no effect: write free_gpu_memory_fraction in the file."
        )
        return Settled(note=note)
    return Settled(said=inside or flag)


def _size_limit(spoken: Dialect, name: str, leaves: Mapping[str, Any], flag: Said | None) -> Settled:
    top, inner = said_in_file(leaves, spoken, name) or _top(leaves, name), f"{BUILD_CONFIG}{name}"
    built = Said(where=inner, value=leaves[inner]) if leaves.get(inner) is not None else None
    if spoken.build_config != "ignored" and _has(leaves, "build_config"):
        if spoken.build_config == "patched" and top is not None:
            return Settled(said=top)
        if built is not None:
            return Settled(said=built)
        note = f"build_config leaves {name} out, which resets it to the built-in default"
        lost = " and ".join(said.where for said in (top, flag) if said)
        return Settled(note=f"{note}; {lost} has no effect." if lost else f"{note}.")
    if top is not None and spoken.size_limits_in_yaml:
        return Settled(said=flag if flag is not None and spoken.explicit_flag_wins else top)
    if flag is not None:
        return Settled(said=flag)
    ignored = top or built
    if ignored is None:
        return Settled()
    note = (
        f"TensorRT-LLM {spoken.release} ignores {ignored.where!r} in the file; {ignored.value} was taken as if typed "
        f"as {spoken.flags[name]}."
    )
    return Settled(said=ignored, note=note)


def _top(leaves: Mapping[str, Any], name: str) -> Said | None:
    return Said(where=name, value=leaves[name]) if leaves.get(name) is not None else None


def _has(leaves: Mapping[str, Any], mapping: str) -> bool:
    return any(path.startswith(f"{mapping}.") for path in leaves)


def switched(mapping: str, leaves: Mapping[str, Any]) -> bool | None:
    """What a file says about a thing that a mapping or a true/false key turns on; None when it is silent."""
    for key in spellings().switches[mapping]:
        if isinstance(leaves.get(key), bool):
            return bool(leaves[key])
    if mapping in leaves:
        return leaves[mapping] is not None
    return True if _has(leaves, mapping) else None
