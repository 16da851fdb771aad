"""A person's own YAML (and command line, if known) as a serving configuration: what the server would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advisor.domain.deployment import GRAPH_SIZES, OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import parse
from advisor.engines.dialect import ReadConfig
from advisor.engines.trtllm.dialects import (
    COMMAND_LINE_ONLY,
    DEFAULT_LARGEST_GRAPH,
    SILENT,
    Dialect,
    extra_options,
)
from advisor.engines.trtllm.identify import hint
from advisor.engines.trtllm.precedence import Said, said_in_file, settled, switched, typed_flags
from advisor.engines.trtllm.spellings import spellings, ways_to_say
from advisor.twin.graphs import NAMED_SIZES, ladder

_FIXED = ("tp", "pp", "ep", "max_seq_len", "trust_remote_code")  # never taken over from a file


def config_from_yaml(
    document: Mapping[str, Any], spoken: Dialect, deployment: Deployment, argv: Sequence[str] = ()
) -> ReadConfig:
    """The configuration that a server of this release would run with this file.

    What neither file nor command line says has the release's default. Spellings of other releases are read too, and
    noted. Options equal to the study's are left out; what the study fixes and the file sets otherwise is noted.

    Args:
        document: The parsed YAML.
        spoken: The dialect of the release.
        deployment: The study's.
        argv: The `trtllm-serve` command line used with the file, if known.

    Raises:
        BadInput: a value that cannot be meant, such as a fraction of 90.
    """
    if not isinstance(document, Mapping):
        raise BadInput("The configuration file must be a YAML mapping of options, such as max_batch_size: 1024.")
    for key in {path.partition(".")[0] for path in spoken.keys.values() if "." in path}:
        if not isinstance(document.get(key, {}), (Mapping, type(None))):
            raise BadInput(f"{key} takes further keys below it, not {document[key]!r}.")
    leaves = dict(_leaves(document, frozenset(spoken.structured) - {"build_config"}))
    typed = typed_flags(spoken, argv)
    found = {name: settled(spoken, name, leaves, typed) for name in spoken.names}
    notes = _foreign(leaves, spoken)
    notes += [each.note for each in found.values() if each.note]
    said = {name: each.said for name, each in found.items() if each.said is not None}
    settings: dict[str, Any] = spoken.defaults.model_dump()
    settings |= {name: said[name].value for name in settings if name in said}
    settings["cuda_graph_max_batch_size"] = _graph_max(leaves, said, spoken, notes)
    options = _options(said, deployment, notes) | _graph_sizes(said, spoken, deployment, settings)
    _note_fixed(said, deployment, notes)
    options |= _further(leaves, typed, spoken, notes)
    config = parse(ServingConfig, {**settings, "options": options}, "settings")
    extra_options(spoken, config)
    deployment.with_options(config.options)
    return ReadConfig(config=config, notes=tuple(notes))


def _leaves(document: Mapping[str, Any], whole: frozenset[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything that is no mapping; keys in `whole` are not taken apart."""
    for key, value in document.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and path not in whole:
            yield from _leaves(value, whole, f"{path}.")
        else:
            yield path, value


def _foreign(leaves: Mapping[str, Any], spoken: Dialect) -> list[str]:
    """A note for each spelling that the release does not have and that is read as meant all the same."""
    notes = []
    for name in spoken.names:
        said, own = said_in_file(leaves, spoken, name), spoken.keys.get(name)
        if said is not None and said.where not in spoken.table:
            wanted = f"; write {own}" if own else ""
            notes.append(f"TensorRT-LLM {spoken.release} does not accept {said.where!r}{wanted}. It was read as meant.")
    return notes


def _graph_max(leaves: Mapping[str, Any], said: Mapping[str, Said], spoken: Dialect, notes: list[str]) -> Any:
    sizes, largest = said.get("cuda_graph_batch_sizes"), said.get("cuda_graph_max_batch_size")
    switch = switched("cuda_graph_config", leaves)
    if not (spoken.graphs_by_default if switch is None else switch):
        if switch is None and (sizes or largest):
            key = " ".join(spoken.graphs_on)
            notes.append(f"CUDA graphs stay off in TensorRT-LLM {spoken.release} until the file says {key}: true.")
        return 0
    if sizes is not None:
        listed = sizes.value
        if not isinstance(listed, list) or not listed or not all(isinstance(size, int) for size in listed):
            raise BadInput(f"CUDA graph batch sizes must be a list of whole numbers, not {listed!r}.")
        return max(listed)
    return (largest.value if largest else None) or DEFAULT_LARGEST_GRAPH  # 0 means the default to the server


def _graph_sizes(
    said: Mapping[str, Said], spoken: Dialect, deployment: Deployment, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The file's own list of graph sizes, by its name where it has one; nothing where the release would choose it."""
    largest = settings["cuda_graph_max_batch_size"]
    if GRAPH_SIZES not in said or not largest:
        return {}
    sizes = tuple(sorted(set(said[GRAPH_SIZES].value)))
    padding = bool(said["graph_padding"].value) if "graph_padding" in said else deployment.graph_padding
    rules = {spoken.graph_ladder: "auto", **{name: name for name in NAMED_SIZES}}
    names = (name for rule, name in rules.items() if ladder(largest, padding=padding, rule=rule) == sizes)
    name = next(names, json.dumps(sizes))
    return {} if name == "auto" else {GRAPH_SIZES: name}


def _options(said: Mapping[str, Said], deployment: Deployment, notes: list[str]) -> dict[str, Any]:
    """Options of the deployment that this file sets otherwise than the study, by saying so or by silence."""
    options: dict[str, Any] = {}
    for name in OPTION_FIELDS:
        fixed = deployment.option(name)
        value = said[name].value if name in said else SILENT.get(name, fixed)
        if value == fixed or name in _FIXED:
            continue
        if name not in said:
            notes.append(f"The file does not say {name}, so it is {value} (the study has {fixed}).")
        options[name] = value
    return options


def _note_fixed(said: Mapping[str, Said], deployment: Deployment, notes: list[str]) -> None:
    fixed = {name: getattr(deployment, name) for name in _FIXED}
    for name, value in fixed.items():
        if name in said and value is not None and said[name].value != value:
            notes.append(f"{said[name].where} {said[name].value} was not taken over: the study fixes it at {value}.")


def _further(leaves: Mapping[str, Any], typed: Mapping[str, Said], spoken: Dialect, notes: list[str]) -> dict[str, Any]:
    """Further options of the release; everything else is noted."""
    named = {path: name for name, path in spoken.option_paths.items() if not path.startswith("$")}
    understood = {way for path in spoken.names.values() for way in ways_to_say(path)}
    understood |= {"cuda_graph_config", *spellings().switches["cuda_graph_config"], *COMMAND_LINE_ONLY}
    further: dict[str, Any] = {}
    for path, value in leaves.items():
        top = path.partition(".")[0]
        if path in understood:
            continue
        refusal = spoken.table[path].refusal(value) if path in named and "." in path else None
        if refusal is not None:
            notes.append(f"{path} was not taken over: {refusal}.")
        elif path in named and value is not None:
            further[named[path]] = json.dumps(value) if isinstance(value, list) else value
        elif path in spoken.table or top in spoken.structured:
            notes.append(f"{path} was not taken over: it is no dimension of a study.")
        else:
            notes.append(f"TensorRT-LLM {spoken.release} does not know {path!r}.{hint(spoken.release, path)}")
    for name, flag in typed.items():
        if name in spoken.options and (name not in further or spoken.explicit_flag_wins):
            further[name] = flag.value
    return further
