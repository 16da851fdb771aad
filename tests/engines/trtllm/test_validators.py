# ruff: noqa: E501
"""Every validator of every published schema is judged before a launch, or it says here why it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.identify import objections, remarks
from advisor.engines.trtllm.migrate import migrate
from advisor.engines.trtllm.validators import TESTS, findings, validators
from tests.engines.trtllm.builders import EVERY_RELEASE

SCHEMA = Path(__file__).parents[2] / "data" / "trtllm_schema"
RELEASES = ("0.20.0", "0.21.0", "1.0.0", "1.1.0", "1.2.0", "1.3.0rc")
PUBLISHED = [
    (release, entry["condition"], entry["severity"])
    for release in RELEASES
    for entry in json.loads((SCHEMA / f"{release}.json").read_text(encoding="utf-8"))["validators"]
]

# Judged key by key: a file that offends.
BY_OPTION = {
    "load_format not a known name": "load_format: fast",
    "embedding_parallel_mode not a known name": "embedding_parallel_mode: SIDEWAYS",
    "unknown decoding_type": "speculative_config: {decoding_type: Guess}",
    "unknown key in pytorch_backend_config": "pytorch_backend_config: {x: 1}",
    "unknown top-level key": "workspace: a",
    "unknown key inside a sub-config whose extra is forbid": "cuda_graph_config: {padding_enabled: true}",
    "cuda_graph_max_batch_size < 0": "cuda_graph_max_batch_size: -1",
    "cuda_graph_config.max_batch_size < 0": "cuda_graph_config: {max_batch_size: -1}",
    "pytorch_backend_config.cuda_graph_batch_sizes and cuda_graph_max_batch_size both set": (
        "pytorch_backend_config: {cuda_graph_batch_sizes: [1, 2], cuda_graph_max_batch_size: 2}"
    ),
    "cuda_graph_batch_sizes given, cuda_graph_max_batch_size != 0 and the list is not the generated ladder": (
        "{cuda_graph_batch_sizes: [1, 3], cuda_graph_max_batch_size: 3, cuda_graph_padding_enabled: true}"
    ),
    "cuda_graph_config.batch_sizes given, max_batch_size != 0 and batch_sizes is not the generated ladder": (
        "cuda_graph_config: {batch_sizes: [1, 3], max_batch_size: 3, enable_padding: true}"
    ),
    "cuda_graph_config.batch_sizes and max_batch_size given and max_batch_size != max(batch_sizes)": (
        "cuda_graph_config: {batch_sizes: [1, 3], max_batch_size: 4}"
    ),
    "stream_interval <= 0": "stream_interval: 0",
    "torch_compile_config.max_num_streams < 1": "torch_compile_config: {max_num_streams: 0}",
    "batch_wait_timeout_ms < 0": "batch_wait_timeout_ms: -0.5",
    "batch_wait_timeout_iters < 0": "batch_wait_timeout_iters: -1",
    "batch_wait_max_tokens_ratio outside 0..1": "batch_wait_max_tokens_ratio: 1.5",
    "kv_cache_config.free_gpu_memory_fraction outside 0..1": "kv_cache_config: {free_gpu_memory_fraction: 1.01}",
    "kv_cache_config.max_gpu_total_bytes < 0": "kv_cache_config: {max_gpu_total_bytes: -1}",
    "nvfp4_gemm_config.allowed_backends holds an unknown name": "nvfp4_gemm_config: {allowed_backends: [cutlass, x]}",
    "unknown sparse attention algorithm": "sparse_attention_config: {algorithm: guess}",
    "acceptance_window < 0": "speculative_config: {decoding_type: MTP, acceptance_window: -1}",
    "acceptance_length_threshold < 0": "speculative_config: {decoding_type: MTP, acceptance_length_threshold: -1.0}",
    "Lookahead window, ngram or verification size <= 0": (
        "speculative_config: {decoding_type: Lookahead, max_window_size: 0}"
    ),
    "MTP with num_nextn_predict_layers <= 0": "speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 0}",
    "ray_placement_config.per_worker_gpu_share outside (0, 1]": (
        "{orchestrator_type: ray, ray_placement_config: {per_worker_gpu_share: 0.0}}"
    ),
}

ONLY_ON_THE_SERVER = {
    "dtype bfloat16 below compute capability 8.0": "asks the GPU",
    "gpus_per_node unset": "counts the GPUs, and trtllm-serve always fills it",
    "moe load balancer path does not exist": "looks for a file",
    "moe load balancer file cannot be parsed": "reads a file",
    "custom_tokenizer cannot be imported": "imports a module",
}
BY_STATUS = "a field marked beta or prototype is set"

BUILT = "backend: tensorrt, build_config: "
# rule -> (a file that sets it off, one that just does not)
EXAMPLES = {
    "build_config_differs": ("{max_batch_size: 8, build_config: {max_batch_size: 4}}", "build_config: {max_seq_len: 4}"),
    "batch_above_build_config": (f"{{{BUILT}{{max_batch_size: 4}}, max_batch_size: 5}}", f"{{{BUILT}{{max_batch_size: 4}}, max_batch_size: 4}}"),
    "tokens_above_build_config": (f"{{{BUILT}{{max_num_tokens: 4}}, max_num_tokens: 5}}", "{build_config: {max_num_tokens: 4}, max_num_tokens: 5}"),
    "seq_len_not_build_config": (f"{{{BUILT}{{max_seq_len: 4}}, max_seq_len: 3}}", f"{{{BUILT}{{max_seq_len: 4}}, max_seq_len: 4}}"),
    "beam_width_not_build_config": (f"{{{BUILT}{{max_beam_width: 4}}, max_beam_width: 3}}", "max_beam_width: 3"),
    "input_len_not_build_config": (f"{{{BUILT}{{max_input_len: 4}}, max_input_len: 3}}", "max_input_len: 3"),
    "batch_above_tokens": ("{max_batch_size: 65, max_num_tokens: 64}", "{max_batch_size: 64, max_num_tokens: 64}"),
    "lora_ranks_ignored": ("{lora_config: {max_lora_rank: 8}, max_loras: 2}", "max_loras: 2"),
    "lora_dir_empty": ("lora_config: {max_lora_rank: 8}", "lora_config: {lora_dir: [a]}"),
    "enable_lora_ignored": ("{enable_lora: true, lora_config: {lora_dir: [a]}}", "{enable_lora: false, lora_config: {lora_dir: [a]}}"),
    "lora_targets_empty": ("lora_config: {lora_dir: []}", "lora_config: {lora_target_modules: [attn_q]}"),
    "lora_prefetch": ("peft_cache_config: {lora_prefetch_dir: a}", "peft_cache_config: {lora_prefetch_dir: null}"),
    "lora_graphs_with_attention_dp": ("{enable_attention_dp: true, lora_config: {cuda_graph_specialize_lora: true}}", "lora_config: {cuda_graph_specialize_lora: true}"),
    "batching_wait_below_zero": ("attention_dp_config: {enable_balance: true, batching_wait_iters: -1}", "attention_dp_config: {enable_balance: false, batching_wait_iters: -1}"),
    "timeout_below_zero": ("attention_dp_config: {enable_balance: true, timeout_iters: -1}", "attention_dp_config: {enable_balance: true, timeout_iters: 0}"),
    "fraction_of_one": ("kv_cache_config: {free_gpu_memory_fraction: 1.0}", "kv_cache_config: {free_gpu_memory_fraction: 0.99}"),
    "attention_window_empty": ("kv_cache_config: {max_attention_window: []}", "kv_cache_config: {max_attention_window: null}"),
    "attention_window_not_positive": ("kv_cache_config: {max_attention_window: [512, 0]}", "kv_cache_config: {max_attention_window: [1]}"),
    "kv_dtype_not_synced": ("kv_cache_config: {dtype: bfloat16}", "kv_cache_config: {dtype: FP8}"),
    "kv_dtype_of_tensors": ("kv_cache_config: {dtype: bfloat16}", "kv_cache_config: {dtype: nvfp4}"),
    "kv_dtype_unknown": ("kv_cache_config: {dtype: int3}", "kv_cache_config: {dtype: float16}"),
    "packed_mla_rebalanced": ("kv_cache_config: {dtype: fp8_ds_mla, enable_kv_pool_rebalance: true}", "kv_cache_config: {dtype: fp8, enable_kv_pool_rebalance: true}"),
    "disk_cache_without_path": ("kv_cache_config: {disk_cache_size: 1}", "kv_cache_config: {disk_cache_size: 1, disk_cache_path: a}"),
    "pool_ratio_not_positive": ("kv_cache_config: {pool_ratio: [0.0, 1.0]}", "kv_cache_config: {pool_ratio: [0.1, 0.9]}"),
    "pool_ratio_not_one": ("kv_cache_config: {pool_ratio: [0.5, 0.4]}", "kv_cache_config: {pool_ratio: [0.1, 0.2, 0.7]}"),
    "mamba_interval_twice": ("kv_cache_config: {mamba_state_cache_interval: 1, mamba_state_config: {periodic_snapshot_interval: 1}}", "kv_cache_config: {mamba_state_cache_interval: 1}"),
    "connector_incomplete": ("kv_connector_config: {connector_module: a, connector_worker_class: b}", "kv_connector_config: {connector: lmcache}"),
    "scheduler_config_replaced": ("scheduler_config: {capacity_scheduler_policy: MAX_UTILIZATION}", "max_batch_size: 1"),
    "helix_block_size": ("{context_parallel_size: 2, cp_config: {cp_type: HELIX, tokens_per_block: 64}, kv_cache_config: {tokens_per_block: 32}}", "{context_parallel_size: 1, cp_config: {cp_type: HELIX, tokens_per_block: 64}, kv_cache_config: {tokens_per_block: 32}}"),
    "ray_extension_without_ray": ("{ray_worker_extension_cls: a, orchestrator_type: rpc}", "{ray_worker_extension_cls: a, orchestrator_type: ray}"),
    "ray_placement_without_ray": ("ray_placement_config: {defer_workers_init: true}", "{ray_placement_config: {defer_workers_init: true}, orchestrator_type: ray}"),
    "ray_groups_without_bundles": ("{orchestrator_type: ray, ray_placement_config: {placement_bundle_indices: [[0]]}}", "{orchestrator_type: ray, ray_placement_config: {defer_workers_init: true}}"),
    "capture_tokens_not_positive": ("torch_compile_config: {capture_num_tokens: [1, 0]}", "torch_compile_config: {capture_num_tokens: [1]}"),
    "nvfp4_backends_empty": ("nvfp4_gemm_config: {allowed_backends: []}", "nvfp4_gemm_config: {allowed_backends: [cutlass]}"),
    "breakable_with_compile": ("{prefill_cuda_graph_backend: breakable, torch_compile_config: {enable_inductor: true}}", "{prefill_cuda_graph_backend: piecewise, torch_compile_config: {enable_inductor: true}}"),
    "breakable_with_lora": ("{prefill_cuda_graph_backend: breakable, enable_lora: true}", "{prefill_cuda_graph_backend: breakable, enable_lora: false}"),
    "mla_skip_without_trtllm": ("{enable_mla_skip_correction: true, attn_backend: FLASHINFER}", "enable_mla_skip_correction: true"),
    "beam_history_with_async": ("{enable_speculative_beam_history_d2h: true, sampler_force_async_worker: true}", "enable_speculative_beam_history_d2h: true"),
    "checkpoint_loader_ignored": ("{checkpoint_format: HF, checkpoint_loader: {a: 1}}", "{checkpoint_format: HF, checkpoint_loader: null}"),
    "gms_with_load_balancer": ("{load_format: GMS, moe_config: {load_balancer: a.yml}}", "{load_format: auto, moe_config: {load_balancer: a.yml}}"),
    "calibration_without_file": ("layer_wise_benchmarks_config: {calibration_mode: COLLECT, calibration_file_path: ''}", "layer_wise_benchmarks_config: {calibration_mode: COLLECT, calibration_file_path: a}"),
    "encode_and_mm_encoder_only": ("{encode_only: true, mm_encoder_only: true}", "{encode_only: true, mm_encoder_only: false}"),
    "mm_encoder_off_and_only": ("{disable_mm_encoder: true, mm_encoder_only: true}", "disable_mm_encoder: true"),
    "mm_graphs_with_prefetch": ("multimodal_config: {encoder_cuda_graph: {image: {buckets: [[1, 1]]}}, encoder_side_stream_max_ahead: 1}", "multimodal_config: {encoder_cuda_graph: {image: {buckets: [[1, 1]]}}, encoder_side_stream_max_ahead: 0}"),
    "encoder_graphs_without_batch": ("encoder_cuda_graph_config: {max_batch_size: 4}", "{encoder_cuda_graph_config: {max_batch_size: 4}, encoder_max_batch_size: 4}"),
    "sparse_without_algorithm": ("sparse_attention_config: {seq_len_threshold: 1}", "sparse_attention_config: {algorithm: dsa}"),
    "target_sparsity_outside": ("sparse_attention_config: {algorithm: skip_softmax, target_sparsity: {prefill: 0.5, decode: 1.5}}", "sparse_attention_config: {algorithm: skip_softmax, target_sparsity: 1.0}"),
    "indexer_fp4_head_dim": ("sparse_attention_config: {algorithm: dsa, indexer_k_dtype: fp4, index_head_dim: 64}", "sparse_attention_config: {algorithm: dsa, indexer_k_dtype: fp4, index_head_dim: 128}"),
    "speculation_without_type": ("speculative_config: {max_draft_len: 2}", "speculative_config: null"),
    "draft_len_not_positive_0x": ("speculative_config: {decoding_type: Medusa, max_draft_len: 0}", "speculative_config: {decoding_type: MTP, max_draft_len: 0}"),
    "draft_len_not_positive_1x": ("speculative_config: {decoding_type: NGram, max_draft_len: 0}", "speculative_config: {decoding_type: NGram, max_draft_len: 1}"),
    "ngram_size_not_positive": ("speculative_config: {decoding_type: NGram, max_matching_ngram_size: 0}", "speculative_config: {decoding_type: NGram, max_matching_ngram_size: 1}"),
    "speculation_not_on_pytorch": ("speculative_config: {decoding_type: Lookahead, max_window_size: 4}", "speculative_config: {decoding_type: AUTO}"),
    "eagle_without_draft": ("speculative_config: {decoding_type: Eagle, max_draft_len: 3}", "speculative_config: {decoding_type: Eagle, speculative_model_dir: a}"),
    "draft_target_without_draft": ("speculative_config: {decoding_type: DraftTarget, max_draft_len: 3}", "speculative_config: {decoding_type: DraftTarget, speculative_model_dir: a}"),
    "eagle_is_eagle3": ("speculative_config: {decoding_type: Eagle}", "speculative_config: {decoding_type: Eagle3}"),
    "eagle_without_draft_len": ("speculative_config: {decoding_type: Eagle3, speculative_model: a}", "speculative_config: {decoding_type: Eagle3, speculative_model: a, max_draft_len: 1}"),
    "eagle_two_trees": ("speculative_config: {decoding_type: Eagle3, eagle_choices: [[0]], use_dynamic_tree: true}", "speculative_config: {decoding_type: Eagle3, eagle_choices: [[0]], use_dynamic_tree: false}"),
    "eagle_without_speculative_model": ("speculative_config: {decoding_type: Eagle3, max_draft_len: 1}", "speculative_config: {decoding_type: Eagle3, speculative_model_dir: a}"),
    "ngram_without_draft_len": ("speculative_config: {decoding_type: NGram, is_keep_all: true}", "speculative_config: {decoding_type: NGram, max_draft_len: 1}"),
    "draft_target_without_draft_len": ("speculative_config: {decoding_type: Draft_Target, speculative_model: a}", "speculative_config: {decoding_type: Draft_Target, max_draft_len: 1}"),
    "draft_target_without_model": ("speculative_config: {decoding_type: Draft_Target, max_draft_len: 1}", "speculative_config: {decoding_type: Draft_Target, speculative_model: a}"),
    "mtp_layers_for_draft_len": ("speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 1}", "speculative_config: {decoding_type: MTP, max_draft_len: 1}"),
    "mtp_two_models": ("speculative_config: {decoding_type: MTP, mtp_eagle_one_model: false}", "speculative_config: {decoding_type: MTP, mtp_eagle_one_model: true}"),
    "pard_draft_len": ("speculative_config: {decoding_type: PARD, max_draft_len: 0}", "speculative_config: {decoding_type: PARD, max_draft_len: 1}"),
    "mtp_draft_len": ("speculative_config: {decoding_type: MTP, max_draft_len: 0}", "speculative_config: {decoding_type: MTP, max_draft_len: 1}"),
    "sa_without_draft_len": ("speculative_config: {decoding_type: SA}", "speculative_config: {decoding_type: SA, max_draft_len: 1}"),
    "sa_ngram_of_zero": ("speculative_config: {decoding_type: SA, max_matching_ngram_size: 0}", "speculative_config: {decoding_type: SA, max_matching_ngram_size: -1}"),
    "sa_pool_not_on": ("speculative_config: {decoding_type: SA, global_pool_size: 64}", "speculative_config: {decoding_type: SA, global_pool_size: 64, enable_global_pool: true}"),
    "sa_pool_below_batch": ("{max_batch_size: 65, speculative_config: {decoding_type: SA, global_pool_size: 64}}", "{max_batch_size: 64, speculative_config: {decoding_type: SA, global_pool_size: 64}}"),
    "block_draft_len": ("speculative_config: {decoding_type: DFlash, speculative_model: a}", "speculative_config: {decoding_type: DSpark, max_draft_len: 4}"),
    "block_size_not_draft_len": ("speculative_config: {decoding_type: DSpark, max_draft_len: 4, block_size: 5}", "speculative_config: {decoding_type: DSpark, max_draft_len: 4, block_size: 4}"),
    "tree_without_topk": ("speculative_config: {decoding_type: MTP, use_dynamic_tree: true}", "speculative_config: {decoding_type: MTP, use_dynamic_tree: true, dynamic_tree_max_topK: 4}"),
    "save_state_changes": ("speculative_config: {decoding_type: SaveState, output_directory: a}", "speculative_config: {decoding_type: AUTO}"),
    "schedule_batch_below_one": ("speculative_config: {decoding_type: MTP, draft_len_schedule: {'0': 2, '1': 2}}", "speculative_config: {decoding_type: MTP, draft_len_schedule: {'1': 2}}"),
    "schedule_length_below_zero": ("speculative_config: {decoding_type: MTP, draft_len_schedule: {'1': -1}}", "speculative_config: {decoding_type: MTP, draft_len_schedule: {'1': 0}}"),
    "schedule_without_one": ("speculative_config: {decoding_type: MTP, draft_len_schedule: {'4': 2}}", "speculative_config: {decoding_type: MTP, draft_len_schedule: {'1': 3, '4': 2}}"),
    "schedule_first_not_longest": ("speculative_config: {decoding_type: MTP, max_draft_len: 3, draft_len_schedule: {'1': 2}}", "speculative_config: {decoding_type: MTP, max_draft_len: 3, draft_len_schedule: {'1': 3}}"),
    "schedule_smallest_not_longest": ("speculative_config: {decoding_type: MTP, max_draft_len: 3, draft_len_schedule: {'4': 2}}", "speculative_config: {decoding_type: MTP, max_draft_len: 3, draft_len_schedule: {'4': 3}}"),
    "schedule_above_longest": ("speculative_config: {decoding_type: MTP, max_draft_len: 3, draft_len_schedule: {'1': 3, '8': 4}}", "speculative_config: {decoding_type: MTP, max_draft_len: 4, draft_len_schedule: {'1': 4, '8': 4}}"),
    "schedule_with_concurrency": ("speculative_config: {decoding_type: MTP, max_concurrency: 4, draft_len_schedule: {'1': 3}}", "speculative_config: {decoding_type: MTP, draft_len_schedule: {'1': 3}}"),
}  # fmt: skip


def leaves(text: str) -> dict[str, Any]:
    return flatten(yaml.safe_load(text))


@pytest.mark.parametrize(("release", "condition", "severity"), PUBLISHED)
def test_published_validator_is_judged_or_says_why_not(release: str, condition: str, severity: str) -> None:
    rows = {(each.condition, each.severity) for each in validators()[release]}
    if condition in BY_OPTION:
        kinds = {each.kind for each in objections(dialect(release), leaves(BY_OPTION[condition]))}
        assert (severity, "illegal" in kinds) == ("error", True)
    elif condition == BY_STATUS:
        assert any(option.status for option in dialect(release).table.values())
    elif condition not in ONLY_ON_THE_SERVER:
        assert (condition, severity) in rows


def test_nothing_is_listed_in_vain() -> None:
    conditions = {condition for _, condition, _ in PUBLISHED}
    assert set(BY_OPTION) | set(ONLY_ON_THE_SERVER) | {BY_STATUS} <= conditions
    assert tuple(validators()) == EVERY_RELEASE
    named = {each.rule for rows in validators().values() for each in rows}
    assert named == set(TESTS) == set(EXAMPLES)


@pytest.mark.parametrize("rule", TESTS)
def test_rule_tells_a_file_that_offends_from_its_neighbour(rule: str) -> None:
    offending, fine = (leaves(text) for text in EXAMPLES[rule])
    for release, rows in validators().items():
        known = next((each for each in rows if each.rule == rule), None)
        found = {each.rule: path for path, each in findings(release, offending)}
        assert (rule in found) == (known is not None)
        assert rule not in {each.rule for _, each in findings(release, fine)}
        if known is None:
            continue
        below = (f"{found[rule]}.", f"{found[rule]}[")
        assert any(path == found[rule] or path.startswith(below) for path in offending), "the blamed key is in the file"
        said = [each.why for each in objections(dialect(release), offending)]
        if known.severity == "warning":
            said = list(remarks(dialect(release), offending))
        assert any(f'"{known.message}"' in text for text in said)


@pytest.mark.parametrize("rule", TESTS)
def test_migration_takes_out_what_offends(rule: str) -> None:
    for release in EVERY_RELEASE:
        spoken, file = dialect(release), leaves(EXAMPLES[rule][0])
        left = flatten(migrate(file, spoken, spoken).document)
        assert {each.kind for each in objections(spoken, left)} <= {"unchecked"}


def test_marks_of_a_release_are_said_once_with_all_names() -> None:
    said = remarks(dialect("1.2.0"), leaves("{enable_attention_dp: true, max_batch_size: 4, scheduler_config: null, "
                                            "cuda_graph_config: {enable_padding: true, max_batch_size: 4}}"))  # fmt: skip
    assert said == (
        "TensorRT-LLM 1.2.0 calls these beta or prototype, which may change, and says so: enable_attention_dp, "
        "scheduler_config, cuda_graph_config.",
    )
    assert remarks(dialect("0.21.0"), {"enable_attention_dp": True}) == ()


@pytest.mark.parametrize("release", ["1.0.0", "1.2.0", "main"])
def test_lower_case_backend_of_the_cache_transceiver_is_told_the_right_word(release: str) -> None:
    (found,) = objections(dialect(release), leaves("cache_transceiver_config: {backend: ucx}"))
    assert (found.kind, found.why.endswith("not 'ucx': write UCX.")) == ("illegal", True)


junk = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "MTP", "Eagle", "ray", "fp8"])
)
anything = st.recursive(
    junk, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab1"), inner)
)
PATHS = sorted(path for text, _ in EXAMPLES.values() for path in leaves(text))


@given(file=st.dictionaries(st.sampled_from(PATHS), anything, max_size=6), release=st.sampled_from(EVERY_RELEASE))
def test_no_value_breaks_a_rule(file: dict[str, Any], release: str) -> None:
    for path, _ in findings(release, file):
        assert any(leaf == path or leaf.startswith((f"{path}.", f"{path}[")) for leaf in file)
