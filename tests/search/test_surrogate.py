"""The Gaussian process against its textbook form, and the laws that any posterior keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from advisor.search.surrogate import Belief, Design, Grid, Ladders, Surrogate, believing, fit

Array = NDArray[np.float64]
BELIEF = Belief()


def grid(rng: np.random.Generator, n_slopes: int = 3) -> Grid:
    ladders = [np.linspace(0, 1, n) for n in (5, 4, 3)]
    places = np.stack([axis.ravel() for axis in np.meshgrid(*ladders, indexing="ij")], axis=1)
    return Grid(Ladders(places), np.array([0.3, 0.0]), np.zeros(2), rng.normal(0, 0.05, (len(places), n_slopes)))


def seen_in(rng: np.random.Generator, asked: Grid, n: int) -> Design:
    rows = asked.rows(rng.choice(len(asked), n, replace=False))
    tasks, servers = (part + rng.choice([0.0, 0.8], (n, 1)) for part in (rows.tasks, rows.servers))
    return replace(rows, tasks=tasks, servers=servers, extra_sd=rng.choice([0.0, 0.1], n))


def covariance(a: Design, b: Design, belief: Belief, theta: Array) -> Array:
    """The formula at the head of the module, entry by entry."""
    local, constants = math.exp(theta[0]), math.exp(theta[1])
    found = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            near = 1.0
            for k, length in enumerate(np.exp(theta[4:])):
                distance = math.sqrt(5) * abs(a.places[i, k] - b.places[j, k]) / length
                near *= (1 + distance + distance**2 / 3) * math.exp(-distance)
            task = math.exp(-0.5 * float(((a.tasks[i] - b.tasks[j]) ** 2).sum()))
            server = math.exp(-0.5 * math.exp(2 * theta[3]) * float(((a.servers[i] - b.servers[j]) ** 2).sum()))
            own = belief.bias**2 + local**2 * near
            found[i, j] = server * (task * own + constants**2 * float(a.slopes[i] @ b.slopes[j]))
    return found


@pytest.mark.parametrize("n", [0, 1, 7])
def test_it_is_the_textbook_posterior(n: int) -> None:
    rng = np.random.default_rng(n)
    asked = grid(rng)
    seen, residuals = seen_in(rng, asked, n), rng.normal(0, 0.1, n)
    found = fit(seen, residuals, BELIEF)
    some = asked.rows(np.arange(0, len(asked), 7))
    K = covariance(seen, seen, BELIEF, found.theta) + np.diag(found.noise**2 + seen.extra_sd**2)
    cross = covariance(some, seen, BELIEF, found.theta)
    mean = cross @ np.linalg.solve(K, residuals)
    variance = np.diag(covariance(some, some, BELIEF, found.theta) - cross @ np.linalg.solve(K, cross.T))
    assert np.allclose(found.mean_and_sd(some)[0], mean, atol=1e-6)
    assert np.allclose(found.mean_and_sd(some)[1], np.sqrt(variance), atol=1e-4)
    assert np.allclose(found.prior_sd(some) ** 2, np.diag(covariance(some, some, BELIEF, found.theta)))
    assert np.allclose(found.mean_over(asked)[::7], mean, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))
def test_order_does_not_matter_and_nothing_seen_widens(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    asked = grid(rng)
    seen, residuals = seen_in(rng, asked, n), rng.normal(0, 0.2, n)
    found, order = fit(seen, residuals, BELIEF), rng.permutation(n)
    again = fit(seen.rows(order), residuals[order], BELIEF)
    assert np.allclose(found.mean_over(asked), again.mean_over(asked), atol=1e-6)
    everything = asked.rows(np.arange(len(asked)))
    assert (found.mean_and_sd(everything)[1] <= found.prior_sd(everything) + 1e-9).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_what_comes_as_expected_changes_no_expectation_and_narrows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = grid(rng)
    found = fit(seen_in(rng, asked, 5), rng.normal(0, 0.1, 5), BELIEF)
    more = believing(found, asked.rows(np.array([3, 40])))
    everything = asked.rows(np.arange(len(asked)))
    assert np.allclose(found.mean_over(asked), more.mean_over(asked), atol=1e-5)
    assert (more.mean_and_sd(everything)[1] <= found.mean_and_sd(everything)[1] + 1e-6).all()


def test_without_noise_what_was_seen_is_known() -> None:
    rng = np.random.default_rng(4)
    asked = grid(rng)
    seen, residuals = asked.rows(np.array([2, 30, 55])), np.array([0.1, -0.2, 0.05])
    found = fit(seen, residuals, replace(BELIEF, noise=1e-5, widths=(0.7, 0.5, 1e-3, 1.0, 0.5)))
    mean, sd = found.mean_and_sd(seen)
    assert np.allclose(mean, residuals, atol=1e-3)
    assert (sd < 1e-3).all()


def test_a_constant_that_is_off_is_found_from_few_rows_and_corrects_all() -> None:
    rng = np.random.default_rng(5)
    asked = Grid(grid(rng).ladders, np.zeros(1), np.zeros(1), rng.normal(0, 0.1, (60, 4)))
    off = np.array([1.5, -2.0, 0.0, 1.0])
    seen = rng.choice(60, 8, replace=False)
    found = fit(asked.rows(seen), asked.slopes[seen] @ off, BELIEF)
    unseen = np.setdiff1d(np.arange(60), seen)
    wrong = (asked.slopes @ off)[unseen]
    assert np.abs(found.mean_over(asked)[unseen] - wrong).mean() < 0.3 * np.abs(wrong).mean()


def test_repeats_tell_the_noise() -> None:
    rng = np.random.default_rng(6)
    asked = grid(rng)
    rows = np.repeat(np.array([1, 20, 44]), 8)
    noisy, quiet = (fit(asked.rows(rows), rng.normal(0, sd, len(rows)), BELIEF) for sd in (0.06, 0.005))
    assert 0.03 < noisy.noise < 0.1
    assert quiet.noise < 0.012


def test_a_row_said_to_be_uncertain_counts_less() -> None:
    rng = np.random.default_rng(7)
    asked = grid(rng)
    seen, residuals = asked.rows(np.array([10])), np.array([0.3])
    sure = fit(seen, residuals, BELIEF)
    unsure = fit(replace(seen, extra_sd=np.array([0.5])), residuals, BELIEF)
    assert abs(unsure.mean_over(asked)[10]) < 0.5 * abs(sure.mean_over(asked)[10])


def test_believing_keeps_what_is_uncertain() -> None:
    rng = np.random.default_rng(9)
    asked = grid(rng)
    seen = replace(asked.rows(np.array([10, 44])), extra_sd=np.array([0.5, 0.0]))
    found = fit(seen, np.array([0.3, -0.1]), BELIEF)
    more = believing(found, asked.rows(np.array([30])))
    assert np.allclose(found.mean_over(asked), more.mean_over(asked), atol=1e-6)


def test_a_neighbour_teaches_less_than_the_server_itself_and_a_stranger_nothing() -> None:
    rng = np.random.default_rng(10)
    asked = grid(rng)
    seen, residuals = asked.rows(np.array([2, 30, 55])), np.array([0.2, 0.2, 0.2])
    near, kin, stranger = (
        fit(replace(seen, servers=np.full((3, 2), apart)), residuals, BELIEF).mean_over(asked)[30]
        for apart in (0.0, 0.7, 9.0)
    )
    assert near > kin > 0.02
    assert abs(stranger) < 1e-6


def test_a_surrogate_of_nothing_expects_what_the_twin_says() -> None:
    asked = grid(np.random.default_rng(8))
    none: Surrogate = fit(asked.rows(np.array([], np.int64)), np.empty(0), BELIEF)
    assert (none.mean_over(asked) == 0).all()
