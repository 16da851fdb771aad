"""Prices against the law itself: what a step truly takes in worlds that the frontier does not know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advisor.memory.constants import MEMORY_ERROR, MemoryConstants
from advisor.memory.frontier import Observation, Quantity, fit, margin_at, shifted
from advisor.memory.law import MemoryBudget
from advisor.memory.pricing import Price, Pricing, Setting
from advisor.memory.stages import UNDER_LOAD
from advisor.memory.terms import MemoryTerms

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
NOW: dict[Setting, float] = {"fraction": 0.9, "tokens": 8192, "batch": 512, "graphs": 256}


def ladder(largest: int, batch: int, tokens: int) -> list[int]:
    return [size for size in (1, 2, 4, 8, *range(16, 257, 16)) if size <= min(largest, batch, tokens)]


def world(seed: int) -> MemoryConstants:
    rng = np.random.default_rng(seed)
    drawn = {name: np.exp(sigma * rng.standard_normal()) for name, sigma in MEMORY_ERROR.items()}
    return replace(NOMINAL, **{name: float(getattr(NOMINAL, name) * factor) for name, factor in drawn.items()})


def prices(pricing: Pricing) -> dict[str, Price]:
    return {price.setting: price for price in pricing.prices(str)}


LAW = Pricing(TERMS, NOMINAL, NOW, ladder)


def test_a_step_takes_what_the_law_says() -> None:
    found = prices(LAW)
    assert set(found) == {"fraction", "tokens", "graphs", "batch"}
    assert found["fraction"].gib == pytest.approx(0.01 * float(LAW.budget().kv_pool_gib) / 0.9, rel=1e-3)
    # A token of a step takes its activations, and their share that is lost to fragmentation.
    lost = 1 + NOMINAL.fragmentation_per_activation
    assert found["tokens"].gib == pytest.approx(1024 * TERMS.activations_gib_per_token * lost, rel=1e-3)
    assert found["graphs"].step == "the largest size, 240 to 256"
    assert found["batch"].step == "256 to 512 requests"
    assert found["fraction"].kv_tokens > 0 > found["tokens"].kv_tokens
    assert found["batch"].kv_tokens == 0, "sampling buffers are no concern of the pool"


def test_prices_are_as_sure_as_they_say_and_surer_after_launches() -> None:
    """Standardised errors of 20 worlds, before any launch and after one whose margin and components were read."""
    around, under_load = shifted(LAW.law(), NOMINAL), margin_at(UNDER_LOAD)
    components: tuple[Quantity, ...] = (
        lambda budget: budget.weights_gib,
        lambda budget: budget.activations_gib,
        lambda budget: budget.graphs_gib,
    )
    below: dict[str, dict[Setting, float]] = {
        step.setting: {step.setting: step.below} for step in LAW.steps() if step.setting != "fraction"
    }
    prior, errors, sds = prices(LAW), [], []
    for seed in range(20):
        budget = LAW.law()(world(seed))
        readings = [(*around.slopes(part), part) for part in components]
        readings.append((*around.margin(under_load), under_load))
        said = [Observation(J, float(at), float(part(budget)), "exact") for at, J, part in readings]
        learnt = prices(replace(LAW, frontier=fit(said)))
        for name, change in below.items():
            truth_gib = beside_pool_gib(budget) - beside_pool_gib(LAW.law(change)(world(seed)))
            pair = (prior[name], learnt[name])
            errors.append([(price.gib - truth_gib) / max(price.gib_sd, 1e-3) for price in pair])
            sds.append([price.gib_sd for price in pair])
    off = np.abs(np.array(errors))
    assert np.mean(off < 1, axis=0) == pytest.approx(0.68, abs=0.2)
    assert (np.mean(off < 3, axis=0) > 0.95).all()
    sd_before, sd_after = np.mean(sds, axis=0)
    assert sd_after < 0.8 * sd_before


def beside_pool_gib(budget: MemoryBudget) -> float:
    return float(budget.beside_pool_gib)
