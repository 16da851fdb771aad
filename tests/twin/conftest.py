"""Made-up tables whose every time is a round number, and the packaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import advisor
from advisor.memory.terms import MemoryTerms
from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.layout import Layout, QuantModes, TableKey, layout_of, quant_modes
from advisor.twin.step_tables import StepTables, TableSet
from advisor.twin.step_times import StepTimes

TERMS = MemoryTerms(
    weights_gib=40.0,
    activations_floor_gib=0.1,
    activations_gib_per_token=1e-4,
    runtime_gib=3.5,
    comm_gib=0.4,
    kv_bytes_per_token=65536.0,
    capacity_gib=80.0,
    vocab_size=128_000,
)
QUIET = TwinConstants(
    host_base_ms=0.0, host_per_seq_ms=0.0, stream_per_chunk_ms=0.0, eager_ms_per_layer=0.0, ttft_fixed_ms=0.0
)
MakeTimes = Callable[..., StepTimes]


def linear_tables(
    *,
    decode_ms: float = 4.0,
    per_row_ms: float = 0.0,
    per_kv_token_ms: float = 0.0,
    per_token_ms: float = 0.01,
    moe_per_token_ms: float = 0.0,
    attention_per_token_ms: float = 0.0,
) -> StepTables:
    """Step times that are straight lines: a decode step takes decode_ms + per_row_ms x b + per_kv_token_ms x b x kv."""
    tokens = np.array([0.0, 100.0, 100_000.0])
    batches = np.array([0.0, 8.0, 4096.0])
    kv_lens = np.array([0.0, 512.0, 2048.0, 100_000.0])
    chunks, pasts = np.array([0.0, 100_000.0]), np.array([0.0, 100_000.0])
    return StepTables(
        key=TableKey("made/up", "h100_sxm", Layout(1), QuantModes("bfloat16", "bfloat16", "bfloat16", "bfloat16")),
        data_source="tables",
        memory=TERMS,
        tokens=tokens,
        batches=batches,
        kv_lens=kv_lens,
        chunks=chunks,
        pasts=pasts,
        ctx_dense_ms=per_token_ms * tokens,
        ctx_moe_ms=moe_per_token_ms * tokens,
        ctx_attention_ms=np.tile(attention_per_token_ms * chunks[:, None], (1, 2)),
        gen_dense_ms=decode_ms + per_row_ms * batches,
        gen_moe_ms=moe_per_token_ms * batches,
        gen_attention_ms=per_kv_token_ms * batches[:, None] * kv_lens[None, :],
        logits_ms=np.zeros(3),
    )


@pytest.fixture(scope="session")
def make_times() -> MakeTimes:
    """Step times of `linear_tables` with the given coefficients; host and launch cost nothing unless asked for."""

    def make(
        constants: TwinConstants = QUIET, n_layers: int = 10, own_http_process: bool = False, **coefficients: float
    ) -> StepTimes:
        return StepTimes(linear_tables(**coefficients), n_layers, constants, own_http_process)

    return make


@pytest.fixture(scope="session")
def packaged() -> TableSet:
    """The tables that ship with advisor."""
    return tables_in(Path(advisor.__file__).parent / "twin" / "tables")


@pytest.fixture(scope="session")
def packaged_vllm() -> TableSet:
    """Those of vLLM."""
    return tables_in(Path(advisor.__file__).parent / "twin" / "tables" / "vllm")


def tables_in(folder: Path) -> TableSet:
    """The tables of a folder."""
    return TableSet((folder / "index.json").read_bytes(), (folder / "step_tables.bin").read_bytes())


@pytest.fixture(scope="session")
def maverick_times(packaged: TableSet) -> Callable[[str, bool], StepTimes]:
    """Packaged tables of Llama-4-Maverick FP8 on eight GPUs, with the reference prototype's host time."""
    model = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
    constants = TwinConstants(host_per_seq_ms=0.012, stream_per_chunk_ms=0.0)
    assert NOMINAL.host_per_seq_ms + NOMINAL.stream_per_chunk_ms == pytest.approx(0.012)

    def times(gpu: str, attention_dp: bool) -> StepTimes:
        layout = layout_of(tp=8, ep=8, attention_dp=attention_dp, is_moe=True)
        key = TableKey(model, gpu, layout, quant_modes(model, "fp8", "fp8", gpu))
        return StepTimes(packaged[key], 48, constants)

    return times
