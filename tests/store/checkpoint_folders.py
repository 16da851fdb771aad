"""Checkpoint folders made of small files that are what they say they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n"
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
MODELOPT_FP8 = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
TENSOR_BYTES = 1000


def safetensors(path: Path, n_bytes: int = TENSOR_BYTES) -> int:
    """A file of one tensor; its size."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}).encode()
    return path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(n_bytes))


def shard(number: int, n_shards: int) -> str:
    return f"model-{number:05d}-of-{n_shards:05d}.safetensors"


def checkpoint(
    folder: Path,
    config: Mapping[str, Any] = LLAMA_8B,
    n_shards: int = 3,
    quantization: Mapping[str, Any] | None = None,
    total_bytes: int | None = None,
) -> Path:
    """A whole checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    if quantization is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    names = [shard(number, n_shards) for number in range(1, n_shards + 1)]
    for name in names:
        safetensors(folder / name)
    index = {
        "metadata": {"total_size": n_shards * TENSOR_BYTES if total_bytes is None else total_bytes},
        "weight_map": {f"layer.{number}.w": name for number, name in enumerate(names)},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def in_cache(cache: Path, model: str, revision: str = "0123456789abcdef") -> Path:
    """The snapshot folder of a model in a hub cache, empty."""
    home = cache / f"models--{model.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    snapshot = home / "snapshots" / revision
    snapshot.mkdir(parents=True)
    return snapshot
