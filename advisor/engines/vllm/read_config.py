"""A person's own `--config` file as a serving configuration: what `vllm serve` would make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.domain.deployment import OPTION_FIELDS, Deployment, GpuFacts
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import parse
from advisor.engines.dialect import ReadConfig
from advisor.engines.vllm.command import ACCESS_LOG
from advisor.engines.vllm.releases import Release, default_config

# What vLLM does where the file is silent.
SILENT = {
    "enable_chunked_prefill": True,
    "enable_block_reuse": True,
    "stream_interval": 1,
    "kv_cache_dtype": "auto",
}
_FIXED = ("tp", "pp", "dp", "ep", "max_seq_len", "overlap_scheduler", "trust_remote_code")
COMPILATION = "compilation-config"


def config_from_yaml(document: Mapping[str, Any], row: Release, deployment: Deployment, gpu: GpuFacts) -> ReadConfig:
    """The configuration that `vllm serve --config` would run; what the file does not say has the release's default.

    Args:
        document: The parsed YAML; keys with underscores are read as vLLM reads them.
        row: The release.
        deployment: The study's; options equal to it are left out.
        gpu: Decides the default sizes.

    Raises:
        BadInput: a value that cannot be meant.
    """
    if not isinstance(document, Mapping):
        raise BadInput("The configuration file must be a YAML mapping of options, such as max-num-seqs: 256.")
    said = _switched({str(key).replace("_", "-"): value for key, value in document.items()})
    by_name = {name: said.pop(key) for name, key in row.keys.items() if key in said}
    settings: dict[str, Any] = default_config(row, gpu).model_dump(include=set(FOUR_SETTINGS))
    settings |= {name: by_name.pop(name) for name in FOUR_SETTINGS if name in by_name}
    compilation = said.pop(COMPILATION, None)
    if isinstance(compilation, Mapping):
        sizes = compilation.get("cudagraph_capture_sizes") or [settings["cuda_graph_max_batch_size"]]
        settings["cuda_graph_max_batch_size"] = compilation.get("max_cudagraph_capture_size", max(sizes))
    if said.pop("enforce-eager", False):
        settings["cuda_graph_max_batch_size"] = 0
    said.pop(ACCESS_LOG, None)
    notes = [f"{row.keys[name]} was not taken over: the study fixes it." for name in _FIXED if name in by_name]
    options: dict[str, Any] = {}
    for name, field in OPTION_FIELDS.items():
        fixed = getattr(deployment, field)
        value = by_name.get(name, SILENT.get(name, fixed))
        if name == "kv_cache_dtype" and isinstance(value, str):
            value = {spelling: neutral for neutral, spelling in row.kv_cache_dtypes.items()}.get(value, value)
        if value != fixed:
            options[name] = value
    for key, value in said.items():
        name = key.replace("-", "_")
        if name not in row.options:
            notes.append(f"{key} was not taken over: it is no dimension of a study.")
        elif value != deployment.engine_options.get(name):
            options[name] = value
    config = parse(ServingConfig, {**settings, "options": options}, "settings")
    deployment.with_options(config.options)
    return ReadConfig(config=config, notes=tuple(notes))


def _switched(said: Mapping[str, Any]) -> dict[str, Any]:
    """`no-key: true` as `key: false`."""
    return {
        key.removeprefix("no-") if key.startswith("no-") and value is True else key: (
            False if key.startswith("no-") and value is True else value
        )
        for key, value in said.items()
    }
