"""The end of warming up, on series where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.metrics.warming import n_warming, truncation


@pytest.mark.parametrize("k", [0, 1, 2, 4])
@pytest.mark.parametrize("slow", [0.5, 0.9])
def test_what_is_slower_before_a_step_is_found_to_the_batch(k: int, slow: float) -> None:
    rng = np.random.default_rng(3)
    rates = 1000 * (1 + 0.01 * rng.standard_normal(10))
    rates[:k] *= slow
    assert n_warming(rates) == k
    assert n_warming(7 * rates) == k, "in any unit"


def test_noise_alone_is_no_warming_up_and_neither_is_a_drop() -> None:
    rng = np.random.default_rng(4)
    found = [n_warming(1000 * (1 + 0.1 * rng.standard_normal(8))) for _ in range(300)]
    assert np.mean(np.array(found) > 0) < 0.1
    assert n_warming(np.array([1000.0, 1000.0, 500.0, 500.0, 500.0, 500.0])) == 0, "it got slower"
    assert [n_warming(np.zeros(0)), n_warming(np.arange(3.0)), n_warming(np.ones(6))] == [0, 0, 0]


@given(values=st.lists(st.floats(1, 1000), min_size=1, max_size=12))
def test_the_rest_after_truncation_has_the_least_standard_error(values: list[float]) -> None:
    v = np.array(values)
    k = truncation(v)
    assert 0 <= k <= len(v) / 2
    chosen, *others = (np.var(v[j:]) / len(v[j:]) for j in (k, *range(len(v) // 2 + 1)))
    assert chosen <= min(others) + 1e-9
