"""What launches say of true outputs: the textbook's posterior, noise that is pooled, and drift that is told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.search import posterior
from advisor.search.posterior import LATTICE, Told, believed
from advisor.search.surrogate import matern, product

Array = NDArray[np.float64]


def told(rng: np.random.Generator, n: int = 6, repeats: int = 2, noise: float = 0.01, drift: float = 0.0) -> Told:
    """Configurations whose twin is right but for its constants, launched round by round."""
    slopes = rng.normal(0, 0.05, (n, 3))
    at = np.tile(np.arange(n), repeats)
    ages = np.arange(len(at), dtype=float) - len(at) + 1
    truth = slopes @ np.array([0.5, -0.5, 1.0])
    log_values = truth[at] + drift * ages + noise * rng.standard_normal(len(at))
    return Told(rng.random((n, 2)), slopes, np.zeros(n), 0.1, at, log_values, ages)


def test_at_one_point_of_the_lattice_it_is_the_textbook_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    point = np.array([[0.05, 1.0, 0.02, 0.9, 0.002]])
    monkeypatch.setattr(posterior, "LATTICE", point)
    seen = told(np.random.default_rng(1))
    local, constants, noise, length, drift = point[0]
    near = product(matern, np.full(2, length), seen.places, seen.places)
    K = seen.bias**2 + local**2 * near + constants**2 * seen.slopes @ seen.slopes.T
    runs = K[np.ix_(seen.at, seen.at)] + drift**2 * np.outer(seen.ages, seen.ages) + noise**2 * np.eye(len(seen.at))
    mean = K[:, seen.at] @ np.linalg.solve(runs, seen.log_values)
    covariance = K - K[:, seen.at] @ np.linalg.solve(runs, K[seen.at])
    found = believed(seen, 0)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs(found.draws.mean(axis=0) - mean).max() < 4 * sd.max() / np.sqrt(len(found.draws))
    assert found.draws.std(axis=0) == pytest.approx(sd, rel=0.08)
    assert found.noise == pytest.approx(noise)
    slope = drift**2 * seen.ages @ np.linalg.solve(runs, seen.log_values)
    assert found.drift == pytest.approx(slope)
    variance = drift**2 - drift**4 * seen.ages @ np.linalg.solve(runs, seen.ages)
    assert found.drift_sd == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_the_same_launches_give_the_same_draws() -> None:
    seen = told(np.random.default_rng(2))
    assert np.array_equal(believed(seen, 3).draws, believed(seen, 3).draws)
    assert len(believed(seen, 3).draws) == posterior.N_DRAWS


def test_noise_is_that_of_all_repeats_together_and_two_that_agree_do_not_make_it_nothing() -> None:
    rng = np.random.default_rng(3)
    quiet, loud = (believed(told(rng, repeats=4, noise=noise), 0).noise for noise in (0.005, 0.04))
    assert quiet < 0.012
    assert 0.025 < loud < 0.055
    lucky = told(rng, n=1, repeats=2, noise=0.0)
    assert believed(lucky, 0).noise > LATTICE[:, 2].min()


def test_a_drift_is_found_and_taken_out() -> None:
    """5 % in 24 launches: the truth now is what counts, whenever a configuration was launched."""
    rng = np.random.default_rng(4)
    seen = told(rng, n=8, repeats=3, noise=0.005, drift=-0.05 / 24)
    found = believed(seen, 0)
    assert found.drift == pytest.approx(-0.05 / 24, abs=3 * found.drift_sd)
    assert found.drift < -2 * found.drift_sd
    steady = believed(told(rng, n=8, repeats=3, noise=0.005), 0)
    assert abs(steady.drift) < 2 * steady.drift_sd + 1e-4
