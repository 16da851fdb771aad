"""The frontier against least squares, against drawn truths, and against the memory law it corrects."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from advisor.domain.measurement import MemoryReport, ProfiledMemory, Source
from advisor.domain.outcome import Crashed, Infrastructure, Measured, Outcome, OutOfMemory, Rejected, Started, Unhealthy
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.memory.constants import MEMORY_ERROR, MemoryConstants
from advisor.memory.frontier import (
    N_FEATURES,
    PRIOR,
    READING_GIB,
    Frontier,
    Kind,
    Observation,
    fit,
    margin_at,
    margins,
    observations,
    shifted,
)
from advisor.memory.law import STAGES, MemoryBudget, memory_budget
from advisor.memory.stages import UNDER_LOAD
from advisor.memory.terms import MemorySettings, MemoryTerms

Array = NDArray[np.float64]
NOMINAL = MemoryConstants()
TERMS = MemoryTerms(
    weights_gib=52.0,
    activations_floor_gib=0.5,
    activations_gib_per_token=3e-4,
    runtime_gib=3.5,
    comm_gib=0.5,
    kv_bytes_per_token=60e3,
    capacity_gib=79.0,
    vocab_size=128_000,
)
BATCH, TOKENS, FRACTION, GRAPHS = (
    axis.ravel()
    for axis in np.meshgrid(
        [8, 64, 256, 1024, 2048], [1024, 4096, 8192, 32768], [0.5, 0.8, 0.9, 0.95, 0.97], [0, 64, 512], indexing="ij"
    )
)


def settings(rows: slice | int = slice(None)) -> MemorySettings:
    largest = np.minimum(GRAPHS, BATCH)[rows]
    n_graphs = np.where(largest > 0, 8 + largest / 32, 0)
    return MemorySettings(BATCH[rows], TOKENS[rows], FRACTION[rows], n_graphs, largest)


def grid(constants: MemoryConstants) -> MemoryBudget:
    return memory_budget(TERMS, settings(), constants)


MARGINS, JS = margins(grid, NOMINAL)
MARGIN, J = MARGINS[:, -1], JS[:, -1]
"""Of the last moment, under load."""


def draw(seed: int) -> MemoryConstants:
    rng = np.random.default_rng(seed)
    drawn = {
        field.name: getattr(NOMINAL, field.name) * math.exp(MEMORY_ERROR.get(field.name, 0.0) * rng.standard_normal())
        for field in fields(MemoryConstants)
    }
    return MemoryConstants(**drawn)


def reading(x: Array, predicted: float, margin: float, kind: Kind = "exact") -> Observation:
    return Observation(x, predicted, margin, kind)


def test_recovers_a_linear_truth_as_least_squares_with_the_prior_as_extra_rows() -> None:
    rng = np.random.default_rng(0)
    X, truth = rng.normal(size=(40, N_FEATURES)), rng.uniform(-0.9, 0.9, size=N_FEATURES)
    predicted = rng.normal(size=40)
    noisy = predicted + X @ truth + READING_GIB * rng.normal(size=40)
    frontier = fit([reading(X[i], predicted[i], noisy[i]) for i in range(40)])
    # Ridge regression is least squares on data scaled by their noise, with one row per prior N(0, 1).
    rows = np.vstack([X / READING_GIB, np.eye(N_FEATURES)])
    right = np.concatenate([(noisy - predicted) / READING_GIB, np.zeros(N_FEATURES)])
    np.testing.assert_allclose(frontier.mean, np.linalg.lstsq(rows, right, rcond=None)[0], atol=1e-8)
    np.testing.assert_allclose(frontier.covariance, np.linalg.inv(rows.T @ rows), atol=1e-10)
    np.testing.assert_allclose(frontier.mean, truth, atol=0.15)


def test_order_of_launches_does_not_matter() -> None:
    picked = [reading(J[i], float(MARGIN[i]), float(MARGIN[i]) + 0.01 * i - 1.0) for i in (3, 50, 120, 200)]
    one, other = fit(picked), fit(picked[::-1])
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-9)


@pytest.mark.parametrize("kind", ["at_most", "at_least"])
def test_a_bound_teaches_only_when_it_is_broken(kind: Kind) -> None:
    sign = 1.0 if kind == "at_most" else -1.0
    x, predicted = J[100], float(MARGIN[100])
    kept = fit([reading(x, predicted, predicted + sign * 5.0, kind)])
    np.testing.assert_array_equal(kept.mean, PRIOR.mean)
    np.testing.assert_array_equal(kept.covariance, PRIOR.covariance)
    broken = fit([reading(x, predicted, predicted - sign * 1.0, kind)])
    exact = fit([reading(x, predicted, predicted - sign * 1.0)])
    np.testing.assert_allclose(broken.mean, exact.mean)


@given(
    row=st.integers(0, len(MARGIN) - 1),
    seen=st.integers(0, len(MARGIN) - 1),
    low=st.floats(-8, 8),
    step=st.floats(0, 5),
)
def test_monotone_in_the_prediction_and_where_it_matters_in_what_was_seen(
    row: int, seen: int, low: float, step: float
) -> None:
    frontier = fit([reading(J[seen], float(MARGIN[seen]), low)])
    better = fit([reading(J[seen], float(MARGIN[seen]), low + step)])
    x, predicted = J[row], float(MARGIN[row])
    both, margins_gib = np.stack([x, x]), [predicted, predicted + step]
    fits, shortfalls_gib = frontier.p_fits(both, margins_gib), frontier.expected_shortfall_gib(both, margins_gib)
    assert fits[1] >= fits[0]
    assert shortfalls_gib[1] <= shortfalls_gib[0] + 1e-12
    # The launch itself fits the better, the more it had left.
    own = J[[seen]], MARGIN[[seen]]
    assert better.p_fits(*own) >= frontier.p_fits(*own)


@given(margin=st.floats(-20, 20), sd=st.floats(0.2, 5))
def test_probability_and_shortfall_are_those_of_a_normal_margin(margin: float, sd: float) -> None:
    x = np.zeros((1, N_FEATURES))
    x[0, 0] = math.sqrt(sd**2 - READING_GIB**2)
    truth = stats.norm(margin, sd)
    assert float(PRIOR.p_fits(x, [margin])[0]) == pytest.approx(truth.sf(0), abs=1e-12)
    shortfall = truth.expect(lambda m: -m, ub=0.0) if truth.cdf(0) > 1e-12 else 0.0
    assert float(PRIOR.expected_shortfall_gib(x, [margin])[0]) == pytest.approx(shortfall, abs=1e-6)


def test_sensitivities_are_the_law_shifted_by_one_standard_deviation() -> None:
    row = 133
    name, sigma = "fragmentation_base_gib", MEMORY_ERROR["fragmentation_base_gib"]
    column = list(MEMORY_ERROR).index(name)
    base = NOMINAL.fragmentation_base_gib
    # Held outside the pool at the last stage, GiB for GiB.
    served = shifted(grid, NOMINAL).margin(margin_at(UNDER_LOAD))[1]
    assert served[row, column] == pytest.approx(-base * math.sinh(sigma))
    assert JS.shape == (*MARGINS.shape, N_FEATURES)
    np.testing.assert_allclose(MARGINS.min(axis=1), grid(NOMINAL).headroom_gib)


def launches(constants: MemoryConstants, n: int, seed: int) -> list[Observation]:
    """A greedy searcher on one truth: it launches what should fit, the larger the better, and reads what happens."""
    rng, truth, seen = np.random.default_rng(seed), grid(constants), list[Observation]()
    for _ in range(n):
        score = np.log(BATCH) + 0.3 * np.log(TOKENS) + 3 * FRACTION + rng.normal(0, 0.5, len(BATCH))
        row = int(np.argmax(np.where(fit(seen).p_fits(JS, MARGINS) > 0.5, score, -np.inf)))
        stage = int(truth.failing_stage[row])
        stage = UNDER_LOAD if stage < 0 else stage

        def law(c: MemoryConstants, row: int = row) -> MemoryBudget:
            return memory_budget(TERMS, settings(row), c)

        predicted, x = shifted(law, NOMINAL).margin(margin_at(stage))
        seen.append(reading(x, float(predicted), float(truth.margin_gib[stage, row])))
    return seen


def test_on_drawn_truths_it_is_calibrated_and_learns() -> None:
    before, after, p_before, p_after, fitted = [], [], [], [], []
    for world in range(40):
        constants = draw(world)
        truth = grid(constants).headroom_gib
        frontier = fit(launches(constants, 6, world))
        before.append(np.abs(MARGINS.min(axis=1) - truth).mean())
        after.append(np.abs(frontier.margin_gib(JS, MARGINS)[0].min(axis=1) - truth).mean())
        p_before.append(PRIOR.p_fits(JS, MARGINS))
        p_after.append(frontier.p_fits(JS, MARGINS))
        fitted.append(truth >= 0)
    assert np.mean(after) < 0.35 * np.mean(before)
    fits = np.concatenate(fitted)
    # Over 2,000 truths the prior is 0.027 too hopeful (it is linear, the truth is a least of several margins), and the
    # share that fits has a standard deviation of 0.073 between truths: 40 of them allow 0.027 + 2 x 0.012.
    for p, tolerance in ((np.concatenate(p_before), 0.051), (np.concatenate(p_after), 0.02)):
        assert abs(p.mean() - fits.mean()) < tolerance
        assert fits[p > 0.95].mean() > 0.95
        assert fits[p < 0.05].mean() < 0.05
        # Better than knowing only how many fit, and proper: a Brier score.
        assert np.mean((p - fits) ** 2) < 0.5 * fits.mean() * (1 - fits.mean())


def record(outcome: Outcome, headroom_gib: float | None = None, source: Source = "simulated") -> TrialRecord:
    report = None
    if headroom_gib is not None:
        report = MemoryReport(
            weights=50.0, activations=1.0, cuda_graphs=0.5, kv_pool=20.0, other=8.5 - headroom_gib, capacity=80.0
        )
    return TrialRecord(
        number=0,
        role="search",
        origin="test",
        config=ServingConfig(
            max_batch_size=64, max_num_tokens=4096, cuda_graph_max_batch_size=64, kv_cache_free_gpu_memory_fraction=0.9
        ),
        source=source,
        engine_label="simulated by the twin",
        seed=0,
        outcome=outcome,
        memory_measured_gib=report,
    )


def said(known: TrialRecord) -> Observation | None:
    """What a trial without a profile says of its last moment."""
    return next(iter(observations(known, one, NOMINAL)[::-1]), None)


def one(constants: MemoryConstants) -> MemoryBudget:
    return memory_budget(TERMS, settings(133), constants)


def busy(constants: MemoryConstants) -> MemoryBudget:
    """With a step of 8,192 tokens, and so more activations."""
    return memory_budget(TERMS, settings(163), constants)


def test_what_a_trial_says() -> None:
    stage = STAGES[4]
    oom = OutOfMemory(phase=stage.phase, component=stage.component, short_gib=1.5)
    known = said(record(oom))
    assert known is not None
    assert (known.kind, known.observed_gib) == ("exact", -1.5)
    assert known.predicted_gib == pytest.approx(float(one(NOMINAL).margin_gib[4]))
    real = said(record(oom, source="measured"))
    assert real is not None
    assert (real.kind, real.observed_gib, real.predicted_gib) == ("at_most", -1.5, known.predicted_gib)
    elsewhere = said(record(OutOfMemory(phase="serve", component="?", short_gib=0.5)))
    assert elsewhere is not None
    assert (elsewhere.kind, elsewhere.observed_gib) == ("at_most", -0.5)
    assert elsewhere.predicted_gib == pytest.approx(float(one(NOMINAL).headroom_gib))
    served = said(record(Measured(), headroom_gib=2.0))
    assert served is not None
    assert served.kind == "exact"
    assert served.observed_gib == pytest.approx(2.0)
    assert served.predicted_gib == pytest.approx(float(one(NOMINAL).margin_gib[UNDER_LOAD]))
    seen = said(record(Measured(), headroom_gib=2.0, source="measured"))
    assert seen is not None
    assert seen.kind == "at_least", "PyTorch's cache counts as used and would be given back"
    for blind, n_moments in ((Measured(), 3), (Unhealthy(reason="small pool"), 2), (Started(), 2)):
        bounds = observations(record(blind), one, NOMINAL)
        assert [(bound.kind, bound.observed_gib) for bound in bounds] == [("at_least", 0.0)] * n_moments
        assert min(bound.predicted_gib for bound in bounds) >= float(one(NOMINAL).headroom_gib)
    for silent in (
        Rejected(rule="memory", reason="r", excess=1.0),
        Infrastructure(reason="port"),
        Crashed(phase="serve", reason="r"),
    ):
        assert said(record(silent)) is None


def caching(constants: MemoryConstants) -> MemoryBudget:
    terms = replace(TERMS, fraction="of_total", cached_per_activation=0.4, cached_logits_copies=1.0)
    return memory_budget(terms, replace(settings(133), kv_fraction=0.6), constants)


@pytest.mark.parametrize("source", ["simulated", "measured"])
def test_what_a_launch_kept_cached_corrects_the_cache_and_nothing_else(source: Source) -> None:
    kept_gib = 1.5 * float(caching(NOMINAL).cached_gib)
    served = record(Measured(), headroom_gib=2.0, source=source)
    assert served.memory_measured_gib is not None
    # A driver counts it with the fragmentation; the twin tells it apart.
    told = (
        {"cached": kept_gib}
        if source == "simulated"
        else {"other": kept_gib + float(caching(NOMINAL).fragmentation_gib)}
    )
    seen = changed(served, memory_measured_gib=changed(served.memory_measured_gib, **told))
    of_cache = [each for each in observations(seen, caching, NOMINAL) if each.features[len(MEMORY_ERROR) : -1].any()]
    (reading,) = of_cache
    assert not reading.features[: len(MEMORY_ERROR)].any()
    assert reading.features[-1] == 0.0
    frontier = fit(of_cache)
    np.testing.assert_array_equal(frontier.p_fits(JS, MARGINS), PRIOR.p_fits(JS, MARGINS))
    known = fit(of_cache * 100).constants(NOMINAL)
    assert float(caching(known).cached_gib) == pytest.approx(kept_gib, rel=0.02)
    assert {name for name in MEMORY_ERROR if getattr(known, name) != getattr(NOMINAL, name)} == set()


def test_a_full_gpu_says_nothing_of_the_cache() -> None:
    """What was needed was given back."""

    def full(constants: MemoryConstants) -> MemoryBudget:
        budget = caching(constants)
        short = budget.margin_gib - budget.margin_gib[-1] + budget.cacheable_gib.sum() / 2
        return replace(budget, free_gib=budget.tried_gib + short)

    seen = observations(record(Measured(), headroom_gib=2.0, source="measured"), full, NOMINAL)
    assert not any(each.features[len(MEMORY_ERROR) : -1].any() for each in seen)


def test_a_given_kv_pool_that_holds_too_little_says_nothing_of_memory() -> None:
    def given(constants: MemoryConstants) -> MemoryBudget:
        return memory_budget(TERMS, replace(settings(133), kv_pool_gib=0.001), constants)

    refused = OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=0.002)
    assert observations(record(refused), given, NOMINAL) == []
    assert len(observations(record(refused), one, NOMINAL)) == 1, "what is free made too small a pool"
    full = changed(refused, tried_gib=2.0, free_gib=1.0, short_gib=1.0)
    assert len(observations(record(full), given, NOMINAL)) == 1, "an allocation that fails is memory that is missing"


def test_one_oom_closes_the_door_behind_it() -> None:
    """After an OOM no configuration that needs more of everything is thought to fit."""
    row = int(np.argmax((MARGINS.min(axis=1) > 0) & (BATCH == 256) & (FRACTION == 0.9) & (GRAPHS == 64)))
    frontier: Frontier = fit([reading(J[row], float(MARGIN[row]), -1.0, "at_most")])
    larger = (BATCH[row] <= BATCH) & (TOKENS[row] <= TOKENS) & (FRACTION[row] <= FRACTION) & (GRAPHS[row] <= GRAPHS)
    assert larger.sum() > 10
    assert (frontier.p_fits(JS, MARGINS)[larger] < 0.5).all()


def drawn_wider(seed: int, times: float) -> MemoryConstants:
    """A world whose constants are off by a multiple of what is expected of them."""
    drawn = draw(seed)
    off = {name: getattr(drawn, name) / getattr(NOMINAL, name) for name in MEMORY_ERROR}
    return replace(NOMINAL, **{name: getattr(NOMINAL, name) * off[name] ** times for name in off})


@pytest.mark.parametrize("times", [1.0, 3.0])
def test_p_fits_falls_as_any_setting_grows(times: float) -> None:
    for seed in range(6):
        frontier = fit(launches(drawn_wider(seed, times), 6, seed))
        on_axes = frontier.p_fits(JS, MARGINS).reshape(5, 4, 5, 3)
        for axis in range(on_axes.ndim):
            assert np.diff(on_axes, axis=axis).max() < 0.02


def profiled_by(budget: MemoryBudget) -> ProfiledMemory:
    return ProfiledMemory(
        weights=float(budget.weights_gib),
        activations=float(budget.activations_gib),
        outside_torch=float(budget.runtime_gib + budget.comm_gib + budget.graphs_gib),
    )


def test_weights_larger_than_declared_are_believed_and_nothing_else_moves() -> None:
    truth = replace(NOMINAL, weights_factor=1.12)  # twelve standard deviations
    crashed = changed(record(Crashed(phase="serve", reason="r")), profiled_gib=profiled_by(busy(truth)))
    frontier = fit(observations(crashed, busy, NOMINAL))
    assert frontier.constants(NOMINAL).weights_factor == pytest.approx(1.12, abs=0.003)
    assert np.abs(frontier.mean[1:]).max() < 0.3
    mean, sd = frontier.margin_gib(JS, MARGINS)
    errors = np.abs(mean.min(axis=1) - grid(truth).headroom_gib)
    assert (errors < 2 * sd.max(axis=1)).mean() > 0.95


def test_a_surprise_that_is_the_same_everywhere_is_a_misfit_and_leaves_more_doubt() -> None:
    rows, surprise_gib = (20, 133), -6.0
    far, near = (
        fit([reading(J[row], float(MARGIN[row]), float(MARGIN[row]) + gib) for row in rows])
        for gib in (surprise_gib, 0.0)
    )
    off_gib = np.abs(far.expected(J, MARGIN)[0] - (MARGIN + surprise_gib))
    assert np.median(off_gib) < 0.1
    assert far.covariance[-1, -1] > near.covariance[-1, -1]


def test_a_launch_that_dies_while_capturing_still_tells_the_phases_before() -> None:
    truth = replace(NOMINAL, activations_factor=1.5)
    dead = OutOfMemory(phase=STAGES[4].phase, component=STAGES[4].component, short_gib=0.4)
    said = changed(record(dead, source="measured"), profiled_gib=profiled_by(busy(truth)))
    found = observations(said, busy, NOMINAL)
    assert [each.kind for each in found] == ["exact", "exact", "exact", "at_most"]
    assert fit(found).constants(NOMINAL).activations_factor == pytest.approx(1.5, abs=0.1)


def test_kv_tokens_are_read_as_if_the_gpu_had_the_capacity_of_the_law() -> None:
    truth, smaller = replace(NOMINAL, kv_block_reserve=0.03), replace(TERMS, capacity_gib=78.0)
    budget = memory_budget(smaller, settings(163), truth)
    said = changed(
        profiled_by(budget),
        total=78.0,
        kv_bytes_per_token=TERMS.kv_bytes_per_token,
        kv_pool=float(budget.kv_pool_gib),
        kv_tokens=int(budget.kv_tokens),
    )
    config = changed(record(Started()).config, kv_cache_free_gpu_memory_fraction=float(FRACTION[163]))
    found = observations(changed(record(Started()), profiled_gib=said, config=config), busy, NOMINAL)
    fitted = memory_budget(smaller, settings(163), fit(found).constants(NOMINAL))
    nominal = memory_budget(smaller, settings(163), NOMINAL)
    truth_tokens = int(budget.kv_tokens)
    assert abs(int(fitted.kv_tokens) - truth_tokens) < 0.2 * abs(int(nominal.kv_tokens) - truth_tokens)


def test_what_a_log_does_not_tell_apart_is_read_as_their_sum() -> None:
    """vLLM's counts runtime and communicators among the activations."""

    def counted_together(constants: MemoryConstants) -> MemoryBudget:
        return memory_budget(replace(TERMS, fraction="of_total"), settings(163), constants)

    budget = counted_together(replace(NOMINAL, activations_factor=1.3, runtime_factor=0.9))
    told = changed(profiled_by(budget), activations=float(budget.profiled_gib), outside_torch=None, peak=None)
    said = observations(changed(record(Started()), profiled_gib=told), counted_together, NOMINAL)
    found = counted_together(fit(said).constants(NOMINAL))
    assert float(found.profiled_gib) == pytest.approx(float(budget.profiled_gib), abs=0.06)
