"""The memory law: hand arithmetic, TensorRT-LLM's own worked example, measured KV capacities, and laws."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advisor
from advisor.memory.constants import MEMORY_ERROR, MemoryConstants, MemoryFraction
from advisor.memory.law import STAGES, MemoryBudget, available_kv_gib, kv_pool_tokens, memory_budget, p_fits
from advisor.memory.terms import MemoryLoad, MemorySettings, MemoryTerms, kv_bytes_per_token, kv_overpromise
from advisor.twin.layout import Layout, TableKey, quant_modes, table_model
from advisor.twin.step_tables import TableSet

NOMINAL = MemoryConstants()
# One GiB per copy of 1,024 rows of logits; 1 MiB of KV cache per token.
TERMS = MemoryTerms(
    weights_gib=40.0,
    activations_floor_gib=0.1,
    activations_gib_per_token=1 / 8192,
    runtime_gib=3.322,
    comm_gib=0.5,
    kv_bytes_per_token=1024.0**2,
    capacity_gib=80.0,
    vocab_size=262_144,
)
ROUND = MemoryConstants(
    graph_base_gib=0.5,
    graph_per_size_gib=0.01,
    graph_per_row_gib=0.001,
    recapture_share=0.5,
    logits_copies=2.0,
    fragmentation_base_gib=0.25,
    fragmentation_per_activation=0.25,
    capture_fragmentation_share=0.5,
    kv_block_reserve=0.0,
)


def settings(
    batch: int = 512, tokens: int = 8192, fraction: float = 0.9, n_graphs: int = 20, largest: int = 300
) -> MemorySettings:
    return MemorySettings(batch, tokens, fraction, n_graphs, largest)


CACHING = replace(TERMS, cached_per_activation=0.5, cached_logits_copies=2.0)
SPLITTING = replace(TERMS, attention_split_gib_per_token=1 / 512)


def test_what_is_cached_by_hand() -> None:
    # Half of 1 GiB of activations, and 2 x 512 rows x 262,144 x 4 B = 1.
    found = memory_budget(CACHING, settings(fraction=0.8), ROUND)
    assert found.cacheable_gib.tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert float(found.cached_gib) == pytest.approx(1.5)
    # Warm-up samples a full batch, as far as a step holds it, however few requests come.
    few = memory_budget(CACHING, settings(tokens=256), ROUND, MemoryLoad(requests=1, request_tokens=10))
    assert float(few.cacheable_gib[1]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("batch", "tokens", "largest", "needed_gib", "cached_gib"),
    [
        (256, 8192, 512, 0.0, 0.75),  # 512 rows are 1 GiB, as the forward pass is; 256 rows of logits serve a quarter
        (256, 8192, 1024, 1.0, 0.75),
        (64, 256, 1024, 0.4, 0.0375),  # a step has 256 rows, 0.5 GiB, and 0.1 of activations
        (1024, 8192, 512, 0.0, 0.0),
        (128, 256, 1024, 0.4, 0.0),
        (64, 8192, 0, 0.0, 0.0),
    ],
)
def test_partial_results_of_attention_by_hand(
    batch: int, tokens: int, largest: int, needed_gib: float, cached_gib: float
) -> None:
    asked = settings(batch, tokens, n_graphs=min(largest, 20), largest=largest)
    split, whole = (memory_budget(replace(terms, fraction="of_total"), asked, ROUND) for terms in (SPLITTING, TERMS))
    assert float(split.attention_gib) == pytest.approx(needed_gib)
    assert float(whole.margin_gib[-1] - split.margin_gib[-1]) == pytest.approx(needed_gib)
    assert float(split.cacheable_gib[2]) == pytest.approx(cached_gib)
    np.testing.assert_array_equal(split.kv_pool_gib, whole.kv_pool_gib)


@given(fraction=st.floats(0.5, 1.0), batch=st.integers(1, 2048), fractions_of_total=st.booleans())
def test_what_is_cached_decides_nothing_and_is_given_back(
    fraction: float, batch: int, fractions_of_total: bool
) -> None:
    kind: MemoryFraction = "of_total" if fractions_of_total else "of_free"
    asked = settings(batch, fraction=fraction)
    caching, plain = (memory_budget(replace(t, fraction=kind), asked, ROUND) for t in (CACHING, TERMS))
    np.testing.assert_array_equal(caching.margin_gib, plain.margin_gib)
    assert int(caching.kv_tokens) == int(plain.kv_tokens)
    assert float(plain.cached_gib) == 0.0
    assert 0.0 <= float(caching.cached_gib) <= max(0.0, float(caching.margin_gib[-1]))


def test_whole_graphs_end_at_the_largest_batch() -> None:
    """vLLM captures its larger sizes in pieces only: they cost what a size costs, and no rows."""
    small, large = (float(memory_budget(TERMS, settings(batch=256, largest=n), ROUND).graphs_gib) for n in (256, 512))
    assert small == large


def test_components_and_pool_by_hand() -> None:
    found = memory_budget(TERMS, settings(), ROUND)
    # Graphs 0.5 + 20 x 0.01 + 300 x 0.001 = 1; runtime 3.322 less the 0.322 of default graphs; activations 8192 / 8192.
    assert float(found.graphs_gib) == pytest.approx(1.0)
    assert float(found.runtime_gib) == pytest.approx(3.0)
    assert float(found.activations_gib) == pytest.approx(1.0)
    # free = 80 - 40 - 3 - 0.5 - 1 - 1 = 34.5
    assert float(found.kv_pool_gib) == pytest.approx(0.9 * 34.5)
    assert int(found.kv_tokens) == -(-int(0.9 * 34.5 * 1024) // 32) * 32
    # Logits 2 x 512 rows x 262,144 x 4 B = 1; fragmentation 0.25 + 0.25 x 1 + half of the graphs again = 1.
    assert float(found.logits_gib) == pytest.approx(1.0)
    assert float(found.fragmentation_gib) == pytest.approx(1.0)
    assert float(found.margin_gib[-1]) == pytest.approx(0.1 * 34.5 - 2.0)
    # The second capture: half of the 0.5 of fragmentation and 0.5 of graphs, beyond what profiling paid for.
    assert float(found.margin_gib[4]) == pytest.approx(0.1 * 34.5 - 0.5 - 0.25)
    assert bool(found.fits)


@pytest.mark.parametrize(
    ("terms", "changed", "stage", "short_gib"),
    [
        (replace(TERMS, weights_gib=77.0), {}, 0, 77.0 - (80 - 3.0 - 0.5)),
        (replace(TERMS, weights_gib=76.0), {}, 1, 1.0 - (80 - 76 - 3.5 - 0.9 * 0.5)),
        (TERMS, {"tokens": 40 * 8192}, 2, 40.0 - (80 - 40 - 3.5 - 0.9 * 36.5 - 1.0)),
        (TERMS, {"fraction": 0.99}, 4, 0.75 - 0.345),
        (TERMS, {"fraction": 0.95}, 5, 2.0 - 0.05 * 34.5),
        (TERMS, {"batch": 2048}, 5, 5.0 - 3.45),
    ],
)
def test_each_stage_runs_out_in_its_turn(
    terms: MemoryTerms, changed: dict[str, float], stage: int, short_gib: float
) -> None:
    found = memory_budget(terms, settings(**changed), ROUND)  # type: ignore[arg-type]
    assert int(found.failing_stage) == stage
    assert -float(found.margin_gib[stage]) == pytest.approx(short_gib)
    assert not bool(found.fits)


def test_stages_are_named_like_the_engines_own_report() -> None:
    assert [stage.phase for stage in STAGES] == [
        "load",
        "kv_estimate",
        "kv_estimate",
        "kv_allocate",
        "warm_up",
        "serve",
    ]
    assert STAGES[3].component == "KV cache"


def test_nothing_left_for_a_single_block_fails_at_the_kv_cache() -> None:
    # 80 - 3.5 of base - 74 of weights - 1 of graphs - 1.49 of activations leaves 10 MiB; a block takes 32.
    terms = replace(
        TERMS, weights_gib=74.0, activations_floor_gib=1.49, activations_gib_per_token=0.0, kv_bytes_per_token=2.0**20
    )
    found = memory_budget(terms, settings(tokens=1), ROUND)
    assert int(found.failing_stage) == 3
    assert float(found.kv_pool_gib) * 1024 < 32


def test_the_engines_worked_example() -> None:
    # A real start log prints 119.70 total, 113.65 peak, 0.56 temporary pool, 73,728 B a token and 86,720 tokens.
    gib = available_kv_gib(119.70, 113.65, 0.56, 0.9)
    assert gib == pytest.approx(5.95, abs=0.005)
    printed_to = 3 * 0.005 * 0.9 * 1024**3 / 73728
    assert int(kv_pool_tokens(gib, 73728, 32)) == pytest.approx(86_720, abs=printed_to)
    assert int(kv_pool_tokens(86_711 * 73728 / 1024**3, 73728, 32)) == 86_720


@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "tp", "value_bytes", "mla_width", "expected"),
    [
        (36, 8, 64, 1, 2, None, 73_728),  # gpt-oss-120b, bf16
        (48, 8, 128, 8, 1, None, 12_288),  # Maverick, FP8 cache, tp 8
        (48, 8, 128, 1, 1, None, 98_304),  # the same under attention DP
        (94, 4, 128, 8, 2, None, 94 * 2 * 128 * 2),  # fewer heads than ranks: one head on every rank
        (61, 128, 128, 8, 1, 576, 61 * 576),  # multi-head latent attention is on every rank whole
    ],
)
def test_kv_bytes_per_token(
    layers: int, kv_heads: int, head_dim: int, tp: int, value_bytes: int, mla_width: int | None, expected: int
) -> None:
    got = kv_bytes_per_token(
        layers=layers, kv_heads=kv_heads, head_dim=head_dim, tp=tp, value_bytes=value_bytes, mla_width=mla_width
    )
    assert got == expected


def test_an_overpromised_pool_leaves_nothing_for_the_second_capture() -> None:
    assert kv_overpromise(kv_heads=4, head_dim=128, tp=8) == 2.0
    assert kv_overpromise(kv_heads=8, head_dim=128, tp=8) == 1.0
    found = memory_budget(replace(TERMS, kv_overpromise=2.0), settings(), ROUND)
    # Twice the budget is cut to the share of what is free after tear-down: 80 - 43.5.
    assert float(found.kv_pool_gib) == pytest.approx(0.9 * 36.5)
    assert int(found.failing_stage) in (-1, 4, 5)
    assert float(found.headroom_gib) < float(memory_budget(TERMS, settings(), ROUND).headroom_gib)


def test_a_smaller_load_samples_fewer_rows() -> None:
    full = memory_budget(TERMS, settings(), ROUND)
    few = memory_budget(TERMS, settings(), ROUND, MemoryLoad(requests=128, request_tokens=100))
    kv_bound = memory_budget(TERMS, settings(), ROUND, MemoryLoad(requests=512, request_tokens=1000))
    assert float(few.logits_gib) == pytest.approx(float(full.logits_gib) / 4)
    assert float(kv_bound.logits_gib) == pytest.approx(float(full.logits_gib) * (int(full.kv_tokens) // 1000) / 512)


def test_measured_kv_capacities() -> None:
    """72 published points: sequences of max_seq_len tokens that an engine with default graphs held at once."""
    data = Path(__file__).parents[2] / "benchmarks" / "data" / "kv_capacity.csv"
    folder = Path(advisor.__file__).parent / "twin" / "tables"
    tables = TableSet((folder / "index.json").read_bytes(), (folder / "step_tables.bin").read_bytes())
    errors = []
    for row in csv.DictReader(data.read_text(encoding="utf-8").splitlines()):
        model = table_model(row["model_path"])
        quant = quant_modes(model, "fp8_block" if "FP8" in row["model_path"] else "bf16", "bf16", row["system"])
        terms = tables[TableKey(model, row["system"], Layout(int(row["tp_size"])), quant)].memory
        found = memory_budget(
            terms, MemorySettings(2048, int(row["max_num_tokens"]), float(row["kv_fraction"]), 19, 128), NOMINAL
        )
        errors.append(int(found.kv_tokens) // int(row["max_seq_len"]) / int(row["measured_max_sequences"]) - 1.0)
    assert len(errors) == 72
    assert float(np.abs(errors).mean()) <= 0.007
    assert float(np.mean(np.abs(errors) <= 0.02)) >= 0.95


POINTS = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 4096),
        "tokens": st.integers(64, 131_072),
        "fraction": st.floats(0.05, 0.995),
        "n_graphs": st.integers(0, 40),
        "largest": st.integers(1, 4096),
    }
)
RAISED = {"batch": 1.7, "tokens": 1.5, "n_graphs": 2, "largest": 1.6}


@given(POINTS, st.sampled_from(sorted(RAISED)), st.floats(5.0, 78.0))
def test_asking_for_more_never_frees_memory(point: dict[str, float], name: str, weights_gib: float) -> None:
    terms = replace(TERMS, weights_gib=weights_gib, kv_bytes_per_token=65536.0)
    more = {**point, name: int(point[name] * RAISED[name]) + 1}
    less_, more_ = (memory_budget(terms, settings(**p), NOMINAL) for p in (point, more))  # type: ignore[arg-type]
    assert (more_.margin_gib <= less_.margin_gib + 1e-9).all()
    assert int(more_.kv_tokens) <= int(less_.kv_tokens)


@given(POINTS, st.floats(0.001, 0.3))
def test_a_larger_fraction_gives_more_cache_and_less_room(point: dict[str, float], step: float) -> None:
    terms = replace(TERMS, kv_bytes_per_token=65536.0)
    low = memory_budget(terms, settings(**point), NOMINAL)  # type: ignore[arg-type]
    high = memory_budget(terms, settings(**{**point, "fraction": min(0.999, point["fraction"] + step)}), NOMINAL)  # type: ignore[arg-type]
    assert int(high.kv_tokens) >= int(low.kv_tokens)
    assert (high.margin_gib[4:] <= low.margin_gib[4:] + 1e-9).all()


@given(POINTS)
def test_everything_adds_up_to_the_capacity(point: dict[str, float]) -> None:
    found = memory_budget(replace(TERMS, kv_bytes_per_token=65536.0), settings(**point), NOMINAL)  # type: ignore[arg-type]
    parts = ("weights", "runtime", "comm", "activations", "graphs", "logits", "fragmentation", "kv_pool")
    used = sum(float(getattr(found, f"{part}_gib")) for part in parts)
    assert 80.0 - used == pytest.approx(float(found.margin_gib[-1]))


def test_a_grid_is_its_points() -> None:
    rng = np.random.default_rng(0)
    n = 50
    grid = MemorySettings(
        rng.integers(1, 2048, n),
        rng.integers(512, 65536, n),
        rng.uniform(0.3, 0.99, n),
        rng.integers(0, 30, n),
        rng.integers(1, 2048, n),
    )
    load = MemoryLoad(200, 2048)
    whole, chance = memory_budget(TERMS, grid, NOMINAL, load), p_fits(TERMS, grid, NOMINAL, load)
    columns = [np.asarray(getattr(grid, field.name)) for field in fields(MemorySettings)[:5]]
    for i in range(n):
        point = MemorySettings(*(column[i] for column in columns))
        one = memory_budget(TERMS, point, NOMINAL, load)
        assert (whole.pool_is_given, whole.fraction) == (one.pool_is_given, one.fraction)
        for field in fields(MemoryBudget)[:-2]:
            assert np.asarray(getattr(whole, field.name))[..., i] == pytest.approx(getattr(one, field.name))
        assert float(p_fits(TERMS, point, NOMINAL, load)) == pytest.approx(float(chance[i]))


def test_p_fits_follows_the_stated_errors() -> None:
    """Against drawing every constant within its stated error, where the margin is near zero."""
    rng = np.random.default_rng(5)
    tight = settings(batch=1024, fraction=0.9)
    terms = replace(TERMS, capacity_gib=80.0)
    outcomes = []
    for _ in range(3000):
        drawn = {
            name: getattr(NOMINAL, name) * float(np.exp(sigma * rng.standard_normal()))
            for name, sigma in MEMORY_ERROR.items()
        }
        outcomes.append(bool(memory_budget(terms, tight, replace(NOMINAL, **drawn)).fits))
    assert float(p_fits(terms, tight, NOMINAL)) == pytest.approx(float(np.mean(outcomes)), abs=0.08)
    assert float(p_fits(terms, settings(batch=8, fraction=0.5), NOMINAL)) > 0.999
    assert float(p_fits(terms, settings(batch=4096, fraction=0.99), NOMINAL)) < 0.01


@given(
    tokens=st.integers(512, 65536),
    fraction=st.floats(0.3, 0.99),
    n_graphs=st.integers(0, 60),
    largest=st.integers(1, 1024),
)
def test_a_fraction_of_the_whole_holds_weights_activations_and_pool_and_leaves_graphs_outside(
    tokens: int, fraction: float, n_graphs: int, largest: int
) -> None:
    terms = replace(TERMS, fraction="of_total")
    budget = memory_budget(terms, settings(64, tokens, fraction, n_graphs, largest), ROUND)
    inside = budget.weights_gib + budget.runtime_gib + budget.comm_gib + budget.activations_gib
    assert float(budget.kv_pool_gib) == pytest.approx(max(0.0, fraction * 80.0 - float(inside)))
    without = memory_budget(terms, settings(64, tokens, fraction, 0, 1), ROUND)
    assert float(without.kv_pool_gib) == float(budget.kv_pool_gib), "graphs are captured later"
    assert float(without.margin_gib[-1] - budget.margin_gib[-1]) == pytest.approx(float(budget.graphs_gib))


@pytest.mark.parametrize("kind", ["of_free", "of_total"])
def test_a_pool_that_is_given_outright_takes_that_and_the_fraction_decides_nothing(kind: MemoryFraction) -> None:
    terms = replace(TERMS, fraction=kind, vocab_size=0)
    first, second = (
        memory_budget(terms, replace(settings(fraction=fraction), kv_pool_gib=8.0), ROUND) for fraction in (0.3, 0.9)
    )
    assert float(first.kv_pool_gib) == float(second.kv_pool_gib) == 8.0
    assert first.kv_tokens == second.kv_tokens == 8192
    assert float(first.margin_gib[-1]) == float(second.margin_gib[-1])
    larger = memory_budget(terms, replace(settings(), kv_pool_gib=40.0), ROUND)
    assert STAGES[int(larger.failing_stage)].component == "KV cache"
