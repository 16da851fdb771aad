"""Which releases accept a YAML as it is, and which of its keys betray the release it was written for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel, did_you_mean
from advisor.engines.trtllm.dialects import Dialect, dialects
from advisor.engines.trtllm.documents import in_yaml
from advisor.engines.trtllm.options import ancestors, every_option, table
from advisor.engines.trtllm.spellings import obeyed, spelled, ways_to_say
from advisor.engines.trtllm.validators import findings
from advisor.twin.graphs import ladder


class Objection(StrictModel):
    """What a release has against one key: it refuses to start, ignores the key silently, or nobody here knows.

    The path of what keys do together may name a mapping: then all of it is to blame.
    """

    path: str
    kind: Literal["illegal", "ignored", "unchecked"]
    why: str


class TellingKey(StrictModel):
    """A key that not every release has."""

    path: str
    known_to: tuple[str, ...]


class Identity(StrictModel):
    """The dialect of a file."""

    accepted_as_is: tuple[str, ...] = Field(description="Releases that obey every key of the file")
    starts_with: tuple[str, ...] = Field(description="Releases that start with it, but ignore some of its keys")
    nearest: tuple[str, ...] = Field(description="Releases with the fewest objections; the accepting ones, if any")
    telling: tuple[TellingKey, ...]


def objection(spoken: Dialect, path: str, value: Any) -> Objection | None:
    """What a release has against one leaf of a file; None when it obeys it."""
    option, release = spoken.table.get(path), f"TensorRT-LLM {spoken.release}"
    if option is None:
        return _unknown(spoken, path)
    refusal = option.refusal(value)
    if option.ignored and (refusal is None or not option.choices):  # what is dropped unread may hold anything
        return Objection(path=path, kind="ignored", why=f"{release} accepts it without any effect.")
    return Objection(path=path, kind="illegal", why=f"{release} refuses the value: {refusal}.") if refusal else None


def objections(spoken: Dialect, leaves: Mapping[str, Any]) -> tuple[Objection, ...]:
    """Everything a release has against a file: key by key, then what keys do together."""
    found = [objection(spoken, path, value) for path, value in leaves.items()]
    found.append(_sizes_with_max(spoken, leaves))
    for path, validator in findings(spoken.release, leaves):
        if validator.severity == "error":
            why = f'TensorRT-LLM {spoken.release} refuses {validator.condition}: "{validator.message}"'
            found.append(Objection(path=path, kind="illegal", why=why))
    return tuple(each for each in found if each is not None)


def remarks(spoken: Dialect, leaves: Mapping[str, Any]) -> tuple[str, ...]:
    """What a release says about a file that it starts with all the same, in words."""
    release = f"TensorRT-LLM {spoken.release}"
    said = [
        f'{release} warns of {validator.condition}: "{validator.message}"'
        for _, validator in findings(spoken.release, leaves)
        if validator.severity == "warning"
    ]
    tops = dict.fromkeys(path.partition(".")[0].partition("[")[0] for path in leaves)
    unstable = [top for top in tops if top in spoken.table and spoken.table[top].status]
    if unstable:
        said.append(f"{release} calls these beta or prototype, which may change, and says so: {', '.join(unstable)}.")
    return tuple(said)


@cache
def hint(release: str, path: str) -> str:
    """The key of the release that may have been meant by one that it does not have, as a sentence; may be empty."""
    return did_you_mean(
        in_yaml(path), {in_yaml(known) for known in table()[release] if not known.startswith(("--", "$"))}
    )


def identify(leaves: Mapping[str, Any]) -> Identity:
    """Hold the leaves of a file against every known release."""
    against = {row.release: [each.kind for each in objections(row, leaves)] for row in dialects()}
    fewest = min((len(kinds), kinds.count("illegal")) for kinds in against.values())
    known_to = {
        path: tuple(row.release for row in dialects() if obeyed(row.table, path))
        for path in leaves
        if path in every_option() or spelled(dialects()[-1].table, path)
    }
    return Identity(
        accepted_as_is=tuple(release for release, kinds in against.items() if not kinds),
        starts_with=tuple(release for release, kinds in against.items() if kinds and set(kinds) == {"ignored"}),
        nearest=tuple(release for release, kinds in against.items() if (len(kinds), kinds.count("illegal")) == fewest),
        telling=tuple(
            TellingKey(path=in_yaml(path), known_to=known)
            for path, known in known_to.items()
            if len(known) < len(dialects())
        ),
    )


def written_for(identity: Identity, spoken: Dialect) -> Dialect:
    """The release nearest to the wanted one among those with the fewest objections; the newer of two."""
    rows = dialects()
    wanted = next(i for i, row in enumerate(rows) if row.release == spoken.release)
    nearest = [(abs(i - wanted), -i, row) for i, row in enumerate(rows) if row.release in identity.nearest]
    return min(nearest, key=lambda entry: entry[:2])[2]


def _unknown(spoken: Dialect, path: str) -> Objection:
    release = f"TensorRT-LLM {spoken.release}"
    above = next((above for above in ancestors(path) if above in spoken.table), None)
    rule = spoken.unknown_keys if above is None else spoken.table[above].unknown_keys
    place = f"below {above}" if above else "at the top level"
    if above is not None and spoken.table[above].ignored:
        return Objection(path=path, kind="ignored", why=f"{release} drops {above} without a word.")
    if rule == "ignore":
        why = f"{release} silently ignores keys {place} that it does not have."
        return Objection(path=path, kind="ignored", why=why)
    nowhere = not any(way in every_option() for way in ways_to_say(path))
    said = hint(spoken.release, path) if nowhere else ""
    if rule == "open" or (nowhere and not spoken.complete):
        why = f"The keys of {release} {place} are not all known here.{said}"
        return Objection(path=path, kind="unchecked", why=why)
    if rule is None:
        return Objection(path=path, kind="illegal", why=f"{release} takes no keys below {above}.")
    return Objection(path=path, kind="illegal", why=f"{release} has no such key and refuses to start.{said}")


def _sizes_with_max(spoken: Dialect, leaves: Mapping[str, Any]) -> Objection | None:
    """Graph sizes and their maximum together, where the release refuses the pair."""
    path = spoken.keys["cuda_graph_max_batch_size"]
    sizes, largest = leaves.get(spoken.keys["cuda_graph_batch_sizes"]), leaves.get(path)
    if not isinstance(largest, int) or largest <= 0 or not isinstance(sizes, list) or not sizes:
        return None
    if not all(isinstance(size, int) for size in sizes):
        return None
    padding = leaves.get(spoken.keys["graph_padding"], False) is True
    if spoken.graph_sizes_with_max == "never":
        allowed, rule = False, ""
    elif spoken.graph_sizes_with_max == "largest":
        allowed, rule = max(sizes) == largest, " unless the maximum is the largest of the sizes"
    else:
        generated = ladder(largest, padding=padding, rule=spoken.graph_ladder)
        allowed, rule = sorted(sizes) == list(generated), " unless the sizes are the ones it would choose itself"
    why = f"TensorRT-LLM {spoken.release} refuses CUDA-graph sizes together with their maximum{rule}."
    return None if allowed else Objection(path=path, kind="illegal", why=why)
