"""Step tables and constants made ready for the scheduler: every time it asks for is a list look-up.

Interpolating in the inner loop would cost more than the loop itself; whole-number arguments are tabulated once with
numpy and shared by all simulations of one deployment and world.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.graphs import replayed_size
from advisor.twin.step_tables import StepTables, interp

Array = NDArray[np.float64]
NVFP4_SWITCH_TOKENS = 128  # of all ranks; the kernel tables change kernels here, published rows show no jump


@lru_cache(maxsize=64)
def step_times(
    tables: StepTables, n_layers: int, constants: TwinConstants = NOMINAL, own_http_process: bool = False
) -> StepTimes:
    """The one `StepTimes` of these; tables count as equal when they are the same object."""
    return StepTimes(tables, n_layers, constants, own_http_process)


class StepTimes:
    """Times in ms of one deployment under one set of constants.

    Attributes:
        tables: The kernel times underneath.
        constants: Factors and assumed host times.
        eager_floor_ms: Least time of a step that is not replayed from a CUDA graph.
    """

    def __init__(
        self, tables: StepTables, n_layers: int, constants: TwinConstants = NOMINAL, own_http_process: bool = False
    ) -> None:
        self.tables = tables
        self.constants = constants
        self.eager_floor_ms = constants.eager_layer_ms(own_http_process) * n_layers
        self.kv_lens: list[float] = tables.kv_lens.tolist()
        self._prefill_attention: dict[int, float] = {}
        self._context: tuple[list[float], list[float], list[float]] = ([], [], [])
        self._decode: Array = np.zeros(0)
        self._attention: list[tuple[list[float], list[float]] | None] = []

    def context_ms(self, max_tokens: int) -> tuple[list[float], list[float], list[float]]:
        """(dense, MoE, logits) of a step with context tokens, by tokens (rows for logits) 0..max_tokens."""
        if len(self._context[0]) <= max_tokens:
            c, t = self.constants, self.tables
            n = np.arange(max_tokens + 1)
            dense = c.dense_factor * c.prefill_factor * interp(t.tokens, t.ctx_dense_ms, n)
            moe = c.moe_factor * c.prefill_factor * interp(t.tokens, t.ctx_moe_ms, n)
            logits = c.dense_factor * interp(t.batches, t.logits_ms, n)
            self._context = (dense.tolist(), moe.tolist(), logits.tolist())
        return self._context

    def decode_ms(self, max_batch: int) -> Array:
        """A decode-only step less attention, indexed by batch 0..max_batch."""
        if len(self._decode) <= max_batch:
            c, t = self.constants, self.tables
            n = np.arange(max_batch + 1)
            gemm = interp(t.batches, t.gen_dense_ms, n) * self._nvfp4_gemm_factor(n)
            dense = c.dense_factor * (gemm + interp(t.batches, t.logits_ms, n))
            moe = c.moe_factor * self._decode_moe_ms(n)
            self._decode = (dense + moe) * (np.maximum(n, 1) / 64.0) ** c.decode_tilt
        return self._decode

    def _nvfp4_gemm_factor(self, n: NDArray[np.int64]) -> Array:
        c = self.constants
        if self.tables.key.quant.gemm != "nvfp4":
            return np.ones(len(n))
        octaves = np.log2(np.maximum(n, 1)) / np.log2(c.nvfp4_small_batch_rows)
        return np.asarray(np.exp(-c.nvfp4_small_batch_gain * np.maximum(0.0, 1.0 - octaves)))

    def _decode_moe_ms(self, n: NDArray[np.int64]) -> Array:
        """Experts of a decode step; NVFP4 ones go on from the switch of kernels as they grew before it."""
        t = self.tables
        table = interp(t.batches, t.gen_moe_ms, n)
        if t.key.quant.moe != "nvfp4":
            return table
        ranks = t.key.layout.attention_dp
        beyond = np.maximum(1.0, n * ranks / NVFP4_SWITCH_TOKENS)
        at_switch = float(interp(t.batches, t.gen_moe_ms, NVFP4_SWITCH_TOKENS / ranks))
        grown = at_switch * beyond**self.constants.nvfp4_experts_growth
        return np.where(beyond > 1.0, np.minimum(table, grown), table)

    def decode_attention(self, batch: int) -> tuple[list[float], list[float]]:
        """Intercepts and slopes over mean KV length, one pair per cell of the KV grid: ms = a[j] + s[j] * kv_len."""
        if batch >= len(self._attention):
            self._attention += [None] * (batch + 1 - len(self._attention))
        lines = self._attention[batch]
        if lines is None:
            lines = self._attention[batch] = self._attention_lines(batch)
        return lines

    def _attention_lines(self, batch: int) -> tuple[list[float], list[float]]:
        t, c = self.tables, self.constants
        i = min(max(int(np.searchsorted(t.batches, batch, side="right")) - 1, 0), len(t.batches) - 2)
        w = (batch - t.batches[i]) / (t.batches[i + 1] - t.batches[i])
        row = t.gen_attention_ms[i] * (1.0 - w) + t.gen_attention_ms[i + 1] * w
        row = np.maximum(row, 0.0) * c.attention_factor * (max(batch, 1) / 64.0) ** c.decode_tilt
        slopes = np.diff(row) / np.diff(t.kv_lens)
        return (row[:-1] - slopes * t.kv_lens[:-1]).tolist(), slopes.tolist()

    def decode_attention_ms(self, batch: int, kv_len: float) -> float:
        """Decode attention of `batch` requests at mean KV length `kv_len`."""
        intercepts, slopes = self.decode_attention(batch)
        j = min(max(bisect_right(self.kv_lens, kv_len) - 1, 0), len(slopes) - 1)
        return max(0.0, intercepts[j] + slopes[j] * kv_len)

    def decode_run_ms(
        self, batch: int, kv_len: float, n_steps: int, steady_ms: float, least_ms: float
    ) -> tuple[float, float]:
        """(GPU time, wall time) of consecutive decode-only steps, in closed form.

        Args:
            batch: Requests of the pacing rank.
            kv_len: Their mean KV length at the first step; it grows by one a step.
            n_steps: Number of steps.
            steady_ms: A step less attention.
            least_ms: A step takes at least this long (host time, launches of an eager step).
        """
        intercepts, slopes = self.decode_attention(batch)
        gpu_ms, wall_ms, last = 0.0, 0.0, len(slopes) - 1
        while n_steps:  # one cell of the KV grid at a time: within it a step's GPU time is a straight line
            j = min(max(bisect_right(self.kv_lens, kv_len) - 1, 0), last)
            n = n_steps if j == last else min(n_steps, max(1, math.ceil(self.kv_lens[j + 1] - kv_len)))
            start, slope = steady_ms + intercepts[j] + slopes[j] * kv_len, slopes[j]
            gpu_ms += n * (start + slope * (n - 1) / 2)
            wall_ms += sum_at_least(start, slope, n, least_ms)
            kv_len += n
            n_steps -= n
        return gpu_ms, wall_ms

    def replayed_ms(self, max_batch: int, sizes: tuple[int, ...], padding: bool) -> tuple[list[float], list[float]]:
        """Per batch 0..max_batch: a decode step less attention at the replayed size, and its least time when eager.

        Padding rows cost GEMM and expert time but read almost no KV.
        """
        replayed = [replayed_size(batch, sizes, padding=padding) for batch in range(max_batch + 1)]
        steady = self.decode_ms(max(max_batch, *sizes, 1))
        decode = steady[[batch if size is None else size for batch, size in enumerate(replayed)]].tolist()
        return decode, [self.eager_floor_ms if size is None else 0.0 for size in replayed]

    def prefill_attention_ms(self, chunk: int, past: int) -> float:
        """Attention of one prompt chunk; remembered, since workloads repeat their lengths."""
        key = chunk << 32 | past
        ms = self._prefill_attention.get(key)
        if ms is None:
            c = self.constants
            ms = c.attention_factor * c.prefill_factor * float(self.tables.prefill_attention_ms(chunk, past))
            self._prefill_attention[key] = ms
        return ms


def sum_at_least(start: float, slope: float, n: int, least: float) -> float:
    """Sum over i < n of max(start + slope * i, least)."""
    end = start + slope * (n - 1)
    if start >= least and end >= least:
        return n * (start + end) / 2
    if start <= least and end <= least:
        return n * least
    first = min(n, max(0, int((least - start) / slope) + 1))  # steps on the first side of the limit
    second = n - first
    if start < least:
        return first * least + second * (start + slope * first + end) / 2
    return first * (start + start + slope * (first - 1)) / 2 + second * least
