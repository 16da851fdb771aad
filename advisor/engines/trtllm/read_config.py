"""A person's own YAML (and command line, if known) as a serving configuration: what the server would make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advisor.domain.deployment import OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import StrictModel, did_you_mean, parse
from advisor.engines.trtllm.dialects import Dialect, extra_options

# Spellings of other releases and of trtllm-bench that files in the wild still use.
_OLD = "pytorch_backend_config."
_OTHER_PATHS: dict[str, tuple[str, ...]] = {
    "max_batch_size": ("build_config.max_batch_size",),
    "max_num_tokens": ("build_config.max_num_tokens",),
    "max_seq_len": ("build_config.max_seq_len",),
    "kv_cache_free_gpu_memory_fraction": (
        "kv_cache_free_gpu_memory_fraction",
        "kv_cache_free_gpu_mem_fraction",
        "free_gpu_memory_fraction",
        "kv_cache_config.free_gpu_mem_fraction",
    ),
    "use_cuda_graph": ("use_cuda_graph", f"{_OLD}use_cuda_graph"),
    "cuda_graph_max_batch_size": ("cuda_graph_max_batch_size", f"{_OLD}cuda_graph_max_batch_size"),
    "cuda_graph_batch_sizes": ("cuda_graph_batch_sizes", f"{_OLD}cuda_graph_batch_sizes"),
    "graph_padding": (
        "cuda_graph_config.padding_enabled",
        "cuda_graph_padding_enabled",
        f"{_OLD}cuda_graph_padding_enabled",
    ),
    "kv_cache_dtype": ("kv_cache_dtype", f"{_OLD}kv_cache_dtype"),
    "moe_backend": ("moe_backend", f"{_OLD}moe_backend"),
}
_SIZES = ("max_batch_size", "max_num_tokens")

# What the server does where the file is silent, for options that a study may fix otherwise.
_SILENT = {
    "enable_attention_dp": False,
    "enable_chunked_prefill": False,
    "stream_interval": 1,
    "enable_block_reuse": True,
    "kv_cache_dtype": "auto",
}
_FIXED = ("tp", "pp", "ep", "max_seq_len", "graph_padding", "trust_remote_code")
_IGNORED = ("model", "backend")


class ReadConfig(StrictModel):
    """What was read, and what was not plain about it."""

    config: ServingConfig
    notes: tuple[str, ...]


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
    notes: list[str] = []
    said = _said(leaves, spoken, notes)
    flags = _flags(spoken, argv)
    defaults = spoken.defaults.model_dump()
    settings = {name: defaults[name] for name in FOUR_SETTINGS}
    settings |= {
        name: value for name in _SIZES if (value := _size(name, leaves, said, flags, spoken, notes)) is not None
    }
    fraction = _fraction(document, said, flags, spoken, notes)
    if fraction is not None:
        settings["kv_cache_free_gpu_memory_fraction"] = fraction
    settings["cuda_graph_max_batch_size"] = _graph_max(leaves, said, settings["cuda_graph_max_batch_size"], notes)
    options = _options(said, deployment, notes)
    _note_fixed(said, deployment, notes)
    options |= _further(leaves, said, spoken, notes)
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


def _said(leaves: Mapping[str, Any], spoken: Dialect, notes: list[str]) -> dict[str, tuple[str, Any]]:
    """Neutral name to (path, value) for everything the file says that has a neutral name."""
    said: dict[str, tuple[str, Any]] = {}
    for name in {**spoken.keys, **_OTHER_PATHS}:
        own = spoken.keys.get(name)
        for path in ((own,) if own else ()) + _OTHER_PATHS.get(name, ()):
            if path in leaves and name not in said:
                said[name] = (path, leaves[path])
                top = path.partition(".")[0]
                if path != own and top not in spoken.structured:
                    wanted = f"; write {own}" if own else ""
                    notes.append(
                        f"TensorRT-LLM {spoken.release} does not accept {path!r}{wanted}. It was read as meant."
                    )
    return said


def _flags(spoken: Dialect, argv: Sequence[str]) -> dict[str, float]:
    """The numeric settings typed on a command line, by neutral name."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    typed: dict[str, float] = {}
    for name in (*_SIZES, "kv_cache_free_gpu_memory_fraction"):
        if spoken.flags[name] in words[:-1]:
            text = words[words.index(spoken.flags[name]) + 1]
            try:
                typed[name] = int(text) if name in _SIZES else float(text)
            except ValueError:
                raise BadInput(f"{spoken.flags[name]} {text!r} is not a number.") from None
    return typed


def _size(
    name: str,
    leaves: Mapping[str, Any],
    said: Mapping[str, tuple[str, Any]],
    flags: Mapping[str, float],
    spoken: Dialect,
    notes: list[str],
) -> Any:
    path, value = said.get(name, ("", None))
    nested = leaves.get(f"build_config.{name}")
    if not spoken.size_limits_in_yaml and nested is not None:
        return nested
    if value is None or (name in flags and (spoken.explicit_flag_wins or not spoken.size_limits_in_yaml)):
        return flags.get(name)
    if not spoken.size_limits_in_yaml:
        notes.append(
            f"TensorRT-LLM {spoken.release} ignores {path!r} in the file; {value} was taken as if typed as "
            f"{spoken.flags[name]}."
        )
    return value


def _fraction(
    document: Mapping[str, Any],
    said: Mapping[str, tuple[str, Any]],
    flags: Mapping[str, float],
    spoken: Dialect,
    notes: list[str],
) -> Any:
    name = "kv_cache_free_gpu_memory_fraction"
    value = said.get(name, ("", None))[1]
    if name not in flags:
        return value
    if value is not None:
        return flags[name] if spoken.explicit_flag_wins else value
    if document.get("kv_cache_config") and not spoken.kv_cache_config_merges:
        notes.append(
            f"TensorRT-LLM {spoken.release} replaces the whole kv_cache_config by the file's, so "
            f"{spoken.flags[name]} {flags[name]:g} has no effect: write free_gpu_memory_fraction in the file."
        )
        return None
    return flags[name]


def _graph_max(leaves: Mapping[str, Any], said: Mapping[str, tuple[str, Any]], default: int, notes: list[str]) -> Any:
    off = "cuda_graph_config" in leaves and leaves["cuda_graph_config"] is None
    if off or said.get("use_cuda_graph", ("", True))[1] is False:
        return 0
    sizes = said.get("cuda_graph_batch_sizes", ("", None))[1]
    if sizes is not None:
        if not isinstance(sizes, list) or not sizes or not all(isinstance(size, int) for size in sizes):
            raise BadInput(f"CUDA graph batch sizes must be a list of whole numbers, not {sizes!r}.")
        notes.append(f"The file lists {len(sizes)} CUDA graph sizes; they stand here for all up to {max(sizes)}.")
        return max(sizes)
    return said.get("cuda_graph_max_batch_size", ("", None))[1] or default  # 0 means the default to the server


def _options(said: Mapping[str, tuple[str, Any]], deployment: Deployment, notes: list[str]) -> dict[str, Any]:
    """Options of the deployment that this file sets otherwise than the study, by saying so or by silence."""
    options: dict[str, Any] = {}
    for name, field in OPTION_FIELDS.items():
        fixed = getattr(deployment, field)
        value = said[name][1] if name in said else _SILENT.get(name, fixed)
        if value == fixed:
            continue
        if name not in said:
            notes.append(f"The file does not say {name}, so it is {value} (the study has {fixed}).")
        options[name] = value
    return options


def _note_fixed(said: Mapping[str, tuple[str, Any]], deployment: Deployment, notes: list[str]) -> None:
    fixed = {name: getattr(deployment, name) for name in _FIXED}
    fixed["disable_overlap_scheduler"] = not deployment.overlap_scheduler
    for name, value in fixed.items():
        if name in said and value is not None and said[name][1] != value:
            notes.append(f"{said[name][0]} {said[name][1]} was not taken over: the study fixes it at {value}.")


def _further(
    leaves: Mapping[str, Any], said: Mapping[str, tuple[str, Any]], spoken: Dialect, notes: list[str]
) -> dict[str, Any]:
    """Further top-level options of the release; everything else is noted."""
    read = {path for path, _ in said.values()} | {f"build_config.{name}" for name in (*_SIZES, "max_seq_len")}
    further: dict[str, Any] = {}
    for path, value in leaves.items():
        top = path.partition(".")[0]
        if path in read or path in _IGNORED or (path == "cuda_graph_config" and not value):
            continue
        if path in spoken.options and value is not None:
            further[path] = value
        elif top in spoken.structured or top in spoken.options:
            notes.append(f"{path} was not taken over: it is no dimension of a study.")
        elif path not in spoken.keys.values():
            known = [*spoken.keys.values(), *spoken.options, *spoken.structured]
            notes.append(f"TensorRT-LLM {spoken.release} does not know {path!r}.{did_you_mean(path, known)}")
    return further
