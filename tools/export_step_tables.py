"""Regenerate the packaged step tables and GPU facts from NVIDIA AIConfigurator, byte for byte.

Needs the ``aic`` extra (``aiconfigurator-core==0.12.0``, Apache-2.0; no GPU, no network). Usage::

    python tools/export_step_tables.py [--out advisor/twin/tables] [--check]

Writes ``step_tables.bin`` (little-endian float32, uncompressed, so the bytes do not depend on a compressor),
``index.json`` (keys, grids, offsets, memory terms, provenance) and ``gpus.json``; for every engine but TensorRT-LLM the
first two into a folder of its name. ``--check`` compares with what is there and exits 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

AIC_VERSION = "0.12.0"
SLOT = "current"
MEMORY_BACKEND = "trtllm"  # one law of memory: it corrects TensorRT-LLM's terms by engine (advisor/memory/constants.py)


def numbers(text: str) -> list[int]:
    """Whole numbers of a line."""
    return [int(word) for word in text.split()]


TOKENS = numbers(
    "1 2 4 8 16 24 32 48 64 96 128 192 256 384 512 768 1024 1536 2048 3072 4096 5120 6144 8192 10240 "
    "12288 16384 20480 24576 32768 49152 65536"
)
BATCHES = numbers(
    "1 2 3 4 6 8 12 16 24 32 40 48 56 64 80 96 112 128 160 192 256 320 384 512 640 768 896 1024 1280 1536 2048"
)
KV_LENS = [16, 128, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768, 65536, 131072]
CHUNKS = [16, 32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768]
PASTS = [0, 256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 16384, 32768]


class Layout(NamedTuple):
    """Parallel sizes in AIConfigurator's terms: ``tp * attention_dp == moe_tp * moe_ep``, or moe sizes 1 (dense)."""

    tp: int
    attention_dp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1


class Quant(NamedTuple):
    """AIConfigurator's quant-mode names."""

    gemm: str
    moe: str
    kvcache: str
    fmha: str


class Entry(NamedTuple):
    """Tables of one model: every system x layout x quant modes."""

    model: str
    systems: tuple[str, ...]
    layouts: tuple[Layout, ...]
    quants: tuple[Quant, ...]


class Database(NamedTuple):
    """Kernel times of one engine: AIConfigurator's name of it, what people call it, and the release in the slot."""

    backend: str
    title: str
    release: str

    def quants(self, entry: Entry) -> list[Quant]:
        """Quant modes of an entry as this engine runs them: vLLM computes the attention of prompts in bf16."""
        if self.backend != "vllm":
            return list(entry.quants)
        return list(dict.fromkeys(quant._replace(fmha="bfloat16") for quant in entry.quants))


TRTLLM = Database("trtllm", "TensorRT-LLM", "1.3.0rc20")
VLLM = Database("vllm", "vLLM", "0.24.0")  # the slot `next` is 0.27.0, with the same times in all these tables

BF16 = Quant("bfloat16", "bfloat16", "bfloat16", "bfloat16")
BF16_KV8 = Quant("bfloat16", "bfloat16", "fp8", "fp8")
FP8_STATIC = Quant("fp8_static", "fp8", "fp8", "fp8")
FP8_STATIC_KV16 = Quant("fp8_static", "fp8", "bfloat16", "bfloat16")
FP8_DYNAMIC = Quant("fp8", "fp8", "fp8", "fp8")
FP8_BLOCK_KV16 = Quant("fp8_block", "fp8_block", "bfloat16", "bfloat16")
NVFP4 = Quant("nvfp4", "nvfp4", "fp8", "fp8")
DEEPSEEK_FP8 = Quant("fp8_block", "fp8_block", "fp8", "bfloat16")
DEEPSEEK_FP4 = Quant("nvfp4", "nvfp4", "fp8", "bfloat16")
GPTOSS_HOPPER = Quant("bfloat16", "w4a16_mxfp4", "fp8", "bfloat16")
GPTOSS_BLACKWELL = Quant("bfloat16", "w4a8_mxfp4_mxfp8", "fp8", "fp8")
# The same checkpoints with the bf16 cache that they declare themselves.
DEEPSEEK_FP8_KV16 = Quant("fp8_block", "fp8_block", "bfloat16", "bfloat16")
GPTOSS_HOPPER_KV16 = Quant("bfloat16", "w4a16_mxfp4", "bfloat16", "bfloat16")
GPTOSS_BLACKWELL_KV16 = Quant("bfloat16", "w4a8_mxfp4_mxfp8", "bfloat16", "bfloat16")

HOPPER = ("h100_sxm", "h200_sxm")
HOPPER_B200 = ("b200_sxm", "h100_sxm", "h200_sxm")
DENSE = (Layout(1), Layout(2), Layout(4), Layout(8))
MOE_8 = (Layout(8, 1, 1, 8), Layout(1, 8, 1, 8), Layout(8, 1, 8, 1))
MOE_4 = (Layout(4, 1, 1, 4), Layout(1, 4, 1, 4), Layout(4, 1, 4, 1))
MAVERICK = (
    *MOE_8,
    Layout(8, 1, 4, 2),
    Layout(8, 1, 2, 4),
    *MOE_4,
    Layout(4, 1, 2, 2),
    Layout(2, 1, 1, 2),
    Layout(1, 2, 1, 2),
    Layout(2, 1, 2, 1),
)
LLAMA_8B, LLAMA_70B = "meta-llama/Meta-Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-70B"
MAVERICK_MODEL = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"

ENTRIES = (
    Entry(MAVERICK_MODEL, HOPPER_B200, MAVERICK, (FP8_STATIC,)),
    Entry(MAVERICK_MODEL, HOPPER_B200, (Layout(8, 1, 1, 8), Layout(1, 8, 1, 8)), (FP8_STATIC_KV16,)),
    Entry(LLAMA_8B, HOPPER_B200, DENSE, (BF16, BF16_KV8)),
    Entry(LLAMA_8B, ("gb300",), DENSE[:3], (BF16,)),
    Entry(LLAMA_70B, HOPPER_B200, DENSE, (FP8_STATIC, FP8_STATIC_KV16)),
    Entry(LLAMA_70B, ("b200_sxm",), DENSE, (NVFP4,)),
    Entry("Qwen/Qwen3-32B", HOPPER, DENSE, (FP8_DYNAMIC,)),
    Entry("Qwen/Qwen3-32B", ("h100_sxm", "gb300"), DENSE[:3], (FP8_BLOCK_KV16,)),
    Entry(
        "openai/gpt-oss-120b",
        HOPPER,
        (Layout(1), Layout(2, 1, 1, 2), Layout(4, 1, 1, 4), Layout(8, 1, 1, 8)),
        (GPTOSS_HOPPER, GPTOSS_HOPPER_KV16),
    ),
    Entry(
        "openai/gpt-oss-120b",
        ("b200_sxm",),
        (Layout(1), Layout(2, 1, 1, 2), Layout(4, 1, 1, 4), Layout(8, 1, 1, 8)),
        (GPTOSS_BLACKWELL, GPTOSS_BLACKWELL_KV16),
    ),
    Entry("deepseek-ai/DeepSeek-R1", ("b200_sxm",), (*MOE_8, *MOE_4), (DEEPSEEK_FP8, DEEPSEEK_FP4, DEEPSEEK_FP8_KV16)),
    Entry("deepseek-ai/DeepSeek-R1", ("h200_sxm",), MOE_8, (DEEPSEEK_FP8, DEEPSEEK_FP8_KV16)),
)
GPUS = {
    "a100_pcie": "A100 PCIe 80 GB",
    "a100_sxm": "A100 SXM 80 GB",
    "b200_sxm": "B200 SXM",
    "b300_sxm": "B300 SXM",
    "gb200": "GB200 NVL72",
    "gb300": "GB300 NVL72",
    "h100_pcie": "H100 PCIe 80 GB",
    "h100_sxm": "H100 SXM 80 GB",
    "h200_sxm": "H200 SXM",
    "l4": "L4 24 GB",
    "l40s": "L40S 48 GB",
    "rtx_pro_6000_server": "RTX PRO 6000 Blackwell Server Edition",
}

REST, ATTENTION, MOE, LOGITS = range(4)
GIB = 1024**3


def kind(op: str) -> int:
    """Class of one operation: attention goes by KV length, MoE by the tokens of all ranks, logits by sampled rows."""
    if "attention" in op or "mla" in op:
        return ATTENTION
    if "_moe" in op and "norm" not in op:
        return MOE
    return LOGITS if "logits" in op else REST


def split(ops: list[Any]) -> list[float]:
    """Milliseconds by kind."""
    out = [0.0] * 4
    for name, ms, *_ in ops:
        out[kind(name)] += ms
    return out


def step_arrays(engine: Any) -> dict[str, np.ndarray]:
    """The seven step-time tables of one engine, milliseconds."""

    def prefill(chunk: int, past: int) -> list[float]:
        return split(engine.run_static_per_op(batch_size=1, isl=chunk + past, osl=1, prefix=past, mode="static_ctx")[0])

    def decode(batch: int, kv_len: int) -> list[float]:
        return split(
            engine.decode_step_per_op(batch, max(1, kv_len - 1), 1)
        )  # the engine reads kv = isl + osl // 2 + 1

    context = [prefill(t, 0) for t in TOKENS]
    generation = [[decode(b, k) for k in KV_LENS] for b in BATCHES]
    return {
        "ctx_dense_ms": np.array([c[REST] for c in context]),
        "ctx_moe_ms": np.array([c[MOE] for c in context]),
        "ctx_attention_ms": np.array([[prefill(c, p)[ATTENTION] for p in PASTS] for c in CHUNKS]),
        "gen_dense_ms": np.array([g[0][REST] for g in generation]),
        "gen_moe_ms": np.array([g[0][MOE] for g in generation]),
        "gen_attention_ms": np.array([[g[ATTENTION] for g in row] for row in generation]),
        "logits_ms": np.array([g[0][LOGITS] for g in generation]),
    }


def memory_terms(model: str, system: str, sizes: dict[str, Any]) -> dict[str, float]:
    """GiB per GPU; also for layouts that do not fit. Activations are max(floor, slope * max_num_tokens): checked."""
    from aiconfigurator_core.sdk.memory import KVCacheEstimator

    def at(max_num_tokens: int) -> dict[str, Any]:
        estimator = KVCacheEstimator.from_request(
            model, system, MEMORY_BACKEND, SLOT, max_num_tokens=max_num_tokens, max_batch_size=1, **sizes
        )
        breakdown: dict[str, Any] = estimator.breakdown
        return breakdown

    low, high = at(1), at(1 << 17)
    floor, slope = low["activations_bytes"], high["activations_bytes"] / (1 << 17)
    for tokens in (512, 2048, 8192, 32768):
        got = at(tokens)["activations_bytes"]
        assert abs(got - max(floor, slope * tokens)) <= 1e-6 * got, (model, system, tokens, got, floor, slope)
    # AIConfigurator counts communicators by tp alone; under attention DP the same GPUs still talk to each other for
    # the experts.
    communicators = high["comm_overhead_bytes"]
    if sizes["attention_dp_size"] > 1:
        communicators = system_file(system)["misc"]["nccl_mem"][sizes["attention_dp_size"] * sizes["tp_size"]]
    return {
        "weights_gib": high["weights_bytes"] / GIB,
        "activations_floor_gib": floor / GIB,
        "activations_gib_per_token": slope / GIB,
        "runtime_gib": high["runtime_overhead_bytes"] / GIB,
        "comm_gib": communicators / GIB,
        "kv_bytes_per_token": high["kv_size_per_token_bytes"],
        "capacity_gib": high["gpu_memory_capacity_bytes"] / GIB,
    }


def export(database: Database, log: Any) -> tuple[list[dict[str, Any]], bytes]:
    """All tables of an engine: index rows and the float32 blob; what has no kernel data is named on ``log`` only."""
    from aiconfigurator_core.sdk import EngineHandle

    rows: list[dict[str, Any]] = []
    blob = bytearray()
    for entry in ENTRIES:
        for system, layout, quant in itertools.product(entry.systems, entry.layouts, database.quants(entry)):
            check_release(database, system)
            sizes = {f"{name}_size": n for name, n in layout._asdict().items()}
            sizes |= {f"{name}_quant_mode": mode for name, mode in quant._asdict().items()}
            try:
                engine = EngineHandle.compile(
                    entry.model, system, database.backend, backend_version=SLOT, pp_size=1, **sizes
                )
                arrays = step_arrays(engine)
            except (RuntimeError, ValueError) as error:  # no kernel data, or no such layout
                print(f"skipped {database.title} {entry.model} {system} {layout} {quant}: {str(error)[:110]}", file=log)
                continue
            provenance = engine.last_provenance()
            row = {
                "model": entry.model,
                "system": system,
                **layout._asdict(),
                **{f"{k}_quant": v for k, v in quant._asdict().items()},
            }
            row |= {
                "provenance": provenance or "silicon",
                "memory": memory_terms(entry.model, system, sizes),
                "offset": len(blob),
            }
            rows.append(row)
            for name in ARRAYS:
                blob += arrays[name].astype("<f4").tobytes()
    return rows, bytes(blob)


def check_release(database: Database, system: str) -> None:
    """Refuse a wheel whose slot holds another release than the tables are called after."""
    from aiconfigurator_core.sdk.perf_database import get_version_slots

    found = get_version_slots(system, database.backend)[SLOT]
    if found != database.release:
        raise ValueError(f"{system}: slot {SLOT} of {database.backend} is {found}, not {database.release}")


ARRAYS = {
    "ctx_dense_ms": ["tokens"],
    "ctx_moe_ms": ["tokens"],
    "ctx_attention_ms": ["chunks", "pasts"],
    "gen_dense_ms": ["batches"],
    "gen_moe_ms": ["batches"],
    "gen_attention_ms": ["batches", "kv_lens"],
    "logits_ms": ["batches"],
}


def system_file(name: str) -> dict[str, Any]:
    """AIConfigurator's description of one GPU system."""
    import aiconfigurator_core

    spec: dict[str, Any] = yaml.safe_load(
        (Path(aiconfigurator_core.__file__).parent / "systems" / f"{name}.yaml").read_text()
    )
    return spec


def gpu_facts() -> dict[str, Any]:
    """Memory, bandwidth and dense FLOPS per GPU from AIConfigurator's system files."""
    out = {}
    for name, title in GPUS.items():
        spec = system_file(name)
        gpu, node, misc = spec["gpu"], spec["node"], spec["misc"]
        out[name] = {
            "title": title,
            "memory_bytes": gpu["mem_capacity"],
            "memory_gb_per_s": gpu["mem_bw"] / 1e9,
            "bf16_tflops": gpu["bfloat16_tc_flops"] / 1e12,
            "fp8_tflops": gpu["fp8_tc_flops"] / 1e12 if "fp8_tc_flops" in gpu else None,
            "fp4_tflops": gpu["fp4_tc_flops"] / 1e12 if "fp4_tc_flops" in gpu else None,
            "link_gb_per_s": node["intra_node_bw"] / 1e9,
            "sm_version": gpu["sm_version"],
            "runtime_gib": misc["other_mem"] / GIB,
            "comm_gib": {str(tp): size / GIB for tp, size in misc["nccl_mem"].items() if tp <= 8},
        }
    return out


def rendered(log: Any) -> dict[str, bytes]:
    """File name -> bytes of everything this tool writes."""
    gpus = json.dumps({**provenance(TRTLLM), "gpus": gpu_facts()}, indent=1) + "\n"
    return {**tables(TRTLLM, "", log), "gpus.json": gpus.encode(), **tables(VLLM, "vllm/", log)}


def provenance(database: Database) -> dict[str, str]:
    """Where the numbers come from."""
    return {
        "generator": f"tools/export_step_tables.py with aiconfigurator-core {AIC_VERSION}, "
        f"backend {database.backend}, slot {SLOT}",
        "attribution": "Derived from NVIDIA AIConfigurator, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES, "
        "Apache-2.0",
    }


def tables(database: Database, folder: str, log: Any) -> dict[str, bytes]:
    """File name -> bytes of one engine's tables."""
    rows, blob = export(database, log)
    grids = {"tokens": TOKENS, "batches": BATCHES, "kv_lens": KV_LENS, "chunks": CHUNKS, "pasts": PASTS}
    kernels = f"{database.title} {database.release}"
    index = {**provenance(database), "kernels": kernels, "dtype": "<f4", "arrays": ARRAYS, "grids": grids}
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = json.dumps(index, indent=1)[:-2] + ',\n "tables": [\n  ' + lines + "\n ]\n}\n"
    return {f"{folder}step_tables.bin": blob, f"{folder}index.json": text.encode()}


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "advisor" / "twin" / "tables")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when a byte differs")
    args = parser.parse_args()
    if version("aiconfigurator-core") != AIC_VERSION:
        parser.error(f"needs aiconfigurator-core=={AIC_VERSION}, found {version('aiconfigurator-core')}")
    logging.disable(logging.WARNING)
    differs = 0
    for name, data in rendered(sys.stderr).items():
        path = args.out / name
        if args.check:
            same = path.exists() and path.read_bytes() == data
            differs += not same
            print(f"{'same' if same else 'DIFFERS'} {path}")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            print(f"{len(data):>9,} bytes {path}")
    return 1 if differs else 0


if __name__ == "__main__":
    raise SystemExit(main())
