"""What a release refuses or warns about when keys meet: its argument class's own validators, judged before any launch.

The table `validators.csv` has one row each: the condition, upstream's wording in part, and per release `error`,
`warning` or nothing (`=` repeats the cell on its left). What a condition means is the test of the same name below; the
range of a single value stands in `options.csv`. Not here is what only the machine of the server can tell: its GPUs, its
files, its modules.

Facts of NVIDIA TensorRT-LLM (github.com/NVIDIA/TensorRT-LLM), Copyright (c) NVIDIA CORPORATION & AFFILIATES,
Apache-2.0, read from the published pages of each release and, for 1.3.0rc and main, from the source; 1.3.0rc24 has what
both of its neighbours have.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from advisor.domain.strict import StrictModel, parse
from advisor.engines.trtllm.conditions import (
    Leaves,
    Test,
    above,
    all_of,
    any_of,
    below,
    differ,
    empty,
    exceeds,
    given,
    holds,
    is_none_of,
    is_one_of,
    lacks,
    numbers,
    unless,
)


class Validator(StrictModel):
    """One row of the table under one release."""

    rule: str
    condition: str
    message: str
    severity: Literal["error", "warning"]


def findings(release: str, leaves: Leaves) -> Iterator[tuple[str, Validator]]:
    """Every validator of a known release that the leaves of a file set off, with the key to blame."""
    for validator in validators()[release]:
        path = TESTS[validator.rule](leaves)
        if path is not None:
            yield path, validator


@cache
def validators() -> dict[str, tuple[Validator, ...]]:
    """Release to its validators; releases oldest first."""
    text = files("advisor.engines.trtllm").joinpath("validators.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    releases = list(rows.fieldnames or ())[3:]
    found: dict[str, list[Validator]] = {release: [] for release in releases}
    for row in rows:
        cell = ""
        for release in releases:
            cell = cell if row[release] == "=" else row[release]
            if cell:
                fields = {name: row[name] for name in ("rule", "condition", "message")}
                found[release].append(parse(Validator, {**fields, "severity": cell}, "validators.csv"))
    return {release: tuple(each) for release, each in found.items()}


SPECULATION = "speculative_config"
TYPE = f"{SPECULATION}.decoding_type"
SCHEDULE = "draft_len_schedule"


def of(kind: str, member: str) -> str:
    """The path of a member of one kind of speculation."""
    return f"{SPECULATION}[{kind}].{member}"


def _speculates(*kinds: str) -> Test:
    return is_one_of(TYPE, *kinds)


def _no_draft_len(*kinds: str) -> Test:
    """A draft length of zero, less, or none at all."""
    return any_of(*(all_of(_speculates(kind), _not_positive(kind)) for kind in kinds))


def _not_positive(kind: str) -> Test:
    name = kind.replace("_", "")
    return any_of(below(of(name, "max_draft_len"), 1), lacks(SPECULATION, of(name, "max_draft_len")))


def _no_draft_model(kind: str) -> Test:
    name = kind.replace("_", "")
    models = (of(name, "speculative_model"), of(name, "speculative_model_dir"))
    return all_of(_speculates(kind), lacks(SPECULATION, *models))


def _schedule(judge: Callable[[dict[int, float], float | None], bool]) -> Test:
    """What a `draft_len_schedule` (batch size to draft length) says beside its `max_draft_len`."""

    def test(leaves: Leaves) -> str | None:
        for path, schedule in leaves.items():
            if path.endswith(f"].{SCHEDULE}") and (lengths := _lengths(schedule)):
                longest = numbers([leaves.get(path.replace(SCHEDULE, "max_draft_len"))])
                if judge(lengths, longest[0] if longest else None):
                    return path
        return None

    return test


def _schedule_with_concurrency(leaves: Leaves) -> str | None:
    schedules = (path for path in leaves if path.endswith(f"].{SCHEDULE}"))
    return next((path for path in schedules if leaves.get(path.replace(SCHEDULE, "max_concurrency"))), None)


def _lengths(schedule: Any) -> dict[int, float]:
    try:
        return {int(batch): float(length) for batch, length in schedule.items()}
    except (AttributeError, TypeError, ValueError):
        return {}


def _build_config_differs(leaves: Leaves) -> str | None:
    sizes = ("max_batch_size", "max_num_tokens", "max_seq_len", "max_beam_width", "max_input_len")
    return any_of(*(differ(size, f"build_config.{size}") for size in sizes))(leaves)


def _not_one(leaves: Leaves) -> str | None:
    path = "kv_cache_config.pool_ratio"
    ratios = numbers(leaves.get(path))
    return path if ratios and abs(sum(ratios) - 1.0) > 1e-6 else None


def _sparsity_outside(leaves: Leaves) -> str | None:
    path = "sparse_attention_config[skipsoftmax].target_sparsity"
    value = leaves.get(path)
    asked = numbers(value.values() if isinstance(value, Mapping) else [value])
    return path if any(not 0 <= each <= 1 for each in asked) else None


def _kv_dtype(*known: str) -> Test:
    path = "kv_cache_config.dtype"

    def test(leaves: Leaves) -> str | None:
        value = leaves.get(path)
        return path if isinstance(value, str) and value.lower() not in known else None

    return test


KV, LORA, ADP, RAY = "kv_cache_config", "lora_config", "attention_dp_config", "orchestrator_type"
_TENSORS = ("bfloat16", "float16", "float32", "int8", "int32", "int64", "bool")
_CACHES = ("auto", "fp8", "fp8_ds_mla", "nvfp4")
_ELSEWHERE = is_none_of("backend", "pytorch", "_autodeploy")  # the classic engine, which advisor never starts
_LORA_RANKS = any_of(*map(given, ("max_lora_rank", "max_loras", "max_cpu_loras")))

TESTS: dict[str, Test] = {
    "build_config_differs": _build_config_differs,
    "batch_above_build_config": all_of(_ELSEWHERE, exceeds("max_batch_size", "build_config.max_batch_size")),
    "tokens_above_build_config": all_of(_ELSEWHERE, exceeds("max_num_tokens", "build_config.max_num_tokens")),
    "seq_len_not_build_config": all_of(_ELSEWHERE, differ("max_seq_len", "build_config.max_seq_len")),
    "beam_width_not_build_config": all_of(_ELSEWHERE, differ("max_beam_width", "build_config.max_beam_width")),
    "input_len_not_build_config": all_of(_ELSEWHERE, differ("max_input_len", "build_config.max_input_len")),
    "batch_above_tokens": exceeds("max_batch_size", "max_num_tokens"),
    "lora_ranks_ignored": all_of(given(LORA), _LORA_RANKS),
    "lora_dir_empty": all_of(given(LORA), any_of(empty(f"{LORA}.lora_dir"), lacks(LORA, f"{LORA}.lora_dir"))),
    "enable_lora_ignored": all_of(given(LORA), is_one_of("enable_lora", True)),
    "lora_targets_empty": all_of(
        given(LORA),
        any_of(empty(f"{LORA}.lora_dir"), lacks(LORA, f"{LORA}.lora_dir")),
        any_of(empty(f"{LORA}.lora_target_modules"), lacks(LORA, f"{LORA}.lora_target_modules")),
    ),
    "lora_prefetch": given("peft_cache_config.lora_prefetch_dir"),
    "lora_graphs_with_attention_dp": all_of(
        is_one_of("enable_attention_dp", True), is_one_of(f"{LORA}.cuda_graph_specialize_lora", True)
    ),
    "batching_wait_below_zero": all_of(
        is_one_of(f"{ADP}.enable_balance", True), below(f"{ADP}.batching_wait_iters", 0)
    ),
    "timeout_below_zero": all_of(is_one_of(f"{ADP}.enable_balance", True), below(f"{ADP}.timeout_iters", 0)),
    "fraction_of_one": is_one_of(f"{KV}.free_gpu_memory_fraction", 1.0, 1),
    "attention_window_empty": empty(f"{KV}.max_attention_window"),
    "attention_window_not_positive": holds(f"{KV}.max_attention_window", lambda window: window <= 0),
    "kv_dtype_not_synced": _kv_dtype("auto", "fp8"),
    "kv_dtype_of_tensors": all_of(_kv_dtype(*_CACHES), unless(_kv_dtype(*_CACHES, *_TENSORS), f"{KV}.dtype")),
    "kv_dtype_unknown": _kv_dtype(*_CACHES, *_TENSORS),
    "packed_mla_rebalanced": all_of(
        is_one_of(f"{KV}.dtype", "fp8_ds_mla"), is_one_of(f"{KV}.enable_kv_pool_rebalance", True)
    ),
    "disk_cache_without_path": all_of(
        above(f"{KV}.disk_cache_size", 0), lacks(f"{KV}.disk_cache_size", f"{KV}.disk_cache_path")
    ),
    "pool_ratio_not_positive": holds(f"{KV}.pool_ratio", lambda ratio: ratio <= 0),
    "pool_ratio_not_one": _not_one,
    "mamba_interval_twice": all_of(
        given(f"{KV}.mamba_state_config.periodic_snapshot_interval"), given(f"{KV}.mamba_state_cache_interval")
    ),
    "connector_incomplete": all_of(
        given("kv_connector_config"),
        lacks("kv_connector_config", "kv_connector_config.connector"),
        any_of(
            *(
                lacks("kv_connector_config", f"kv_connector_config.connector_{part}")
                for part in ("module", "scheduler_class", "worker_class")
            )
        ),
    ),
    "scheduler_config_replaced": given("scheduler_config"),
    "helix_block_size": all_of(
        is_one_of("cp_config.cp_type", "HELIX", "helix"),
        above("context_parallel_size", 1),
        differ("cp_config.tokens_per_block", f"{KV}.tokens_per_block"),
    ),
    "ray_extension_without_ray": all_of(
        given("ray_worker_extension_cls"), unless(is_one_of(RAY, "ray"), "ray_worker_extension_cls")
    ),
    "ray_placement_without_ray": all_of(
        given("ray_placement_config"), unless(is_one_of(RAY, "ray"), "ray_placement_config")
    ),
    "ray_groups_without_bundles": any_of(
        *(
            all_of(given(one), lacks(one, other))
            for one, other in (
                ("ray_placement_config.placement_groups", "ray_placement_config.placement_bundle_indices"),
                ("ray_placement_config.placement_bundle_indices", "ray_placement_config.placement_groups"),
            )
        )
    ),
    "capture_tokens_not_positive": holds("torch_compile_config.capture_num_tokens", lambda tokens: tokens <= 0),
    "nvfp4_backends_empty": empty("nvfp4_gemm_config.allowed_backends"),
    "breakable_with_compile": all_of(
        given("torch_compile_config"), is_one_of("prefill_cuda_graph_backend", "breakable")
    ),
    "breakable_with_lora": all_of(
        any_of(given(LORA), is_one_of("enable_lora", True)), is_one_of("prefill_cuda_graph_backend", "breakable")
    ),
    "mla_skip_without_trtllm": all_of(
        is_none_of("attn_backend", "TRTLLM", "trtllm"), is_one_of("enable_mla_skip_correction", True)
    ),
    "beam_history_with_async": all_of(
        is_one_of("sampler_force_async_worker", True), is_one_of("enable_speculative_beam_history_d2h", True)
    ),
    "checkpoint_loader_ignored": all_of(given("checkpoint_format"), given("checkpoint_loader")),
    "gms_with_load_balancer": all_of(is_one_of("load_format", "GMS", "gms"), given("moe_config.load_balancer")),
    "calibration_without_file": all_of(
        is_one_of("layer_wise_benchmarks_config.calibration_mode", "COLLECT"),
        any_of(
            empty("layer_wise_benchmarks_config.calibration_file_path"),
            lacks(
                "layer_wise_benchmarks_config.calibration_mode", "layer_wise_benchmarks_config.calibration_file_path"
            ),
        ),
    ),
    "encode_and_mm_encoder_only": all_of(is_one_of("encode_only", True), is_one_of("mm_encoder_only", True)),
    "mm_encoder_off_and_only": all_of(is_one_of("disable_mm_encoder", True), is_one_of("mm_encoder_only", True)),
    "mm_graphs_with_prefetch": all_of(
        given("multimodal_config.encoder_cuda_graph"), above("multimodal_config.encoder_side_stream_max_ahead", 0)
    ),
    "encoder_graphs_without_batch": all_of(
        given("encoder_cuda_graph_config"), lacks("encoder_cuda_graph_config", "encoder_max_batch_size")
    ),
    "sparse_without_algorithm": all_of(
        given("sparse_attention_config"), lacks("sparse_attention_config", "sparse_attention_config.algorithm")
    ),
    "target_sparsity_outside": _sparsity_outside,
    "indexer_fp4_head_dim": any_of(
        *(
            all_of(
                is_one_of(f"sparse_attention_config[{kind}].indexer_k_dtype", "fp4"),
                is_none_of(f"sparse_attention_config[{kind}].index_head_dim", 128),
            )
            for kind in ("dsa", "deepseekv4")
        )
    ),
    "speculation_without_type": all_of(given(SPECULATION), lacks(SPECULATION, TYPE)),
    "draft_len_not_positive_0x": any_of(*(below(of(kind, "max_draft_len"), 1) for kind in ("Eagle", "Medusa"))),
    "draft_len_not_positive_1x": any_of(
        *(below(of(kind, "max_draft_len"), 1) for kind in ("Eagle", "NGram", "DraftTarget", "Medusa"))
    ),
    "ngram_size_not_positive": below(of("NGram", "max_matching_ngram_size"), 1),
    "speculation_not_on_pytorch": all_of(_speculates("Medusa", "Lookahead"), given(SPECULATION)),
    "eagle_without_draft": _no_draft_model("Eagle"),
    "draft_target_without_draft": _no_draft_model("DraftTarget"),
    "eagle_is_eagle3": _speculates("Eagle"),
    "eagle_without_draft_len": _no_draft_len("Eagle", "Eagle3"),
    "eagle_two_trees": any_of(
        *(
            all_of(given(of(kind, "eagle_choices")), is_one_of(of(kind, "use_dynamic_tree"), True))
            for kind in ("Eagle", "Eagle3")
        )
    ),
    "eagle_without_speculative_model": any_of(_no_draft_model("Eagle"), _no_draft_model("Eagle3")),
    "ngram_without_draft_len": _no_draft_len("NGram"),
    "draft_target_without_draft_len": _no_draft_len("Draft_Target"),
    "draft_target_without_model": _no_draft_model("Draft_Target"),
    "mtp_two_models": is_one_of(of("MTP", "mtp_eagle_one_model"), False),
    "pard_draft_len": below(of("PARD", "max_draft_len"), 1),
    "mtp_draft_len": any_of(below(of("MTP", "max_draft_len"), 1), below(of("MTP", "num_nextn_predict_layers"), 1)),
    "mtp_layers_for_draft_len": given(of("MTP", "num_nextn_predict_layers")),
    "sa_without_draft_len": _no_draft_len("SA"),
    "sa_ngram_of_zero": is_one_of(of("SA", "max_matching_ngram_size"), 0),
    "sa_pool_not_on": all_of(
        given(of("SA", "global_pool_size")),
        unless(is_one_of(of("SA", "enable_global_pool"), True), of("SA", "global_pool_size")),
    ),
    "sa_pool_below_batch": all_of(
        exceeds("max_batch_size", of("SA", "global_pool_size")), given(of("SA", "global_pool_size"))
    ),
    "block_draft_len": _no_draft_len("DFlash", "DSpark"),
    "block_size_not_draft_len": differ(of("DSpark", "block_size"), of("DSpark", "max_draft_len")),
    "tree_without_topk": any_of(
        *(
            all_of(
                is_one_of(of(kind, "use_dynamic_tree"), True),
                any_of(
                    below(of(kind, "dynamic_tree_max_topK"), 1),
                    lacks(of(kind, "use_dynamic_tree"), of(kind, "dynamic_tree_max_topK")),
                ),
            )
            for kind in ("Eagle", "Eagle3", "MTP")
        )
    ),
    "save_state_changes": _speculates("SaveState"),
    "schedule_batch_below_one": _schedule(lambda lengths, longest: min(lengths) < 1),
    "schedule_length_below_zero": _schedule(lambda lengths, longest: min(lengths.values()) < 0),
    "schedule_without_one": _schedule(lambda lengths, longest: 1 not in lengths),
    "schedule_first_not_longest": _schedule(
        lambda lengths, longest: longest is not None and lengths.get(1, longest) != longest
    ),
    "schedule_smallest_not_longest": _schedule(
        lambda lengths, longest: longest is not None and lengths[min(lengths)] != longest
    ),
    "schedule_above_longest": _schedule(
        lambda lengths, longest: longest is not None and max(lengths.values()) > longest
    ),
    "schedule_with_concurrency": _schedule_with_concurrency,
}
