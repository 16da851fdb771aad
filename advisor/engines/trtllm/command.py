"""The command line and the YAML of one launch, as text-free values.

Both repeat each other wherever both are honoured, so that the file alone reproduces the result and no precedence rule
can change it. Where a release ignores the size limits of the file, they stand on the command line only.
"""

from __future__ import annotations

from advisor.domain.deployment import GRAPH_SIZES, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.engines.trtllm.dialects import (
    SILENT,
    Dialect,
    as_written,
    extra_options,
    kv_dtype_can_be_had,
    kv_dtype_refusal,
    silence_is_not,
)
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.identify import objections
from advisor.engines.words import YamlEntry, YamlValue, as_mapping, flag_words, model_argument
from advisor.twin.graphs import ladder


def to_argv(
    spoken: Dialect,
    deployment: Deployment,
    config: ServingConfig,
    max_seq_len: int,
    *,
    host: str,
    port: int | str,
    config_path: str,
) -> tuple[str, ...]:
    """The `trtllm-serve` command line, in the order of the TensorRT-LLM guide.

    Raises:
        BadInput: a model name that would be read as a flag, or an option that the release does not have.
    """
    deployment = deployment.with_options(config.options)
    values: dict[str, object] = {
        "backend": "pytorch",
        "max_batch_size": config.max_batch_size,
        "max_num_tokens": config.max_num_tokens,
        "max_seq_len": max_seq_len,
        "tp": deployment.tp,
        "pp": deployment.pp,
        "ep": deployment.ep,
        "kv_cache_free_gpu_memory_fraction": config.kv_cache_free_gpu_memory_fraction,
        "trust_remote_code": deployment.trust_remote_code or None,
        "config_path": config_path,
        "host": host,
        "port": port,
    }
    typed = {spoken.flags[name]: value for name, value in values.items()}
    for name, option in extra_options(spoken, config).items():
        if spoken.option_paths[name].startswith("--"):
            typed[spoken.option_paths[name]] = option
    return ("trtllm-serve", model_argument(deployment), *flag_words(typed))


def to_yaml(spoken: Dialect, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> tuple[YamlEntry, ...]:
    """Every entry of the YAML: fixed options and settings, in a stable order.

    Raises:
        BadInput: an option that the release cannot express, or refuses.
    """
    deployment = deployment.with_options(config.options)
    sizes: dict[str, YamlValue] = {}
    if spoken.size_limits_in_yaml:
        sizes = {
            "max_batch_size": config.max_batch_size,
            "max_num_tokens": config.max_num_tokens,
            "max_seq_len": max_seq_len,
        }
    values: dict[str, YamlValue] = {
        **sizes,
        "tp": deployment.tp,
        "pp": deployment.pp,
        "ep": deployment.ep,
        "enable_attention_dp": deployment.attention_dp,
        "enable_chunked_prefill": deployment.chunked_prefill,
        "stream_interval": deployment.stream_interval,
    }
    refused = list(not_in_release(spoken, deployment))
    if not kv_dtype_can_be_had(spoken, deployment):
        refused.append(kv_dtype_refusal(spoken, deployment))
    if refused:
        raise BadInput(" ".join(refused))
    entries = [_entry(spoken, name, value) for name, value in values.items() if name in spoken.keys]
    entries += _graph_entries(spoken, deployment, config)
    entries.append(_entry(spoken, "kv_cache_free_gpu_memory_fraction", config.kv_cache_free_gpu_memory_fraction))
    entries.append(_entry(spoken, "enable_block_reuse", deployment.block_reuse))
    if deployment.kv_cache_dtype != "auto":
        spelling = spoken.kv_cache_dtypes.get(deployment.kv_cache_dtype, spoken.kv_cache_dtypes["auto"])
        entries.append(_entry(spoken, "kv_cache_dtype", spelling, f"{deployment.kv_cache_dtype} KV cache"))
    if deployment.moe_backend is not None:
        entries.append(_entry(spoken, "moe_backend", deployment.moe_backend))
    if not deployment.overlap_scheduler:
        entries.append(_entry(spoken, "disable_overlap_scheduler", True))
    if deployment.trust_remote_code:
        entries.append(_entry(spoken, "trust_remote_code", True))
    note = "without it /metrics stays empty; costs a little, and advisor measures with it on"
    entries.append(_entry(spoken, "enable_iter_perf_stats", True, note))
    for name, option in extra_options(spoken, config).items():
        path = spoken.option_paths[name]
        off = any(entry.value is None and path.startswith(f"{'.'.join(entry.path)}.") for entry in entries)
        if not path.startswith(("--", "$")) and not off:
            entries.append(_written(spoken, name, path, as_written(spoken, name, option)))
    illegal = [each.why for each in objections(spoken, flatten(as_mapping(entries))) if each.kind == "illegal"]
    if illegal:
        raise BadInput(" ".join(illegal))
    return tuple(entries)


def check_deployment(spoken: Dialect, deployment: Deployment) -> None:
    """Refuse a deployment that asks for what the release has no word for.

    Raises:
        BadInput: with the way out.
    """
    refused = not_in_release(spoken, deployment)
    if refused:
        raise BadInput(" ".join(refused))


def not_in_release(spoken: Dialect, deployment: Deployment) -> tuple[str, ...]:
    """What the deployment asks for and the release has no word for, each with the way out."""
    asked = {name: deployment.option(name) for name in SILENT}
    said = (silence_is_not(spoken, name, value) for name, value in asked.items() if value is not None)
    return tuple(each for each in said if each is not None)


def _entry(spoken: Dialect, name: str, value: YamlValue, note: str | None = None) -> YamlEntry:
    return _written(spoken, name, spoken.keys[name], value, note)


def _written(spoken: Dialect, name: str, path: str, value: YamlValue, note: str | None = None) -> YamlEntry:
    if path in spoken.table and spoken.table[path].unconfirmed:
        doubt = f"this spelling was not confirmed for {spoken.release}"
        note = f"{note}; {doubt}" if note else doubt
    return YamlEntry(name=name, path=tuple(path.split(".")), value=value, note=note)


def _graph_sizes(spoken: Dialect, deployment: Deployment, config: ServingConfig) -> YamlEntry:
    """The largest size, or all of them where the configuration has a list of its own: no release wants both."""
    largest, rule = config.cuda_graph_max_batch_size, config.options.get(GRAPH_SIZES, "auto")
    if rule == "auto":
        return _entry(spoken, "cuda_graph_max_batch_size", largest)
    sizes = ladder(largest, padding=deployment.graph_padding, rule=str(rule))
    return _entry(spoken, GRAPH_SIZES, list(sizes), f"{rule} up to {largest:,}")


def _graph_entries(spoken: Dialect, deployment: Deployment, config: ServingConfig) -> list[YamlEntry]:
    if config.cuda_graph_max_batch_size == 0:
        switch, note = spoken.graphs_off, "CUDA graphs off"
    else:
        switch, note = spoken.graphs_on, "CUDA graphs on"
    entries = [_written(spoken, "cuda_graph_max_batch_size", path, value, note) for path, value in switch.items()]
    if config.cuda_graph_max_batch_size:
        entries.append(_entry(spoken, "graph_padding", deployment.graph_padding))
        entries.append(_graph_sizes(spoken, deployment, config))
    return entries
