"""What one TensorRT-LLM release understands, as data: a row of `releases.yaml` found by version, its column of
`options.csv`, and the spellings that follow from both.

Everything that differs between releases stands in those tables; no code asks for a version number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from advisor.domain.deployment import GRAPH_SIZES, OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed, did_you_mean, parse
from advisor.engines.trtllm.options import Option, UnknownKeys, every_option, table
from advisor.engines.trtllm.spellings import BUILD_CONFIG, spelled, spellings, ways_to_say
from advisor.engines.versions import version_key
from advisor.twin.graphs import NAMED_SIZES, LadderRule, explicit_sizes

OptionType = Literal["bool", "int", "float", "str", "list"]

DEFAULT_LARGEST_GRAPH = 128  # of every release, once graphs are on
_EXAMPLES = ("stream_interval", "moe_config.backend", "scheduler_config.capacity_scheduler_policy")
COMMAND_LINE_ONLY = ("model", "backend")  # keys of the argument class that trtllm-serve fills itself

# What the server does where the file is silent.
SILENT: dict[str, OptionValue] = {
    "enable_attention_dp": False,
    "enable_chunked_prefill": False,
    "stream_interval": 1,
    "enable_block_reuse": True,
    "kv_cache_dtype": "auto",
}

_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "list": (str,),  # of a configuration: JSON text
}


class Defaults(StrictModel):
    """What `trtllm-serve` uses where neither flag nor YAML speaks."""

    max_batch_size: int
    max_num_tokens: int
    kv_cache_free_gpu_memory_fraction: float


class Dialect(StrictModel):
    """One row of `releases.yaml`, where each field is explained, and what follows from the other tables."""

    release: str
    since: str
    note: str | None = None
    warning: str | None = Field(default=None, description="Set when the version asked for has no row of its own")
    complete: bool
    unknown_keys: UnknownKeys
    size_limits_in_yaml: bool
    build_config: Literal["replaces", "patched", "ignored"]
    kv_cache_config_merges: bool
    explicit_flag_wins: bool
    graphs_by_default: bool
    graph_ladder: LadderRule
    graph_sizes_with_max: Literal["never", "ladder", "largest"]
    backend_flag: bool
    kv_cache_dtypes: dict[str, str]
    moe_backend_default: str
    defaults: Defaults
    names: dict[str, str] = Field(description="Neutral name to path in the newest release")
    changes_answers: tuple[str, ...] = Field(description="Dimensions that can change what the model says")
    flags: dict[str, str] = Field(description="Neutral name to command-line flag")
    keys: dict[str, str] = Field(description="Neutral name to path in the YAML; a missing one cannot be said there")
    graphs_on: dict[str, bool | None] = Field(description="Further YAML entries that switch CUDA graphs on")
    graphs_off: dict[str, bool | None] = Field(description="YAML entries that switch CUDA graphs off")
    moe_backends: tuple[str, ...] = Field(description="Empty: any word is accepted until the model is loaded")
    options: dict[str, OptionType] = Field(description="Further options of one value or a list, usable as dimensions")
    option_paths: dict[str, str] = Field(
        description="Where each of them stands: in the YAML, as a `--flag` or `$VARIABLE`"
    )
    structured: tuple[str, ...] = Field(description="Further top-level keys that are not taken apart")

    @property
    def table(self) -> dict[str, Option]:
        """Every option of the release."""
        return table()[self.release]


@cache
def dialects() -> tuple[Dialect, ...]:
    """All known releases, oldest first."""
    text = files("advisor.engines.trtllm").joinpath("releases.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    common = {name: document[name] for name in ("names", "flags", "changes_answers")}
    rows: list[Dialect] = []
    row: dict[str, Any] = {}
    for own in document["releases"]:
        row = {**row, "note": None, **own}
        derived = _derived(row["release"], document["names"])
        rows.append(parse(Dialect, {**row, **common, **derived}, "releases.yaml"))
    return tuple(rows)


def _derived(release: str, names: dict[str, str]) -> dict[str, Any]:
    """What the tables of options and spellings say about a release."""
    column = table()[release]
    said = {name: spelled(column, path) for name, path in names.items()}
    keys = {name: path for name, path in said.items() if path and not path.startswith("--")}
    own = {path.partition(".")[0] for path in keys.values()} | set(COMMAND_LINE_ONLY)
    moe_backend = column.get(keys["moe_backend"])
    switch = [path for path in spellings().switches["cuda_graph_config"] if path in column]
    own |= {*keys, *names.values(), *spellings().switches["cuda_graph_config"]}
    further = {name: (path, column[path]) for name, path in _further(column, own)}
    apart = {path.partition(".")[0] for path, _ in further.values() if "." in path}
    return {
        "keys": keys,
        "graphs_on": dict.fromkeys(switch, True),
        "graphs_off": dict.fromkeys(switch, False) or {"cuda_graph_config": None},
        "moe_backends": moe_backend.choices if moe_backend else (),
        "options": {name: option.types[0] for name, (_, option) in further.items()},
        "option_paths": {name: path for name, (path, _) in further.items()},
        "structured": sorted(
            path
            for path, option in column.items()
            if path[0] not in "-_$"
            and "." not in path
            and path not in own
            and path not in apart
            and not option.ignored
            and not _is_single(option)
        ),
    }


def _further(column: dict[str, Option], own: set[str]) -> Iterator[tuple[str, str]]:
    """(name, path) of every single value or list that can be set, named as in this release or in others.

    Environment variables are named as they are. What stands below a mapping of several kinds means nothing by itself.
    """
    yield from ((path.removeprefix("$"), path) for path in column if path.startswith("$"))
    translated = {path for row in spellings().equal for path, _ in row}
    for name in sorted(every_option()):
        if name.startswith(("-", "_", "$", BUILD_CONFIG)) or name in own or _has_kinds(name):
            continue
        first = name == ways_to_say(name)[0]
        path = name if name in column and not column[name].ignored and (first or "." not in name) else None
        if path is None and name not in translated and first:
            path = spelled(column, name)
        if path is not None and path not in own and _is_single(column[path]):
            yield name, path


def _has_kinds(path: str) -> bool:
    return path.partition(".")[0].partition("[")[0] in spellings().kinds


def _is_single(option: Option) -> bool:
    return option.types[0] in _TYPES and "mapping" not in option.types


def dialect(version: str) -> Dialect:
    """The dialect of a version; with a `warning` where it is not the release that the table was read from.

    A version between two rows speaks the older one. A version newer than all rows speaks the newest; `main` and the
    like name a row themselves.

    Raises:
        BadInput: not a version, or older than the oldest known release.
    """
    rows = dialects()
    known = ", ".join(row.release for row in rows)
    named = next((row for row in rows if row.release == version.strip()), None)
    if named is not None:
        return changed(named, warning=_joined(None, None if _is_final(named) else named.note))
    key = version_key(version)
    spoken = [row for row in rows if version_key(row.since) <= key]
    if not spoken:
        raise BadInput(
            f"TensorRT-LLM {version} is older than every release whose options are known here; "
            f"name one of {known} with --engine-version, or later."
        )
    row = spoken[-1]
    if _is_final(row) and version_key(row.release) == key:
        return row
    age = "newer than every known release" if row is rows[-1] else "not one of the known releases"
    warning = f"TensorRT-LLM {version} is {age} ({known}); its options are spelled as for {row.release}, unchecked."
    return changed(row, warning=_joined(warning, row.note))


def _is_final(row: Dialect) -> bool:
    """True for a published release, whose own pages were read."""
    return all(part.isdigit() for part in row.release.split("."))


def _joined(*parts: str | None) -> str | None:
    return " ".join(part for part in parts if part) or None


def default_config(spoken: Dialect) -> ServingConfig:
    """The four settings that the release uses when nothing is said."""
    graphs = DEFAULT_LARGEST_GRAPH if spoken.graphs_by_default else 0
    return ServingConfig(**spoken.defaults.model_dump(), cuda_graph_max_batch_size=graphs)


def extra_options(spoken: Dialect, config: ServingConfig) -> dict[str, OptionValue]:
    """Options of a configuration that are no field of the deployment: further keys (or flags) of the release.

    Raises:
        BadInput: the release has no such key, or the value has the wrong type.
    """
    extra = {name: value for name, value in config.options.items() if name not in OPTION_FIELDS}
    for name, value in extra.items():
        check_option(spoken, name, value)
    return {name: value for name, value in extra.items() if name != GRAPH_SIZES}


def check_option(spoken: Dialect, name: str, value: OptionValue) -> None:
    """Refuse an option that is neither a field of the deployment nor a further key of the release.

    Raises:
        BadInput: the release has no such key, or does not take the value.
    """
    if name in OPTION_FIELDS:
        refused = silence_is_not(spoken, name, value) or _word_refused(spoken, name, value)
        if refused is not None:
            raise BadInput(refused)
        return
    release = f"TensorRT-LLM {spoken.release}"
    if name == GRAPH_SIZES:
        if value != "auto" and value not in NAMED_SIZES and explicit_sizes(str(value)) is None:
            known = ", ".join(("auto", *NAMED_SIZES))
            raise BadInput(
                f"Option {name!r}: {value!r} is no list of graph sizes.{did_you_mean(str(value), NAMED_SIZES)} "
                f"Write one of {known}, or sizes such as [1, 2, 4, 8]."
            )
        return
    if name not in spoken.options:
        raise BadInput(_no_option(spoken, name))
    wanted = spoken.options[name]
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "bool"):
        raise BadInput(f"Option {name!r} of {release} takes a {wanted}, not {value!r}.")
    try:
        refusal = spoken.table[spoken.option_paths[name]].refusal(as_written(spoken, name, value))
    except ValueError:
        raise BadInput(f"Option {name!r} of {release} takes a list, not {value!r}.") from None
    if refusal is not None:
        raise BadInput(f"Option {name!r} of {release}: {refusal}.")


def _word_refused(spoken: Dialect, name: str, value: OptionValue) -> str | None:
    """Why a release does not take a word of a field that is free text to the deployment."""
    option = spoken.table.get(spoken.keys.get(name, ""))
    if option is None or not option.choices or name == "kv_cache_dtype":  # its words are advisor's own
        return None
    refusal = option.refusal(value)
    return None if refusal is None else f"Option {name!r} of TensorRT-LLM {spoken.release}: {refusal}."


def as_written(spoken: Dialect, name: str, value: OptionValue) -> Any:
    """The value of a further option as it stands in the YAML: a list where the configuration has its text.

    Raises:
        ValueError: no text of a list.
    """
    return json.loads(str(value)) if spoken.options[name] == "list" else value


def canonical(spoken: Dialect, name: str) -> str:
    """The name under which advisor knows a dimension: `moe_backend` for `moe_config.backend`, `tp` for its YAML key."""
    if name in spoken.options:
        return name
    neutral = next((own for own, path in spoken.names.items() if name in ways_to_say(path)), name)
    if neutral in (*FOUR_SETTINGS, *OPTION_FIELDS, GRAPH_SIZES):
        return neutral
    others = (name.removeprefix("$"), ways_to_say(name)[0])
    return next((other for other in others if other in spoken.options), name)


def _no_option(spoken: Dialect, name: str) -> str:
    """Why a release cannot be told an option, with what may have been meant."""
    said = f"TensorRT-LLM {spoken.release} has no option {name!r} that can be set here."
    if name in spoken.names:
        return f"{said} advisor sets it itself."
    if name in spoken.table or _has_kinds(name):
        return f"{said} It is a mapping, or one of several kinds: name a key below it that has one value."
    elsewhere = [row.release for row in dialects() if name in row.options]
    if elsewhere:
        return f"{said} These releases have it: {', '.join(elsewhere)}."
    hint = did_you_mean(name, [*spoken.options, *OPTION_FIELDS, *spoken.names.values(), GRAPH_SIZES])
    return f"{said}{hint} Any key of its YAML with one value can be, such as {', '.join(_EXAMPLES)}."


def silence_is_not(spoken: Dialect, name: str, value: OptionValue) -> str | None:
    """Why a value of a neutral name cannot be had, where the release has no word for it and does something else."""
    if name in spoken.keys or value == SILENT.get(name, value):
        return None
    silent = SILENT[name]
    return (
        f"TensorRT-LLM {spoken.release} has no {name} and always works as with {silent!r}, but {value!r} is asked for. "
        f"Set {name} to {silent!r} in the study (--study FILE), or name a later release with --engine-version."
    )


def kv_dtype_can_be_had(spoken: Dialect, deployment: Deployment) -> bool:
    """True when the release has a word for the KV type, or `auto` already means it for this checkpoint."""
    wanted = deployment.kv_cache_dtype
    return wanted in spoken.kv_cache_dtypes or changed(deployment, kv_cache_dtype="auto").kv_dtype == wanted


def kv_dtype_refusal(spoken: Dialect, deployment: Deployment) -> str:
    """Why that KV type cannot be had, and the way out."""
    return (
        f"TensorRT-LLM {spoken.release} cannot be told to keep a {deployment.kv_cache_dtype} KV cache for this "
        f"{deployment.quantization} checkpoint: it accepts {', '.join(sorted(spoken.kv_cache_dtypes))} only. Use auto."
    )
