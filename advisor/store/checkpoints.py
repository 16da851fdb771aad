"""A checkpoint folder as it lies on disk: what it says of itself, and whether its weights are all there."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from advisor.domain.deployment import KvCacheDtype, Quantization
from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel
from advisor.domain.units import MIB_BYTES, gib
from advisor.store.yaml_files import read_text

CONFIG = "config.json"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # in the order in which TensorRT-LLM looks for them
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "*.tiktoken")
MAX_INDEX_BYTES = 256 * MIB_BYTES
MAX_TOKENIZER_BYTES = 64 * MIB_BYTES
MAX_HEADER_BYTES = 256 * MIB_BYTES
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# As ModelOpt and TensorRT-LLM name them; the last two are methods of other tools.
_ALGORITHMS: Mapping[str, Quantization] = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_BLOCK_SCALES": "fp8_block",
    "FP8_PB_WO": "fp8_block",
    "NVFP4": "nvfp4",
    "W4A16_MXFP4": "mxfp4",
    "W4A8_MXFP4_FP8": "mxfp4",
    "W4A8_MXFP4_MXFP8": "mxfp4",
    "MXFP4": "mxfp4",
}
_KV_DTYPES: Mapping[str, KvCacheDtype] = {"FP8": "fp8"}


class Checkpoint(StrictModel):
    """What a folder holds. Names of files are relative to it."""

    folder: str
    architecture: str | None = None
    declared_quantization: str | None = Field(
        default=None, description="As the checkpoint says, in capitals; None: none"
    )
    quantization: Quantization | None = Field(default=None, description="The same in advisor's words, if it has any")
    kv_cache_dtype: KvCacheDtype | None = Field(default=None, description="Declared for the KV cache")
    n_weight_files: int = Field(default=0, description="That it should have")
    missing: tuple[str, ...] = Field(default=(), description="Weight files that are not there")
    pointers: tuple[str, ...] = Field(default=(), description="Files that are only pointers of git-lfs")
    damaged: tuple[str, ...] = Field(default=(), description="Weight files shorter than they say")
    weights_gib: float = Field(default=0.0, description="Of the weight files that are there")
    total_gib: float | None = Field(default=None, description="Of all weights, as the index says")
    has_tokenizer: bool = False
    share_with_text: float | None = Field(
        default=None, description="Of the model's token ids, those that tokenizer.json has an entry for; null: not told"
    )
    engine_files: int = Field(default=0, description="Of a built TensorRT engine, which is no checkpoint")
    trouble: str | None = Field(default=None, description="Why it cannot be read")

    @property
    def complete(self) -> bool:
        """True when every weight file is there and whole."""
        return self.n_weight_files > 0 and not (self.missing or self.pointers or self.damaged or self.trouble)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Look at a folder; whatever is wrong with it is said in the answer."""
    try:
        return _read(folder)
    except (BadInput, OSError) as error:
        return Checkpoint(
            folder=str(folder),
            trouble=str(error),
            pointers=(CONFIG,) if is_lfs_pointer(folder / CONFIG) else (),
            engine_files=_engine_files(folder),
        )


def weights_gib(folder: Path) -> float:
    """GiB of the weights: as the index says, else of the files that are there; 0 where there are none."""
    try:
        names, total_bytes = _weight_files(folder)
        return gib(total_bytes or sum((folder / name).stat().st_size for name in names))
    except (BadInput, OSError):
        return 0.0


def share_with_text(folder: Path) -> float | None:
    """Share of a model's token ids for which its `tokenizer.json` has an entry; None where the files do not tell."""
    try:
        vocab_size = _json(folder / CONFIG, MIB_BYTES).get("vocab_size")
        told = _json(folder / TOKENIZERS[0], MAX_TOKENIZER_BYTES)
    except (BadInput, OSError):
        return None
    model, added = told.get("model"), told.get("added_tokens")
    entries = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab_size, int) or vocab_size < 1 or not isinstance(entries, dict | list):
        return None
    # A list is in the order of the ids; a dictionary names them.
    ids = set(range(len(entries)) if isinstance(entries, list) else (n for n in entries.values() if isinstance(n, int)))
    ids.update(
        each["id"]
        for each in (added if isinstance(added, list) else [])
        if isinstance(each, dict) and isinstance(each.get("id"), int)
    )
    return sum(0 <= each < vocab_size for each in ids) / vocab_size


def lacks_text(share: float | None) -> bool:
    """True where a tokenizer has too few entries to be that of the model; vocabularies are padded by less."""
    return share is not None and share < 0.95


def declared_quantization(folder: Path) -> tuple[str | None, Quantization | None]:
    """As a checkpoint declares it, in capitals, and in advisor's words, if it has any.

    Raises:
        BadInput: no readable configuration.
    """
    return _quantization(folder, _json(folder / CONFIG, MIB_BYTES))[:2]


def _read(folder: Path) -> Checkpoint:
    config = _json(folder / CONFIG, MIB_BYTES)
    names, total_bytes = _weight_files(folder)
    declared, quantization, kv_cache_dtype = _quantization(folder, config)
    there = [name for name in names if (folder / name).is_file()]
    pointers = [name for name in there if is_lfs_pointer(folder / name)]
    whole = [name for name in there if name not in pointers]
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    return Checkpoint(
        folder=str(folder),
        architecture=named if isinstance(named, str) else None,
        declared_quantization=declared,
        quantization=quantization,
        kv_cache_dtype=kv_cache_dtype,
        n_weight_files=len(names),
        missing=tuple(name for name in names if name not in there),
        pointers=tuple(pointers),
        damaged=tuple(name for name in whole if is_damaged(folder / name)),
        weights_gib=gib(sum((folder / name).stat().st_size for name in whole)),
        total_gib=None if total_bytes is None else gib(total_bytes),
        has_tokenizer=any(next(folder.glob(pattern), None) for pattern in TOKENIZERS),
        share_with_text=share_with_text(folder),
        engine_files=_engine_files(folder),
    )


def _engine_files(folder: Path) -> int:
    return len(list(folder.glob("*.engine")))


def is_lfs_pointer(path: Path) -> bool:
    """True for the few lines that git leaves where git-lfs did not run."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def is_damaged(path: Path) -> bool:
    """True for a `.safetensors` file that ends before its tensors do, as a broken download leaves it."""
    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as file:
        size, head = path.stat().st_size, file.read(8)
        if len(head) < 8:
            return True
        (header_bytes,) = struct.unpack("<Q", head)
        if not 2 <= header_bytes <= min(size - 8, MAX_HEADER_BYTES):
            return True
        try:
            tensors = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
            return bool(8 + header_bytes + max(ends, default=0) > size)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return True


def _weight_files(folder: Path) -> tuple[list[str], int | None]:
    """Names of the weight files that there should be, and their bytes as an index says."""
    for name in INDEXES:
        if not (folder / name).is_file():
            continue
        index = _json(folder / name, MAX_INDEX_BYTES)
        listed = index.get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(each, str) for each in listed.values()):
            raise BadInput(f"{folder / name} has no weight_map of tensors to files.")
        metadata = index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        return sorted(set(listed.values())), total if isinstance(total, int) else None
    for pattern in WEIGHTS:
        found = sorted(path.name for path in folder.glob(pattern))
        if found:
            return found, None
    return [], None


def _quantization(
    folder: Path, config: Mapping[str, Any]
) -> tuple[str | None, Quantization | None, KvCacheDtype | None]:
    """As declared, in advisor's words, and of the KV cache; ModelOpt's own file is asked before `config.json`."""
    inline = config.get("quantization_config")
    told = inline if isinstance(inline, dict) else {}
    if (folder / "hf_quant_config.json").is_file():
        own = _json(folder / "hf_quant_config.json", MIB_BYTES)
        told = own["quantization"] if isinstance(own.get("quantization"), dict) else own
    elif isinstance(told.get("quantization"), dict):
        told = told["quantization"]
    kv = _word(told.get("kv_cache_quant_algo"))
    if kv is None and isinstance(told.get("kv_cache_scheme"), dict):
        kv = "FP8" if told["kv_cache_scheme"].get("num_bits") == 8 else None
    method, algorithm = _word(told.get("quant_method")), _word(told.get("quant_algo"))
    declared = algorithm or method
    if declared is None:
        return None, "bf16", _KV_DTYPES.get(kv or "")
    if algorithm is None and method == "FP8" and told.get("weight_block_size"):
        declared = "FP8_BLOCK_SCALES"
    return declared, _ALGORITHMS.get(declared), _KV_DTYPES.get(kv or "")


def _word(value: object) -> str | None:
    return value.upper() if isinstance(value, str) and value else None


def _json(path: Path, max_bytes: int) -> dict[str, Any]:
    try:
        told = json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}).") from None
    if not isinstance(told, dict):
        raise BadInput(f"{path} is not a JSON object.")
    return told
