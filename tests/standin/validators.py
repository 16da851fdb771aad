"""The validators of the published schema that can be judged from the values alone, by place and condition.

The keys are the schema's own words, so that a release judges exactly what its file lists. Left out: what needs a GPU
(`dtype bfloat16 below compute capability 8.0`), Python objects, and warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.standin.ladder import ladder

Values = Mapping[str, Any]
Check = Callable[[Values], str | None]


def _when(wrong: Callable[[Values], object], message: str) -> Check:
    """A check with a fixed message; `{n}` in it is what `wrong` returned."""

    def check(values: Values) -> str | None:
        found = wrong(values)
        return message.format(n=found) if found is not False and found is not None else None

    return check


def _below(key: str, least: float, message: str) -> Check:
    def wrong(values: Values) -> object:
        value = values.get(key)
        return value if value is not None and value < least else None

    return _when(wrong, message)


def _any_below(key: str, least: int, message: str) -> Check:
    return _when(lambda values: any(value < least for value in values.get(key) or ()), message)


def _outside(key: str, message: str) -> Check:
    def wrong(values: Values) -> object:
        value = values.get(key)
        return value if value is not None and not 0 <= value <= 1 else None

    return _when(wrong, message)


def _missing(keys: Iterable[str], message: str) -> Check:
    return _when(lambda values: not any(values.get(key) for key in keys), message)


def _balance(key: str) -> Check:
    def wrong(values: Values) -> object:
        return bool(values.get("enable_balance")) and values[key] < 0

    message = f"attention_dp_config.{key} must be greater or equal to 0 when enable_balance is true"
    return _when(wrong, message)


def _both_given(sizes: str, largest: str, padding: str, prefix: str = "") -> Check:
    """Both spellings of the graph sizes are legal only where they say the same."""

    def wrong(values: Values) -> object:
        given, top = values.get(sizes) or [], values.get(largest) or 0
        same = [list(ladder(top, bool(values.get(padding)), rounding)) for rounding in ("floor", "ceil")]
        return bool(given) and bool(top) and sorted(given) not in same

    return _when(wrong, f"Please don't set both {prefix}{sizes} and {prefix}{largest}.")


def _unequal_to_largest(values: Values) -> object:
    given, top = values.get("batch_sizes") or [], values.get("max_batch_size") or 0
    return bool(given) and bool(top) and top != max(given)


def _no_such_file(values: Values) -> object:
    path = values.get("load_balancer")
    return path if isinstance(path, str) and not Path(path).is_file() else None


def _needs_ray(key: str) -> Check:
    def wrong(values: Values) -> object:
        return bool(values.get(key)) and values.get("orchestrator_type") != "ray"

    return _when(wrong, f"{key} is only supported with orchestrator_type='ray'")


def _unknown_backends(values: Values) -> object:
    unknown = set(values.get("allowed_backends") or ()) - {"cutlass", "cublaslt", "cutedsl", "cuda_core"}
    return unknown or None


_NOT_ON_PYTORCH = "Speculation type {tag} does not support backend pytorch"
_SCHEDULE: Mapping[str, Check] = {
    "draft_len_schedule key < 1": _when(
        lambda values: next((key for key in values.get("draft_len_schedule") or {} if key < 1), None),
        "draft_len_schedule: batch size threshold must be >= 1, got {n}",
    ),
    "draft_len_schedule without key 1": _when(
        lambda values: bool(values.get("draft_len_schedule")) and 1 not in values["draft_len_schedule"],
        "draft_len_schedule must include batch_size=1.",
    ),
}
_DRAFT_LENGTH = "Eagle, NGram, DraftTarget or Medusa with max_draft_len <= 0"
_NO_EAGLE = "Path to EAGLE3 weights must be specified."
_MODEL_KEYS = ("speculative_model", "speculative_model_dir")

CHECKS: Mapping[str, Mapping[str, Check]] = {
    "": {
        "stream_interval <= 0": _below("stream_interval", 1, "stream_interval must be positive, got {n}"),
        "batch_wait_timeout_ms < 0": _below("batch_wait_timeout_ms", 0, "batch_wait_timeout_ms must be greater than 0"),
        "batch_wait_timeout_iters < 0": _below(
            "batch_wait_timeout_iters", 0, "batch_wait_timeout_iters must be >= 0, got {n}"
        ),
        "batch_wait_max_tokens_ratio outside 0..1": _outside(
            "batch_wait_max_tokens_ratio", "batch_wait_max_tokens_ratio must be in range [0, 1], got {n}"
        ),
        "cuda_graph_max_batch_size < 0": _below(
            "cuda_graph_max_batch_size", 0, "cuda_graph_max_batch_size must be non-negative"
        ),
        "cuda_graph_batch_sizes given, cuda_graph_max_batch_size != 0 and the list is not the generated ladder": (
            _both_given("cuda_graph_batch_sizes", "cuda_graph_max_batch_size", "cuda_graph_padding_enabled")
        ),
        "ray_worker_extension_cls without orchestrator_type ray": _needs_ray("ray_worker_extension_cls"),
        "ray_placement_config without orchestrator_type ray": _needs_ray("ray_placement_config"),
    },
    "pytorch_backend_config": {
        "pytorch_backend_config.cuda_graph_batch_sizes and cuda_graph_max_batch_size both set": _both_given(
            "cuda_graph_batch_sizes", "cuda_graph_max_batch_size", "cuda_graph_padding_enabled"
        ),
    },
    "cuda_graph_config": {
        "cuda_graph_config.max_batch_size < 0": _below(
            "max_batch_size", 0, "cuda_graph_config.max_batch_size must be non-negative"
        ),
        "cuda_graph_config.batch_sizes given, max_batch_size != 0 and batch_sizes is not the generated ladder": (
            _both_given("batch_sizes", "max_batch_size", "enable_padding", "cuda_graph_config.")
        ),
        "cuda_graph_config.batch_sizes and max_batch_size given and max_batch_size != max(batch_sizes)": _when(
            _unequal_to_largest,
            "CudaGraphConfig.max_batch_size is incompatible with CudaGraphConfig.batch_sizes. When both are provided, "
            "max_batch_size must equal max(batch_sizes).",
        ),
    },
    "kv_cache_config": {
        "kv_cache_config.free_gpu_memory_fraction outside 0..1": _outside(
            "free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction must be a float between 0 and 1"
        ),
        "kv_cache_config.max_gpu_total_bytes < 0": _below(
            "max_gpu_total_bytes", 0, "kv_cache_config.max_gpu_total_bytes must be non-negative"
        ),
        "kv_cache_config.max_attention_window empty": _when(
            lambda values: values.get("max_attention_window") == [],
            "kv_cache_config.max_attention_window must be a non-empty list of positive integers",
        ),
        "kv_cache_config.max_attention_window holds a value <= 0": _any_below(
            "max_attention_window", 1, "kv_cache_config.max_attention_window values must be positive"
        ),
    },
    "attention_dp_config": {
        f"attention_dp_config.enable_balance and {key} < 0": _balance(key)
        for key in ("batching_wait_iters", "timeout_iters")
    },
    "torch_compile_config": {
        "torch_compile_config.capture_num_tokens holds a value <= 0": _any_below(
            "capture_num_tokens", 1, "capture_num_tokens must contain positive ints."
        ),
        "torch_compile_config.max_num_streams < 1": _below(
            "max_num_streams", 1, "torch_compile_config.max_num_streams must be >= 1"
        ),
    },
    "moe_config": {
        "moe load balancer path does not exist": _when(_no_such_file, "MoE load balancer config file not found: {n}"),
    },
    "peft_cache_config": {
        "peft_cache_config.lora_prefetch_dir set": _when(
            lambda values: values.get("lora_prefetch_dir"),
            "lora_prefetch_dir was set to '{n}' while LoRA prefetch is not supported",
        ),
    },
    "nvfp4_gemm_config": {
        "nvfp4_gemm_config.allowed_backends holds an unknown name": _when(
            _unknown_backends, "Invalid backends in allowed_backends: {n}."
        ),
        "nvfp4_gemm_config.allowed_backends empty": _missing(
            ("allowed_backends",), "allowed_backends cannot be empty."
        ),
    },
    **{
        f"speculative_config[{tag}]": {
            "Medusa or Lookahead on PyTorch": _when(lambda values: True, _NOT_ON_PYTORCH.format(tag=tag)),
        }
        for tag in ("Medusa", "Lookahead")
    },
    "speculative_config[Eagle]": {
        "Eagle without draft model": _missing(_MODEL_KEYS, _NO_EAGLE),
        "Eagle without speculative_model": _missing(_MODEL_KEYS, "Draft model must be provided for EAGLE"),
        "Eagle with max_draft_len null or 0": _missing(("max_draft_len",), "max_draft_len must be > 0 for Eagle"),
        **_SCHEDULE,
    },
    "speculative_config[NGram]": {
        _DRAFT_LENGTH: _below("max_draft_len", 1, ""),
        "NGram with max_draft_len null or <= 0": _missing(("max_draft_len",), "max_draft_len must be > 0 for NGram"),
        **_SCHEDULE,
    },
    "speculative_config[DraftTarget]": {
        "DraftTarget without draft model": _missing(_MODEL_KEYS, "Path to draft model must be specified."),
    },
    "speculative_config[Draft_Target]": {
        "Draft_Target without speculative_model": _missing(
            _MODEL_KEYS, "speculative_model must be specified for DraftTarget"
        ),
    },
    "speculative_config[MTP]": {
        "MTP with num_nextn_predict_layers <= 0": _below("num_nextn_predict_layers", 1, ""),
    },
}
"""Class of the schema (`""` = the top) -> condition as the schema words it -> message if it holds."""
