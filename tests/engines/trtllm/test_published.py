"""Published configurations and the deployment guide's own words, read and spelled for every release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.app.exporting import export
from advisor.engines.trtllm.dialects import Dialect, dialect
from advisor.engines.trtllm.documents import flatten, in_yaml
from advisor.engines.trtllm.identify import identify, objections
from advisor.engines.trtllm.migrate import migrate
from advisor.engines.trtllm.read_config import config_from_yaml
from tests.engines.trtllm.builders import EVERY_RELEASE, MAVERICK
from tests.engines.trtllm.published import published

ROWS = tuple(published())

SPOT_CHECKS: dict[str, tuple[str, str, set[tuple[str, ...]], tuple[str, ...]]] = {
    "flags again, where files may not set the size limits": (
        "openai/gpt-oss-120b/B200/1k1k_tp1_conc16.yaml@748a5a198fb3",
        "1.0.0",
        {
            ("dropped", "env_overrides"),
            ("moved", "max_num_tokens", "--max_num_tokens"),
            ("moved", "max_seq_len", "--max_seq_len"),
        },
        ("--max_num_tokens", "20000", "--max_seq_len", "2068"),
    ),
    "flat keys, and graphs that must be asked for": (
        "openai/gpt-oss-120b/B200/1k1k_tp1_conc16.yaml@748a5a198fb3",
        "0.21.0",
        {
            ("dropped", "env_overrides"),
            ("dropped", "stream_interval"),
            ("moved", "cuda_graph_config.enable_padding", "cuda_graph_padding_enabled"),
            ("moved", "cuda_graph_config.max_batch_size", "cuda_graph_max_batch_size"),
            ("moved", "kv_cache_config.dtype", "kv_cache_dtype"),
            ("moved", "moe_config.backend", "moe_backend"),
            ("moved", "max_num_tokens", "--max_num_tokens"),
            ("moved", "max_seq_len", "--max_seq_len"),
            ("added", "use_cuda_graph", "use_cuda_graph"),
        },
        ("--backend", "pytorch", "--max_num_tokens", "20000", "--max_seq_len", "2068"),
    ),
    "a flag's name as a key": (
        "curated/deepseek-r1-throughput.yaml@180e9756f04b",
        "1.2.0",
        {("moved", "kv_cache_free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction")},
        (),
    ),
    "kernels that came later": (
        "curated/nemotron-super-marlin.yaml@18a3318ddc15",
        "1.2.0",
        {("illegal", "moe_config.backend"), ("illegal", "nvfp4_gemm_config.allowed_backends")},
        (),
    ),
    "keys that came later": (
        "curated/qwen3.8-high-throughput.yaml@76b0c1b54f99",
        "1.3.0rc",
        {("dropped", "disable_mm_encoder"), ("dropped", "kv_cache_config.avg_seq_len")},
        (),
    ),
    "another word for the value": (
        "aggregated/host_perf_llama8b_spec_decode.yaml@3fa114151b1c",
        "1.2.0",
        {("changed", "speculative_config.decoding_type", "speculative_config.decoding_type")},
        (),
    ),
    "draft length of MTP, before it had that name": (
        "aggregated/qwen3_5_397b_fp4_blackwell.yaml@847cc6abdec1",
        "1.0.0",
        {
            ("dropped", "batch_wait_max_tokens_ratio"),
            ("dropped", "batch_wait_timeout_iters"),
            ("dropped", "moe_config.use_low_precision_moe_combine"),
            ("moved", "max_batch_size", "--max_batch_size"),
            ("moved", "max_num_tokens", "--max_num_tokens"),
            ("renamed", "speculative_config.max_draft_len", "speculative_config.num_nextn_predict_layers"),
        },
        ("--max_batch_size", "8", "--max_num_tokens", "16384"),
    ),
    "draft length of MTP, by its new name": (
        "curated/deepseek-r1-throughput.yaml@180e9756f04b",
        "1.3.0rc24",
        {
            ("moved", "kv_cache_free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction"),
            ("renamed", "speculative_config.num_nextn_predict_layers", "speculative_config.max_draft_len"),
        },
        (),
    ),
    "a member that moved deeper, and one that nobody published": (
        "agentic/minimaxm3_fp4_b300_trt_mtp.sh@843c6254ff69",
        "main",
        {
            ("moved", "kv_cache_config.block_reuse_policy", "kv_cache_config.block_reuse_config.policy"),
            (
                "unchecked",
                "sparse_attention_config.fuse_qkv_index_projection",
                "sparse_attention_config.fuse_qkv_index_projection",
            ),
        },
        (),
    ),
    "the mapping of the oldest release": (
        "curated/qwen3.yaml@62e51e522c15",
        "0.20.0",
        {
            ("moved", "cuda_graph_config.batch_sizes", "pytorch_backend_config.cuda_graph_batch_sizes"),
            ("moved", "cuda_graph_config.enable_padding", "pytorch_backend_config.cuda_graph_padding_enabled"),
            ("moved", "kv_cache_free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction"),
            ("moved", "max_batch_size", "--max_batch_size"),
            ("moved", "max_num_tokens", "--max_num_tokens"),
            ("moved", "print_iter_log", "pytorch_backend_config.print_iter_log"),
            ("added", "pytorch_backend_config.use_cuda_graph", "pytorch_backend_config.use_cuda_graph"),
        },
        ("--backend", "pytorch", "--max_batch_size", "161", "--max_num_tokens", "1160"),
    ),
}


@pytest.fixture(scope="module")
def one_of_each() -> list[tuple[dict[str, Any], Dialect]]:
    """(document, the dialect it was written in) for every set of keys that somebody published."""
    documents = {tuple(sorted(flatten(document))): document for _, document in ROWS}.values()
    assert len(documents) > 100
    return [(document, dialect(identify(flatten(document)).nearest[-1])) for document in documents]


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_every_published_configuration_is_read_and_spelled(
    release: str, one_of_each: list[tuple[dict[str, Any], Dialect]]
) -> None:
    spoken = dialect(release)
    for document, written_for in one_of_each:
        config_from_yaml(document, spoken, MAVERICK)
        migration = migrate(flatten(document), written_for, spoken)
        assert {each.kind for each in objections(spoken, flatten(migration.document))} <= {"unchecked"}
        config_from_yaml(migration.document, spoken, MAVERICK)


@pytest.mark.parametrize("name", SPOT_CHECKS)
def test_spot_checks_by_hand(name: str, tmp_path: Path) -> None:
    source, release, changes, flags = SPOT_CHECKS[name]
    keys = {path for kind, path, *_ in changes if kind != "added"}
    document = next(found for at, found in ROWS if at.endswith(source) and in_yaml_words(found) >= keys)
    exported = export(written(document, tmp_path), release)
    assert {(each.kind, each.path, *([each.to] if each.to else [])) for each in exported.changes} == changes
    assert exported.flags == flags
    assert yaml.safe_load(exported.yaml) == exported.document


def in_yaml_words(document: dict[str, Any]) -> set[str]:
    return {in_yaml(path) for path in flatten(document)}


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
