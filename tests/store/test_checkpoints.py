"""A checkpoint folder says what it is, and whether it is whole; nothing in it can do harm."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.units import gib
from advisor.store.checkpoints import is_damaged, read_checkpoint
from tests.store.checkpoint_folders import (
    LFS_POINTER,
    LLAMA_8B,
    MODELOPT_FP8,
    TENSOR_BYTES,
    checkpoint,
    safetensors,
    shard,
)


def test_a_whole_checkpoint(tmp_path: Path) -> None:
    found = read_checkpoint(checkpoint(tmp_path / "model"))
    assert found.complete
    assert (found.architecture, found.n_weight_files, found.has_tokenizer) == ("LlamaForCausalLM", 3, True)
    assert (found.declared_quantization, found.quantization, found.kv_cache_dtype) == (None, "bf16", None)
    assert found.total_gib == gib(3 * TENSOR_BYTES)
    assert found.weights_gib >= found.total_gib


@pytest.mark.parametrize(
    ("tokenizer", "share"),
    [
        ({"model": {"vocab": {"a": 0, "b": 1, "c": 5}}, "added_tokens": [{"id": 2}, {"id": 1}]}, 0.4),
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}, 0.2),
        ({"model": {"vocab": {"a": 0, "far": 10}}, "added_tokens": [{"id": "x"}, 3]}, 0.1),
        ({"model": {}}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_share_of_ids_that_a_tokenizer_has_an_entry_for(tmp_path: Path, tokenizer: object, share: float) -> None:
    folder = checkpoint(tmp_path / "model", {**LLAMA_8B, "vocab_size": 10})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read_checkpoint(folder).share_with_text == share
    (folder / "tokenizer.json").unlink()
    assert read_checkpoint(folder).share_with_text is None


def test_one_file_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    size = safetensors(tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path)
    assert found.complete
    assert (found.n_weight_files, found.total_gib, found.weights_gib) == (1, None, gib(size))
    assert not found.has_tokenizer


@pytest.mark.parametrize("harm", ["missing", "pointers", "damaged"])
def test_weights_that_are_not_there(tmp_path: Path, harm: str) -> None:
    folder, name = checkpoint(tmp_path / "model"), shard(2, 3)
    if harm == "missing":
        (folder / name).unlink()
    elif harm == "pointers":
        (folder / name).write_text(LFS_POINTER)
    else:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1])
    found = read_checkpoint(folder)
    assert not found.complete
    listed = {"missing": found.missing, "pointers": found.pointers, "damaged": found.damaged}
    assert listed == {kind: (name,) if kind == harm else () for kind in listed}


def test_a_broken_link_of_the_cache_is_a_missing_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / shard(1, 3)).unlink()
    (folder / shard(1, 3)).symlink_to("../blobs/gone")
    assert read_checkpoint(folder).missing == (shard(1, 3),)


@pytest.mark.parametrize(
    ("own", "inline", "declared", "quantization", "kv_cache_dtype"),
    [
        (MODELOPT_FP8, None, "FP8", "fp8", "fp8"),
        ({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None}}, None, "NVFP4", "nvfp4", None),
        (MODELOPT_FP8, {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8", "fp8", "fp8"),
        (None, {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8_BLOCK_SCALES", "fp8_block", None),
        (None, {"quant_method": "fp8"}, "FP8", "fp8", None),
        (None, {"quant_method": "mxfp4"}, "MXFP4", "mxfp4", None),
        (None, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4", "nvfp4", None),
        (None, {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}, "FP8", "fp8", "fp8"),
        (
            None,
            {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8}},
            "FP8",
            "fp8",
            "fp8",
        ),
        (None, {"quant_method": "awq", "bits": 4}, "AWQ", None, None),
        (None, {}, None, "bf16", None),
    ],
)
def test_quantization_as_declared(
    tmp_path: Path,
    own: dict[str, Any] | None,
    inline: dict[str, Any] | None,
    declared: str | None,
    quantization: str | None,
    kv_cache_dtype: str | None,
) -> None:
    config = LLAMA_8B if inline is None else {**LLAMA_8B, "quantization_config": inline}
    found = read_checkpoint(checkpoint(tmp_path / "model", config, quantization=own))
    assert found.declared_quantization == declared
    assert found.quantization == quantization
    assert found.kv_cache_dtype == kv_cache_dtype


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.json", None, "no file"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "[" * 100_000, "not JSON"),
        ("config.json", b"\xff\xfe", "not UTF-8"),
        ("config.json", " " * (1 << 20) + "{}", "larger than"),
        ("model.safetensors.index.json", "{}", "no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"w": 1}}', "no weight_map"),
        ("hf_quant_config.json", "nonsense", "not JSON"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, text: str | bytes | None, words: str) -> None:
    folder = checkpoint(tmp_path / "model")
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_checkpoint(folder)
    assert not found.complete
    assert name in str(found.trouble)
    assert words in str(found.trouble)


def test_a_clone_without_lfs_and_a_built_engine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(LFS_POINTER)
    (tmp_path / "rank0.engine").touch()
    found = read_checkpoint(tmp_path)
    assert (found.pointers, found.engine_files) == (("config.json",), 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("architectures", "quantization_config", "quantization", "quant_algo", "quant_method", "kv_cache_scheme")


@settings(max_examples=40)
@given(
    config=st.dictionaries(st.sampled_from(KEYS), JSON),
    own=st.dictionaries(st.sampled_from(KEYS), JSON),
    index=st.fixed_dictionaries({}, optional={"metadata": JSON, "weight_map": JSON}),
)
def test_whatever_the_files_say_nothing_is_raised(
    config: dict[str, Any], own: dict[str, Any], index: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "hf_quant_config.json").write_text(json.dumps(own))
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert not read_checkpoint(folder).complete


@settings(max_examples=40)
@given(cut=st.integers(0, TENSOR_BYTES + 100), junk=st.binary(max_size=32))
def test_a_file_is_damaged_when_anything_is_cut_off(cut: int, junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        size = safetensors(path)
        data = path.read_bytes()
        path.write_bytes(data[: size - cut])
        assert is_damaged(path) == (cut > 0)
        path.write_bytes(junk)
        assert is_damaged(path)


def test_a_file_of_another_kind_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert not is_damaged(tmp_path / "pytorch_model.bin")
