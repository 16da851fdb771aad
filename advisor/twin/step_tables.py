"""Measured kernel times as small tables, and how to read between their grid points.

One `StepTables` belongs to one (model, GPU system, layout, quant modes). Symbols and shapes, times in ms:
    tokens (T,), batches (B,), kv_lens (K,), chunks (C,), pasts (P,)      grid coordinates, ascending
    ctx_dense_ms, ctx_moe_ms (T,)       GEMMs, norms, collectives / experts of a step with context tokens
    ctx_attention_ms (C, P)             attention of one prompt chunk on top of `past` cached tokens
    gen_dense_ms, gen_moe_ms, logits_ms (B,)    the same for a decode-only step, and the LM head
    gen_attention_ms (B, K)             decode attention at a mean KV length

Between grid points everything is piecewise linear; outside it is extrapolated along the last segment, never below zero.
Real tables are not monotone (kernels switch), and no monotonicity is forced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.memory.terms import MemoryTerms
from advisor.twin.layout import Layout, QuantModes, TableKey

Array = NDArray[np.float64]
DataSource = Literal["tables", "roofline"]


@dataclass(frozen=True, eq=False)
class StepTables:
    """Step times of one deployment; see the module for symbols and shapes. `kernels` names engine and release."""

    key: TableKey
    data_source: DataSource
    memory: MemoryTerms
    tokens: Array
    batches: Array
    kv_lens: Array
    chunks: Array
    pasts: Array
    ctx_dense_ms: Array
    ctx_moe_ms: Array
    ctx_attention_ms: Array
    gen_dense_ms: Array
    gen_moe_ms: Array
    gen_attention_ms: Array
    logits_ms: Array
    kernels: str | None = None

    def decode_ms(self, batch: ArrayLike, kv_len: ArrayLike) -> Array:
        """One decode-only step of `batch` requests per rank at mean KV length `kv_len`."""
        steady = self.gen_dense_ms + self.gen_moe_ms + self.logits_ms
        return np.asarray(interp(self.batches, steady, batch) + self.decode_attention_ms(batch, kv_len))

    def decode_attention_ms(self, batch: ArrayLike, kv_len: ArrayLike) -> Array:
        """Attention part of a decode step."""
        return interp2(self.batches, self.kv_lens, self.gen_attention_ms, batch, kv_len)

    def prefill_attention_ms(self, chunk: ArrayLike, past: ArrayLike) -> Array:
        """Attention of one prompt chunk of `chunk` tokens on `past` cached ones."""
        return interp2(self.chunks, self.pasts, self.ctx_attention_ms, chunk, past)

    def prefill_ms(self, isl: ArrayLike, past: ArrayLike = 0) -> Array:
        """One step that prefills a single prompt and nothing else."""
        linear = interp(self.tokens, self.ctx_dense_ms + self.ctx_moe_ms, isl)
        return np.asarray(linear + self.prefill_attention_ms(isl, past) + self.logits_ms[0])


def interp(xs: Array, ys: Array, x: ArrayLike) -> Array:
    """Piecewise-linear values of `ys` over grid `xs` at `x`, extrapolated linearly, at least 0."""
    at = np.asarray(x, dtype=np.float64)
    i, w = _cell(xs, at)
    return np.asarray(np.maximum(0.0, ys[i] * (1.0 - w) + ys[i + 1] * w))


def interp2(xs: Array, ys: Array, zs: Array, x: ArrayLike, y: ArrayLike) -> Array:
    """Bilinear values of `zs` (len(xs), len(ys)) at (`x`, `y`), extrapolated linearly, at least 0."""
    (i, u), (j, v) = _cell(xs, np.asarray(x, dtype=np.float64)), _cell(ys, np.asarray(y, dtype=np.float64))
    low = zs[i, j] * (1.0 - v) + zs[i, j + 1] * v
    high = zs[i + 1, j] * (1.0 - v) + zs[i + 1, j + 1] * v
    return np.asarray(np.maximum(0.0, low * (1.0 - u) + high * u))


def _cell(xs: Array, x: Array) -> tuple[NDArray[np.intp], Array]:
    i = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)
    return i, np.asarray((x - xs[i]) / (xs[i + 1] - xs[i]))


class TableSet(Mapping[TableKey, StepTables]):
    """All packaged tables of one engine by key; built from two files' bytes, arrays are cut out when asked for."""

    def __init__(self, index_json: bytes, blob: bytes) -> None:
        index = json.loads(index_json)
        self.generator: str = index["generator"]
        self.attribution: str = index["attribution"]
        self.kernels: str = index["kernels"]
        self._dtype = np.dtype(index["dtype"])
        self._grids = {name: np.asarray(values, dtype=np.float64) for name, values in index["grids"].items()}
        self._axes: dict[str, list[str]] = index["arrays"]
        self._rows: dict[TableKey, dict[str, Any]] = {_key(row): row for row in index["tables"]}
        self._blob = blob
        self._cut: dict[TableKey, StepTables] = {}

    def __getitem__(self, key: TableKey) -> StepTables:
        if key not in self._cut:
            self._cut[key] = self._read(key, self._rows[key])
        return self._cut[key]

    def __iter__(self) -> Any:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def _read(self, key: TableKey, row: dict[str, Any]) -> StepTables:
        arrays, offset = {}, int(row["offset"])
        for name, axes in self._axes.items():
            shape = [len(self._grids[axis]) for axis in axes]
            count = int(np.prod(shape))
            cut = (
                np.frombuffer(self._blob, dtype=self._dtype, count=count, offset=offset)
                .reshape(shape)
                .astype(np.float64)
            )
            cut.setflags(write=False)
            arrays[name] = cut
            offset += count * self._dtype.itemsize
        memory = MemoryTerms(**row["memory"])
        return StepTables(key=key, data_source="tables", memory=memory, **self._grids, **arrays, kernels=self.kernels)


def _key(row: dict[str, Any]) -> TableKey:
    layout = Layout(row["tp"], row["attention_dp"], row["moe_tp"], row["moe_ep"])
    return TableKey(
        row["model"], row["system"], layout, QuantModes(*(row[f"{name}_quant"] for name in QuantModes._fields))
    )
