"""The fit of constants: exact where everything is linear, right where it is not, and never surer than its readings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from advisor.twin.calibration import LEAST_NOISE, Readings, fit, slopes
from advisor.twin.constants import KNOWN_ERROR, MEASUREMENT_NOISE, NOMINAL, TwinConstants, off_by

Array = NDArray[np.float64]
NAMES = ("dense_factor", "attention_factor", "decode_tilt", "ttft_fixed_ms")


def deviates(constants: TwinConstants) -> Array:
    """How far each stands from nominal, in standard deviations."""
    tilt = constants.decode_tilt / KNOWN_ERROR["decode_tilt"]
    logs = [np.log(getattr(constants, n) / getattr(NOMINAL, n)) / KNOWN_ERROR[n] for n in NAMES if n != "decode_tilt"]
    return np.array([*logs[:2], tilt, logs[2]])


def readings(logs: Array) -> Readings:
    n = len(logs)
    return Readings(logs=logs, kinds=np.zeros(n, dtype=np.int64), runs=np.arange(n), senses=np.ones(n))


@given(st.integers(0, 10_000))
def test_where_the_twin_is_linear_the_fit_is_bayesian_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    J, truth = rng.uniform(-0.1, 0.1, (9, 4)), rng.normal(0, 1, 4)
    seen = readings(J @ truth)
    found = fit(seen, lambda constants: J @ deviates(constants), NOMINAL, NAMES)
    left = seen.logs - J @ found.mean
    noise = np.diag(np.full(9, LEAST_NOISE**2 + left @ left / 9 + MEASUREMENT_NOISE**2))
    covariance = np.linalg.inv(np.eye(4) + J.T @ np.linalg.solve(noise, J))
    np.testing.assert_allclose(found.covariance, covariance, rtol=0.1, atol=1e-3)
    np.testing.assert_allclose(found.mean, covariance @ J.T @ np.linalg.solve(noise, seen.logs), atol=0.1)
    np.testing.assert_allclose(deviates(found.constants), found.mean, atol=1e-9)


def test_a_run_that_was_slow_as_a_whole_counts_once() -> None:
    """A rate and two latencies of one run tell the pace of one run, not three."""
    J = np.array([[-0.08], [0.08], [0.08]])
    three = Readings(J[:, 0], np.array([0, 1, 2]), np.zeros(3, dtype=np.int64), np.array([-1.0, 1.0, 1.0]))
    found = fit(three, lambda constants: J[:, 0] * deviates(constants)[0], NOMINAL, NAMES[:1])
    assert found.sd[0] * 0.08 >= MEASUREMENT_NOISE * 0.9


def test_what_no_reading_tells_stays_as_it_was_and_what_is_missing_says_nothing() -> None:
    def logs(constants: TwinConstants) -> Array:
        return np.array([deviates(constants)[0] * 0.08, np.nan])

    found = fit(readings(np.array([0.08, 5.0])), logs, NOMINAL, NAMES)
    assert found.mean[0] == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(found.mean[1:], 0, atol=1e-9)
    np.testing.assert_allclose(found.sd[1:], 1)


def test_a_server_of_another_form_does_not_look_certain() -> None:
    J = np.full((8, 1), 0.08)
    odd = 0.08 + 0.1 * np.array([1.0, -1.0] * 4)
    sure, unsure = (
        fit(readings(seen), lambda constants: J[:, 0] * deviates(constants)[0], NOMINAL, NAMES[:1])
        for seen in (J[:, 0], odd)
    )
    assert sure.mean[0] == pytest.approx(1, abs=0.05)
    assert unsure.sd[0] > 3 * sure.sd[0]


def test_an_edge_that_hides_a_constant_does_not_pull_it_along() -> None:
    """A step takes as long as the slower of GPU and host; a host that is hidden is not moved past the edge."""

    def logs(constants: TwinConstants) -> Array:
        return np.full(6, 0.2 * max(0.0, deviates(constants)[0] - 0.5))

    found = fit(readings(np.full(6, 0.004)), logs, NOMINAL, NAMES[:1])
    assert found.mean[0] < 0.6
    assert found.sd[0] > 0.5, "anything below the edge would look the same"
    assert logs(found.constants)[0] < 0.02


def test_slopes_are_those_of_the_function() -> None:
    J = np.random.default_rng(0).uniform(-0.2, 0.2, (5, 4))

    def logs(constants: TwinConstants) -> Array:
        return J @ deviates(constants)

    there = off_by(NOMINAL, {"dense_factor": 1.5})
    for steps in (None, np.array([0.1, -0.5, 1.0, -1.0])):
        np.testing.assert_allclose(slopes(logs, there, NAMES, logs(there), steps), J, atol=1e-9)
