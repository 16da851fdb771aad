"""Roofline estimates: within a factor of two of measured tables, and laws where nothing was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import advisor
from advisor.domain.deployment import ModelFacts
from advisor.store import catalog
from advisor.twin.layout import Layout, QuantModes, TableKey
from advisor.twin.roofline import GpuSpec, roofline_tables
from advisor.twin.step_tables import TableSet

FP8 = QuantModes("fp8", "fp8", "fp8", "fp8")


@pytest.fixture(scope="module")
def specs() -> dict[str, GpuSpec]:
    text = (Path(advisor.__file__).parent / "twin" / "tables" / "gpus.json").read_text(encoding="utf-8")
    return {name: GpuSpec(**row) for name, row in json.loads(text)["gpus"].items()}


@pytest.fixture(scope="module")
def scout() -> ModelFacts:
    return catalog.model_facts("meta-llama/Llama-4-Scout-17B-16E-Instruct")


def test_estimates_are_within_a_factor_of_two_of_nearly_all_tables(
    packaged: TableSet, specs: dict[str, GpuSpec]
) -> None:
    decode, prefill, weights, kv = [], [], [], []
    for key, table in packaged.items():
        guess = roofline_tables(key, catalog.model_facts(key.model), specs[key.system])
        decode += np.log2(guess.decode_ms([1, 16, 256], 2048) / table.decode_ms([1, 16, 256], 2048)).tolist()
        prefill += np.log2(guess.prefill_ms([1024, 8192]) / table.prefill_ms([1024, 8192])).tolist()
        weights.append(guess.memory.weights_gib / table.memory.weights_gib)
        kv.append(guess.memory.kv_bytes_per_token / table.memory.kv_bytes_per_token)
    assert np.mean(np.abs(decode) < 1.0) > 0.97
    assert np.mean(np.abs(prefill) < 1.0) > 0.88
    assert weights == pytest.approx(np.ones(len(weights)), abs=0.1)
    assert kv == pytest.approx(np.ones(len(kv)))


def test_marked_as_estimates_and_usable_where_no_table_exists(scout: ModelFacts, specs: dict[str, GpuSpec]) -> None:
    key = TableKey(scout.name, "h100_sxm", Layout(4, 1, 1, 4), FP8)
    tables = roofline_tables(key, scout, specs["h100_sxm"])
    assert tables.data_source == "roofline"
    assert (tables.decode_ms([1, 64, 512], 2048) > 0.5).all()
    # 109 G parameters in one byte each, over four GPUs.
    assert tables.memory.weights_gib == pytest.approx(109e9 / 1024**3 / 4, rel=0.08)


def test_faster_memory_never_slows_a_step_and_more_ranks_hold_less(
    scout: ModelFacts, specs: dict[str, GpuSpec]
) -> None:
    spec = specs["h100_sxm"]
    key = TableKey(scout.name, "h100_sxm", Layout(4, 1, 1, 4), FP8)
    slow = roofline_tables(key, scout, spec)
    fast = roofline_tables(key, scout, replace(spec, memory_gb_per_s=2 * spec.memory_gb_per_s))
    assert (fast.gen_attention_ms <= slow.gen_attention_ms).all()
    assert (fast.gen_dense_ms <= slow.gen_dense_ms).all()
    eight = roofline_tables(key._replace(layout=Layout(8, 1, 1, 8)), scout, spec)
    assert eight.memory.weights_gib < slow.memory.weights_gib
    assert eight.memory.kv_bytes_per_token == slow.memory.kv_bytes_per_token / 2
