"""Interpolation against NumPy and exact functions; the packaged tables against the reference prototype's figures."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.twin.layout import Layout, QuantModes, TableKey
from advisor.twin.step_tables import TableSet, interp, interp2
from advisor.twin.step_times import StepTimes

GRID = np.array([1.0, 2.0, 4.0, 8.0, 64.0, 1000.0])


@given(st.lists(st.floats(0.0, 100.0), min_size=6, max_size=6), st.floats(1.0, 1000.0))
def test_inside_the_grid_it_is_numpys_interpolation(values: list[float], x: float) -> None:
    assert float(interp(GRID, np.array(values), x)) == pytest.approx(float(np.interp(x, GRID, values)), abs=1e-9)


def test_outside_the_grid_the_last_segment_goes_on_but_never_below_zero() -> None:
    values = np.array([5.0, 4.0, 3.0, 4.0, 6.0, 10.0])
    assert float(interp(GRID, values, 1936.0)) == pytest.approx(14.0)
    assert float(interp(GRID, values, 0.0)) == pytest.approx(6.0)
    assert float(interp(GRID, 10.0 - values, 1e6)) == 0.0


@given(
    a=st.floats(0, 10),
    b=st.floats(0, 1),
    c=st.floats(0, 1),
    d=st.floats(0, 0.01),
    x=st.floats(0, 2000),
    y=st.floats(0, 2000),
)
def test_bilinear_functions_come_back_exactly(a: float, b: float, c: float, d: float, x: float, y: float) -> None:
    gx, gy = GRID[:, None], GRID[None, :]
    expected = a + b * x + c * y + d * x * y
    assert float(interp2(GRID, GRID, a + b * gx + c * gy + d * gx * gy, x, y)) == pytest.approx(
        expected, rel=1e-9, abs=1e-6
    )


def test_tables_come_back_as_they_were_written() -> None:
    memory = dict.fromkeys(
        ("weights_gib", "activations_floor_gib", "activations_gib_per_token", "runtime_gib", "comm_gib"), 1.0
    ) | {"kv_bytes_per_token": 64.0, "capacity_gib": 80.0}
    axes = {"ctx_dense_ms": ["tokens"], "ctx_moe_ms": ["tokens"], "ctx_attention_ms": ["chunks", "pasts"]}
    axes |= {"gen_dense_ms": ["batches"], "gen_moe_ms": ["batches"], "gen_attention_ms": ["batches", "kv_lens"]}
    axes |= {"logits_ms": ["batches"]}
    grids = {"tokens": [1, 2], "batches": [1, 2, 3], "kv_lens": [1, 2], "chunks": [1, 2], "pasts": [0, 1]}
    blob, tables, n = b"", [], 2 + 2 + 4 + 3 + 3 + 6 + 3
    for i, model in enumerate(("a", "b")):
        row = {"model": model, "system": "gpu", "tp": 1, "attention_dp": 1, "moe_tp": 1, "moe_ep": 1, "memory": memory}
        quants = {f"{name}_quant": "bfloat16" for name in ("gemm", "moe", "kvcache", "fmha")}
        tables.append({**row, **quants, "offset": len(blob)})
        blob += np.arange(100 * i, 100 * i + n, dtype="<f4").tobytes()
    index = {
        "generator": "me",
        "kernels": "my engine 1.0",
        "attribution": "nobody",
        "dtype": "<f4",
        "arrays": axes,
        "grids": grids,
        "tables": tables,
    }
    read = TableSet(json.dumps(index).encode(), blob)
    table = read[TableKey("b", "gpu", Layout(), QuantModes(*["bfloat16"] * 4))]
    assert table.ctx_dense_ms.tolist() == [100, 101]
    assert table.gen_attention_ms.tolist() == [[114, 115], [116, 117], [118, 119]]
    assert table.logits_ms.tolist() == [120, 121, 122]
    assert table.kernels == "my engine 1.0"
    assert len(read) == 2


def test_packaged_tables_are_whole(packaged: TableSet, packaged_vllm: TableSet) -> None:
    assert packaged_vllm.kernels.startswith("vLLM")
    for tables in (packaged, packaged_vllm):
        check_whole(tables)


def check_whole(tables: TableSet) -> None:
    assert "Apache-2.0" in tables.attribution
    assert len(tables) > 100
    for table in tables.values():
        for name in ("ctx_dense_ms", "ctx_attention_ms", "gen_dense_ms", "gen_attention_ms", "logits_ms"):
            values = getattr(table, name)
            assert np.isfinite(values).all()
            assert (values > 0).all()
        assert 0 < table.memory.weights_gib < 400
        assert table.memory.kv_bytes_per_token > 0


def test_both_engines_have_the_same_memory_terms(packaged: TableSet, packaged_vllm: TableSet) -> None:
    """The law of memory corrects TensorRT-LLM's terms by engine, so it must find these."""
    shared = [key for key in packaged_vllm if key in packaged]
    assert len(shared) > 50
    for key in shared:
        assert packaged_vllm[key].memory == packaged[key].memory


@pytest.mark.parametrize(
    ("gpu", "decode_ms", "prefill_ms"),
    [
        ("b200_sxm", [3.8, 3.5, 7.6, 10.6, 17.5], [15, 31, 48]),
        ("h200_sxm", [4.8, 3.7, 10.3, 14.6, 27.7], [22, 46, 75]),
        ("h100_sxm", [5.9, 4.2, 13.4, 19.1, 34.6], [27, 51, 83]),
    ],
)
def test_maverick_steps_are_the_reference_ones(
    maverick_times: Callable[[str, bool], StepTimes], gpu: str, decode_ms: list[float], prefill_ms: list[float]
) -> None:
    tables = maverick_times(gpu, False).tables
    assert tables.decode_ms([1, 8, 64, 256, 1024], 2048).round(1).tolist() == decode_ms
    assert tables.prefill_ms([1024, 4096, 8192]).round().tolist() == prefill_ms


@given(batch=st.integers(1, 3000), kv_len=st.floats(1, 200_000))
def test_tabulated_times_are_the_interpolated_ones(packaged: TableSet, batch: int, kv_len: float) -> None:
    tables = packaged[next(key for key in packaged if "Maverick" in key.model)]
    times = StepTimes(tables, 48)
    got = float(times.decode_ms(batch)[batch]) + times.decode_attention_ms(batch, kv_len)
    assert got == pytest.approx(float(tables.decode_ms(batch, kv_len)), rel=1e-9)
