"""What compiling the graph takes of a start of vLLM: by hand, as laws, and against recorded starts."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.app.forecast import Forecaster
from advisor.domain.measurement import ProfiledMemory
from advisor.domain.outcome import Started
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.memory.constants import TRTLLM_MEMORY, VLLM_MEMORY, MemoryConstants
from advisor.memory.frontier import MOMENTS, fit, margins, observations
from advisor.memory.law import MemoryBudget, memory_budget, p_fits
from advisor.memory.terms import MemorySettings, MemoryTerms
from advisor.store.run_card import CARD, read_card
from advisor.store.trial_folder import committed
from advisor.twin.constants import NOMINAL
from advisor.twin.predict import memory_report

EVIDENCE = Path(__file__).parents[2] / "studies" / "evidence"
RUNS = sorted(path.parent for path in EVIDENCE.glob(f"h[12]00-vllm-0.24.0/**/{CARD}"))
# 1 GiB a token of 8192 for activations, 1 GiB a copy of 1,024 rows of logits, 1 MiB of KV cache a token.
TABLES = MemoryTerms(
    weights_gib=40.0,
    activations_floor_gib=0.0,
    activations_gib_per_token=1 / 8192,
    runtime_gib=3.0,
    comm_gib=0.5,
    kv_bytes_per_token=1024.0**2,
    capacity_gib=80.0,
    vocab_size=262_144,
)
BY_HAND = replace(
    TABLES,
    fraction="of_total",
    runtime_gib=0.5,
    comm_gib=0.0,
    activations_kept=0.25,
    sampled_logits_copies=1.5,
    compiling_gib=2.0,
)
ON_VLLM = TABLES.under(VLLM_MEMORY, "h100_sxm")
ASKED = {
    "max_batch_size": st.integers(1, 2048),
    "max_num_tokens": st.integers(64, 65_536),
    "kv_fraction": st.floats(0.6, 0.99),
}
STARTS = st.builds(MemorySettings, **ASKED, n_graphs=st.integers(1, 60), largest_graph=st.integers(1, 1024))
EAGER = st.builds(MemorySettings, **ASKED, n_graphs=st.just(0), largest_graph=st.just(0))


def compiling_or_loading(terms: MemoryTerms, settings: MemorySettings) -> tuple[MemoryBudget, MemoryBudget]:
    made, found = (memory_budget(terms, replace(settings, compiled=each), NOMINAL) for each in (False, True))
    return made, found


def needed_beside_pool(budget: MemoryBudget) -> float:
    return float(budget.capacity_gib - budget.margin_gib[-1] - budget.kv_pool_gib)


@pytest.mark.parametrize(
    ("batch", "tokens", "profiled_gib", "loaded_gib"),
    [
        (64, 8192, 0.25 + 2.0, 0.25 + 0.75),  # the forward pass is more than 1.5 x 1/16 of logits
        (1024, 8192, 0.25 + 2.0, 0.25 + 1.5),  # sampling is more than the forward pass
        (64, 32_768, 1.0 + 3.0, 1.0 + 3.0),  # neither is more than the forward pass
    ],
)
def test_the_largest_of_three_by_hand(batch: int, tokens: int, profiled_gib: float, loaded_gib: float) -> None:
    made, found = compiling_or_loading(BY_HAND, MemorySettings(batch, tokens, 0.9, 20, 256))
    assert float(made.profiled_gib) == pytest.approx(0.5 + profiled_gib)
    assert float(found.profiled_gib) == pytest.approx(0.5 + loaded_gib)
    assert float(made.activations_gib) == float(found.activations_gib) == pytest.approx(loaded_gib)
    assert float(made.kv_pool_gib) == pytest.approx(0.9 * 80 - 40 - 0.5 - profiled_gib)


def test_a_start_that_has_no_room_to_compile_dies_while_profiling() -> None:
    terms = replace(BY_HAND, weights_gib=78.0)  # 80 - 78 - 0.5 leaves 1.5 GiB
    made, found = compiling_or_loading(terms, MemorySettings(64, 8192, 0.99, 20, 256))
    assert int(made.failing_stage) == 2
    assert float(found.margin_gib[2]) == pytest.approx(0.5)


@given(STARTS)
def test_compiling_takes_of_the_pool_and_nothing_under_load(settings: MemorySettings) -> None:
    made, found = compiling_or_loading(ON_VLLM, settings)
    assert float(made.kv_pool_gib) <= float(found.kv_pool_gib)
    assert float(made.profiled_gib) >= float(found.profiled_gib)
    stays_gib = ON_VLLM.compiled_gib if np.any(settings.n_graphs) else 0.0
    assert needed_beside_pool(made) == pytest.approx(needed_beside_pool(found) + stays_gib)
    np.testing.assert_allclose(made.cacheable_gib, found.cacheable_gib)


@given(EAGER)
def test_an_eager_start_compiles_nothing(settings: MemorySettings) -> None:
    made, found = compiling_or_loading(ON_VLLM, settings)
    assert float(made.compiling_gib) == 0.0
    np.testing.assert_array_equal(made.margin_gib, found.margin_gib)


@given(STARTS)
def test_trtllm_knows_no_such_start(settings: MemorySettings) -> None:
    made, found = compiling_or_loading(TABLES.under(TRTLLM_MEMORY, "h100_sxm"), settings)
    assert float(made.profiled_gib) == float(made.activations_gib)
    np.testing.assert_array_equal(made.margin_gib, found.margin_gib)
    np.testing.assert_array_equal(made.margin_gib, made.of_any_start.margin_gib)


@given(STARTS)
def test_what_fits_must_also_fit_when_it_is_started_again(settings: MemorySettings) -> None:
    """Its pool is larger then by what compiling took, under the same load."""
    made, found = compiling_or_loading(ON_VLLM, settings)
    safe = made.of_any_start.margin_gib
    assert (safe <= np.minimum(made.margin_gib, found.margin_gib) + 1e-9).all()
    chance = float(p_fits(ON_VLLM, settings, NOMINAL))
    assert chance <= float(p_fits(ON_VLLM, replace(settings, compiled=True), NOMINAL)) + 1e-9

    def law(constants: MemoryConstants) -> MemoryBudget:
        return memory_budget(ON_VLLM, settings, constants)

    assert margins(law, NOMINAL, MOMENTS)[0].min() == pytest.approx(safe.min())


@given(STARTS, st.sampled_from(["max_batch_size", "max_num_tokens", "n_graphs"]))
def test_asking_for_more_never_fits_better(settings: MemorySettings, name: str) -> None:
    more = replace(settings, **{name: 2 * int(getattr(settings, name))})  # type: ignore[arg-type]
    less_, more_ = (memory_budget(ON_VLLM, each, NOMINAL).of_any_start for each in (settings, more))
    assert float(more_.headroom_gib) <= float(less_.headroom_gib) + 1e-9
    assert int(more_.kv_tokens) <= int(less_.kv_tokens)


def test_a_pool_that_is_given_is_that_of_every_start() -> None:
    made, found = compiling_or_loading(ON_VLLM, MemorySettings(64, 1024, 0.9, 20, 256, kv_pool_gib=8.0))
    assert float(made.kv_pool_gib) == float(found.kv_pool_gib) == 8.0
    np.testing.assert_array_equal(made.of_any_start.margin_gib, made.margin_gib)


@given(STARTS)
def test_a_report_adds_up_to_what_is_in_use(settings: MemorySettings) -> None:
    """Where a step needs less than compiling took, too."""
    for budget in compiling_or_loading(ON_VLLM, settings):
        report = memory_report(budget)
        assert report.other >= 0.0
        assert report.headroom == pytest.approx(float(budget.margin_gib[-1]))


def test_what_compiling_takes_of_another_model_is_learnt_as_that() -> None:
    """Of a step it says nothing: neither the activations nor the runtime answer for it."""
    truth, settings = replace(NOMINAL, compiling_factor=1.5), MemorySettings(128, 2048, 0.9, 35, 256)

    def law(constants: MemoryConstants) -> MemoryBudget:
        return memory_budget(ON_VLLM, settings, constants)

    budget = law(truth)
    record = TrialRecord(
        number=0,
        role="search",
        origin="test",
        config=ServingConfig(
            max_batch_size=128,
            max_num_tokens=2048,
            cuda_graph_max_batch_size=256,
            kv_cache_free_gpu_memory_fraction=0.9,
        ),
        source="measured",
        engine_label="",
        seed=0,
        outcome=Started(),
        profiled_gib=ProfiledMemory(
            total=float(budget.capacity_gib),
            weights=float(budget.weights_gib),
            activations=float(budget.profiled_gib),
            kv_bytes_per_token=ON_VLLM.kv_bytes_per_token,
            kv_tokens=int(budget.kv_tokens),
        ),
    )
    learnt = fit(observations(record, law, NOMINAL)).constants(NOMINAL)
    assert learnt.compiling_factor == pytest.approx(1.5, abs=0.1)
    assert learnt.activations_factor == pytest.approx(1.0, abs=0.05)
    assert learnt.runtime_factor == pytest.approx(1.0, abs=0.1)


def starts(run: Path) -> list[tuple[TrialRecord, bool]]:
    """Trials of a run that told what they profiled, and whether their log says that the graph was loaded."""
    found = []
    for record in committed(run):
        if record.profiled_gib is not None and record.profiled_gib.activations is not None:
            log = gzip.decompress((run / "trials" / f"{record.number:04d}" / "server.log.gz").read_bytes())
            found.append((record, b"Directly load the compiled graph" in log))
    return found


def test_recorded_starts_that_compiled_their_graph_loaded_it_or_had_none() -> None:
    n_loaded = n_compiled = n_eager = 0
    for run in RUNS:
        card = read_card(run)
        forecaster = Forecaster(card.deployment, card.workloads, card.slo)
        for record, loaded in starts(run):
            budget = forecaster.law(record.config, compiled=loaded)(NOMINAL)
            assert record.profiled_gib is not None
            assert float(budget.profiled_gib) == pytest.approx(record.profiled_gib.activations, abs=0.023)
            eager = not record.config.cuda_graph_max_batch_size
            n_eager, n_loaded, n_compiled = n_eager + eager, n_loaded + loaded, n_compiled + (not eager and not loaded)
    assert (n_compiled, n_loaded, n_eager) == (68, 21, 6)
