"""What a launch runs with: command line and YAML put together as the release does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from advisor.domain.deployment import Deployment, Quantization
from tests.standin.command_line import CommandLine
from tests.standin.ladder import captured, ladder
from tests.standin.releases import Release
from tests.standin.schema import llm_args_class, schema

SIZES = ("max_batch_size", "max_num_tokens", "max_seq_len", "max_beam_width", "max_input_len")
_BUILD_DEFAULTS = {
    name: spec["default"] for name, spec in schema("1.1.0")["sub_configs"]["build_config"]["fields"].items()
}
_SERVE_ONLY = frozenset({"disagg_cluster"})
Note = tuple[str, str]
"""Level and text of a line that reading the settings prints."""


class ConfigRefused(Exception):
    """The configuration is refused before any GPU work; the text is the last of the traceback."""


@dataclass(frozen=True)
class Settings:
    """Effective settings. Batch, tokens and graphs are per rank under attention DP."""

    release: Release
    model: str
    host: str
    port: int
    log_level: str
    tp: int
    pp: int
    ep: int
    attention_dp: bool
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int | None
    kv_fraction: float
    kv_max_tokens: int | None
    kv_max_bytes: int
    kv_dtype: str
    tokens_per_block: int
    block_reuse: bool
    graph_sizes: tuple[int, ...]
    graph_padding: bool
    chunked_prefill: bool
    overlap: bool
    stream_interval: int
    iter_stats: bool
    iter_log: bool
    notes: tuple[Note, ...] = ()

    @property
    def n_ranks(self) -> int:
        """Worker processes, one a GPU."""
        return self.tp * self.pp

    def record(self) -> dict[str, Any]:
        """Plain data for the record of launches."""
        named = {name: value for name, value in vars(self).items() if name not in ("release", "notes")}
        return {"release": self.release.key, **named, "graph_sizes": list(self.graph_sizes)}

    def deployment(self, gpu: str, plays: str | None = None) -> Deployment:
        """What the twin is asked about; `plays` as in `Dial`."""
        model = plays or self.model
        return Deployment(
            model=model,
            quantization=quantization_of(model),
            gpu=gpu,
            gpus=self.n_ranks,
            tp=self.n_ranks if plays else self.tp,
            pp=1 if plays else self.pp,
            ep=self.ep,
            attention_dp=self.attention_dp,
            graph_padding=self.graph_padding,
            chunked_prefill=self.chunked_prefill,
            block_reuse=self.block_reuse,
            stream_interval=self.stream_interval,
            kv_cache_dtype="fp8" if self.kv_dtype == "fp8" else "auto",
            overlap_scheduler=self.overlap,
        )


def read_document(path: str | None) -> dict[str, Any]:
    """The YAML of `--extra_llm_api_options`.

    Raises:
        ConfigRefused: no file, no YAML, no mapping.
    """
    if path is None:
        return {}
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigRefused(f"{type(error).__name__}: {error}") from None
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise ConfigRefused(f"TypeError: argument of type '{kind}' is not iterable")
    return document


def understand(release: Release, line: CommandLine, document: Mapping[str, Any]) -> Settings:
    """The settings in effect.

    Raises:
        ConfigRefused: unknown keys, wrong values, combinations that the release refuses.
    """
    given = {key: value for key, value in document.items() if key not in _SERVE_ONLY}
    typed = _from_command_line(line)
    if release.sizes == "plain":
        given.pop("build_config", None)
    if release.merges_kv and isinstance(given.get("kv_cache_config"), Mapping):
        given["kv_cache_config"] = {**typed["kv_cache_config"], **given["kv_cache_config"]}
    merged = _validated(release, {"model": line.model, **typed, **given})
    sizes, notes = _sizes(release, line, merged, given)
    kv, graphs = merged["kv_cache_config"] or {}, _graphs(release, merged)
    torch = merged.get("pytorch_backend_config") or {} if release.graphs == "nested" else merged
    fraction = kv.get("free_gpu_memory_fraction")
    batch, tokens = sizes["max_batch_size"] or 2048, sizes["max_num_tokens"] or 8192
    if batch > tokens:
        notes.append(("W", f"max_batch_size [{batch}] should be less than or equal to max_num_tokens [{tokens}]"))
    return Settings(
        release=release,
        model=line.model,
        host=line.options["--host"],
        port=line.options["--port"],
        log_level=line.options["--log_level"],
        tp=merged["tensor_parallel_size"],
        pp=merged["pipeline_parallel_size"],
        ep=max(1, merged["moe_expert_parallel_size"] or 1),
        attention_dp=bool(merged["enable_attention_dp"]),
        max_batch_size=batch,
        max_num_tokens=tokens,
        max_seq_len=sizes["max_seq_len"],
        kv_fraction=0.9 if fraction is None else fraction,
        kv_max_tokens=kv.get("max_tokens"),
        kv_max_bytes=kv.get("max_gpu_total_bytes") or 0,
        kv_dtype=kv.get("dtype") or torch.get("kv_cache_dtype") or "auto",
        tokens_per_block=kv.get("tokens_per_block") or 32,
        block_reuse=kv.get("enable_block_reuse", True),
        graph_sizes=captured(graphs[0], graphs[1], batch, tokens),
        graph_padding=graphs[1],
        chunked_prefill=bool(merged["enable_chunked_prefill"]),
        overlap=not torch.get("disable_overlap_scheduler"),
        stream_interval=merged.get("stream_interval") or 1,
        iter_stats=bool(torch.get("enable_iter_perf_stats")),
        iter_log=bool(torch.get("print_iter_log")),
        notes=tuple(notes),
    )


def _from_command_line(line: CommandLine) -> dict[str, Any]:
    """What `get_llm_args` makes of all options, defaults included."""

    def option(*spellings: str) -> Any:
        return next((line.options[each] for each in spellings if each in line.options), None)

    fraction = option("--free_gpu_memory_fraction", "--kv_cache_free_gpu_memory_fraction")
    return {
        "tensor_parallel_size": option("--tensor_parallel_size", "--tp_size"),
        "pipeline_parallel_size": option("--pipeline_parallel_size", "--pp_size"),
        "moe_expert_parallel_size": option("--moe_expert_parallel_size", "--ep_size"),
        "trust_remote_code": bool(option("--trust_remote_code")),
        "kv_cache_config": {"free_gpu_memory_fraction": fraction},
        **{name: option(f"--{name}") for name in SIZES[:4]},
        **({"enable_chunked_prefill": True} if option("--enable_chunked_prefill") else {}),
    }


def _validated(release: Release, values: Mapping[str, Any]) -> dict[str, Any]:
    known = schema(release.key)["sub_configs"].get("pytorch_backend_config", {}).get("fields", {})
    torch = values.get("pytorch_backend_config")
    unknown = [key for key in torch if key not in known] if isinstance(torch, Mapping) else []
    if release.graphs == "nested" and unknown:
        raise ConfigRefused(f"TypeError: PyTorchConfig.__init__() got an unexpected keyword argument '{unknown[0]}'")
    try:
        return llm_args_class(release.key).model_validate(values).model_dump()
    except ValidationError as error:
        raise ConfigRefused(f"pydantic_core._pydantic_core.ValidationError: {error}") from None


def _sizes(
    release: Release, line: CommandLine, merged: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Note]]:
    """The size limits and what is logged about them."""
    notes: list[Note] = [("W", f"Overriding {name} ") for name in _CONVERTED if given.get(name) is not None]
    if release.sizes == "plain":
        return {name: merged[name] for name in SIZES}, notes
    typed = _from_command_line(line)
    build = {**_BUILD_DEFAULTS, **{name: typed[name] for name in SIZES[:4]}}
    if given.get("build_config"):
        build = {**_BUILD_DEFAULTS, **given["build_config"]}
    if release.sizes == "patched":
        for name in (name for name in SIZES if given.get(name) is not None):
            build[name] = given[name]
            notes.append(("I", f"Overriding {name} from build_config to {given[name]}"))
    sizes = {}
    for name in SIZES:
        top, built = merged[name], build[name]
        if None not in (top, built) and top != built:
            notes.append(("W", f"overriding {name} from build_config"))
        sizes[name] = top if built is None else built
    return sizes, notes


_CONVERTED = ("build_config", "speculative_config", "lora_config", "moe_config")


def _graphs(release: Release, merged: Mapping[str, Any]) -> tuple[tuple[int, ...], bool]:
    """Configured graph sizes (none = off) and whether batches are padded up to them."""
    if release.graphs == "object":
        keys = ("batch_sizes", "max_batch_size", "enable_padding")
        block = merged["cuda_graph_config"]
        on = block is not None
    else:
        keys = ("cuda_graph_batch_sizes", "cuda_graph_max_batch_size", "cuda_graph_padding_enabled")
        block = merged if release.graphs == "flat" else merged.get("pytorch_backend_config") or {}
        on = bool(block.get("use_cuda_graph"))
    if not on:
        return (), False
    sizes, largest, padding = (block.get(key) for key in keys)
    if sizes:
        return tuple(sorted(set(sizes))), bool(padding)
    return ladder(largest or 0, bool(padding), release.ladder), bool(padding)


_QUANTIZED: tuple[tuple[str, Quantization], ...] = (
    (r"fp4", "nvfp4"),
    (r"gpt-oss", "mxfp4"),
    (r"fp8", "fp8"),
    (r"deepseek-(?:v3|r1)", "fp8_block"),
)


def quantization_of(model: str) -> Quantization:
    """Of a checkpoint: as its own files say, else as its name does."""
    config = Path(model) / "hf_quant_config.json"
    name = model
    if config.is_file():
        name = str(json.loads(config.read_text(encoding="utf-8")).get("quantization", {}).get("quant_algo"))
    return next((kind for pattern, kind in _QUANTIZED if re.search(pattern, name, re.IGNORECASE)), "bf16")
