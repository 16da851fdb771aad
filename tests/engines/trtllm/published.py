"""The published configurations of `tests/data/curated_configs` as the files that their authors wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "data" / "curated_configs" / "configs.csv"
NOT_IN_A_FILE = {"cli_custom_tokenizer", "concurrencies", "env", "label", "spec", "workers"}
PATHS = {
    "tp": "tensor_parallel_size",
    "ep": "moe_expert_parallel_size",
    "pp": "pipeline_parallel_size",
    "attention_dp": "enable_attention_dp",
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "max_seq_len": "max_seq_len",
    "cuda_graph_max_batch_size": "cuda_graph_config.max_batch_size",
    "cuda_graph_padding": "cuda_graph_config.enable_padding",
    "cuda_graph_batch_sizes": "cuda_graph_config.batch_sizes",
    "kv_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "kv_dtype": "kv_cache_config.dtype",
    "stream_interval": "stream_interval",
    "chunked_prefill": "enable_chunked_prefill",
    "moe_backend": "moe_config.backend",
}


def published() -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, document) of every row."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["source"], document(row)


def document(row: dict[str, str]) -> dict[str, Any]:
    """A row as a file in the spelling of its time."""
    other = json.loads(row["other"] or "{}")
    found = {name.removeprefix("top_level_"): value for name, value in other.items() if name not in NOT_IN_A_FILE}
    for column, path in PATHS.items():
        if row[column] and not (column == "kv_fraction" and "top_level_kv_cache_free_gpu_memory_fraction" in other):
            top, _, member = path.partition(".")
            value = row[column] if column in ("kv_dtype", "moe_backend") else json.loads(row[column])
            if member:
                found[top] = {**(found.get(top) or {}), member: value}
            else:
                found[top] = value
    return found
