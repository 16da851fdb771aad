"""Closed forms of runs of steps against adding the steps up one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.twin.constants import TwinConstants
from advisor.twin.step_tables import TableSet
from advisor.twin.step_times import StepTimes, step_times, sum_at_least


@given(st.floats(0, 50), st.floats(-0.5, 0.5), st.integers(1, 200), st.floats(0, 50))
def test_sum_with_a_floor_is_the_sum_of_its_terms(start: float, slope: float, n: int, least: float) -> None:
    expected = sum(max(start + slope * i, least) for i in range(n))
    assert sum_at_least(start, slope, n, least) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(
    batch=st.integers(1, 600),
    kv_len=st.floats(1, 9000),
    n_steps=st.integers(1, 2000),
    least=st.sampled_from([0.0, 12.0, 100.0]),
)
def test_a_run_of_decode_steps_is_its_steps(
    maverick_times: Callable[[str, bool], StepTimes], batch: int, kv_len: float, n_steps: int, least: float
) -> None:
    times = maverick_times("h100_sxm", False)
    steps = [5.0 + times.decode_attention_ms(batch, kv_len + i) for i in range(n_steps)]
    gpu_ms, wall_ms = times.decode_run_ms(batch, kv_len, n_steps, 5.0, least)
    assert gpu_ms == pytest.approx(sum(steps), rel=1e-3)
    assert wall_ms == pytest.approx(sum(max(step, least) for step in steps), rel=1e-3)


def test_factors_scale_their_own_part(make_times: Callable[..., StepTimes]) -> None:
    coefficients = {"decode_ms": 1.0, "moe_per_token_ms": 0.1, "per_kv_token_ms": 1e-3, "attention_per_token_ms": 0.2}
    plain = make_times(TwinConstants(), **coefficients)
    slow = make_times(
        TwinConstants(dense_factor=2.0, moe_factor=3.0, attention_factor=5.0, prefill_factor=1.5), **coefficients
    )
    assert float(plain.decode_ms(10)[10]) == pytest.approx(1.0 + 1.0)
    assert float(slow.decode_ms(10)[10]) == pytest.approx(2.0 + 3.0)
    assert slow.decode_attention_ms(10, 1000) == pytest.approx(5.0 * plain.decode_attention_ms(10, 1000))
    assert slow.prefill_attention_ms(100, 0) == pytest.approx(5.0 * 1.5 * plain.prefill_attention_ms(100, 0))
    assert slow.context_ms(500)[0][500] == pytest.approx(2.0 * 1.5 * plain.context_ms(500)[0][500])
    assert slow.context_ms(500)[1][500] == pytest.approx(3.0 * 1.5 * plain.context_ms(500)[1][500])


def test_nvfp4_corrections_touch_nvfp4_alone(packaged: TableSet) -> None:
    for key, tables in packaged.items():
        table = tables.gen_dense_ms + tables.gen_moe_ms + tables.logits_ms
        batches = tables.batches.astype(int)
        ratio = StepTimes(tables, 40).decode_ms(2048)[batches] / table
        if "nvfp4" in key.quant:
            assert (ratio <= 1.0 + 1e-9).all()
            assert ratio.min() < 0.95
        else:
            assert ratio == pytest.approx(1.0)


def test_nvfp4_experts_have_no_jump_at_the_switch_of_kernels(packaged: TableSet) -> None:
    found = [tables for key, tables in packaged.items() if key.quant.moe == "nvfp4" and "DeepSeek" in key.model]
    assert found
    for tables in found:
        before, after = (int(n / tables.key.layout.attention_dp) for n in (128, 256))
        moe = StepTimes(tables, 61).decode_ms(after)
        assert tables.gen_moe_ms[tables.batches == after] > 1.5 * tables.gen_moe_ms[tables.batches == before]
        assert moe[after] < 1.35 * moe[before]


def test_tilt_turns_around_batch_64(make_times: Callable[..., StepTimes]) -> None:
    plain, tilted = make_times(), make_times(TwinConstants(decode_tilt=0.1))
    assert float(tilted.decode_ms(64)[64]) == pytest.approx(float(plain.decode_ms(64)[64]))
    assert float(tilted.decode_ms(128)[128] / plain.decode_ms(128)[128]) == pytest.approx(2**0.1)


def test_one_object_per_deployment_and_world(make_times: Callable[..., StepTimes]) -> None:
    tables = make_times().tables
    assert step_times(tables, 10) is step_times(tables, 10)
    assert step_times(tables, 10, TwinConstants(moe_factor=2.0)) is not step_times(tables, 10)
