"""Who leads and who wins: order, repeats, limits, ties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import LatencySummary, MemoryReport, Metrics, WorkloadOutcome
from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.outcome import Measured, Outcome, OutOfMemory
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.search.standings import HEADROOM_STEP_GIB, TIE_FRACTION, pick, standings

THROUGHPUT, TTFT = Objective(), Objective(metric="ttft:p95")
NAME = "1k1k_c8"


def trial(
    batch: int,
    tok_per_s: float,
    ttft_ms: float = 100.0,
    free_gib: float = 10.0,
    number: int = 0,
    outcome: Outcome | None = None,
) -> TrialRecord:
    ttft = LatencySummary(mean=ttft_ms, p50=ttft_ms, p90=ttft_ms, p95=ttft_ms, p99=ttft_ms)
    metrics = Metrics(
        output_tok_per_s=tok_per_s,
        output_tok_per_s_per_gpu=tok_per_s,
        output_tok_per_s_per_user=1.0,
        request_per_s=1.0,
        ttft_ms=ttft,
        tpot_ms=None,
        itl_ms=None,
        e2e_ms=ttft,
        n_requests=1,
        duration_s=1.0,
    )
    return TrialRecord(
        number=number,
        role="search",
        origin="test",
        config=ServingConfig(
            max_batch_size=batch,
            max_num_tokens=8192,
            cuda_graph_max_batch_size=8,
            kv_cache_free_gpu_memory_fraction=0.9,
        ),
        source="simulated",
        engine_label="simulated by a test",
        seed=0,
        outcome=outcome or Measured(),
        workloads=(WorkloadOutcome(workload=NAME, metrics=metrics, seed=0),),
        memory_measured_gib=MemoryReport(
            weights=80.0 - free_gib, activations=0.0, cuda_graphs=0.0, kv_pool=0.0, other=0.0, capacity=80.0
        ),
    )


def winner(*records: TrialRecord, objective: Objective = THROUGHPUT, slo: str = "") -> int | None:
    found = pick(standings(records, NAME, objective, parse_slo(slo)), objective)
    return None if found is None else found.config.max_batch_size


def test_the_best_wins_in_the_direction_of_the_objective() -> None:
    fast, quick = trial(1, 2000.0, ttft_ms=200.0), trial(2, 1000.0, ttft_ms=50.0)
    assert winner(fast, quick) == 1
    assert winner(fast, quick, objective=TTFT) == 2
    assert winner() is None


def test_repeats_are_pooled_as_a_geometric_mean() -> None:
    (standing,) = standings([trial(1, 1000.0, number=0), trial(1, 4000.0, number=5)], NAME, THROUGHPUT, Slo())
    assert standing.mean == pytest.approx(2000.0)
    assert (standing.numbers, standing.values) == ((0, 5), (1000.0, 4000.0))
    lucky = trial(1, 1300.0), trial(1, 900.0), trial(2, 1100.0)
    assert winner(*lucky) == 2


@pytest.mark.parametrize(("lead", "who"), [(TIE_FRACTION * 0.9, 2), (TIE_FRACTION * 1.1, 1)])
@pytest.mark.parametrize("objective", [THROUGHPUT, TTFT])
def test_a_tie_goes_to_more_memory_headroom(lead: float, who: int, objective: Objective) -> None:
    ahead = trial(1, 1000.0 * (1 + lead), ttft_ms=100.0, free_gib=5.0)
    roomy = trial(2, 1000.0, ttft_ms=100.0 * (1 + lead), free_gib=20.0)
    assert winner(ahead, roomy, objective=objective) == who
    assert winner(roomy, ahead, objective=objective) == who


def test_what_breaks_a_limit_comes_last_and_never_wins() -> None:
    breaks, keeps = trial(1, 9000.0, ttft_ms=2500.0), trial(2, 10.0, ttft_ms=1999.0)
    table = standings([breaks, keeps], NAME, THROUGHPUT, parse_slo("ttft:p95<2s"))
    assert [standing.config.max_batch_size for standing in table] == [2, 1]
    assert winner(breaks, keeps, slo="ttft:p95<2s") == 2
    assert winner(breaks, slo="ttft:p95<2s") is None


def test_a_trial_that_died_is_no_contender() -> None:
    dead = trial(1, 9000.0, outcome=OutOfMemory(phase="serve", component="activations", short_gib=1.0))
    assert winner(dead, trial(2, 10.0)) == 2


@given(
    st.lists(st.tuples(st.floats(900.0, 1100.0), st.floats(0.0, 40.0), st.floats(10.0, 3000.0)), min_size=1, max_size=6)
)
def test_the_winner_is_within_a_tie_of_the_best_and_nobody_there_has_more_room(
    rows: list[tuple[float, float, float]],
) -> None:
    records = [trial(batch, tok, ttft, free, batch) for batch, (tok, free, ttft) in enumerate(rows, start=1)]
    table = standings(records, NAME, THROUGHPUT, parse_slo("ttft:p95<2s"))
    found = pick(table, THROUGHPUT)
    feasible = [standing for standing in table if standing.feasible]
    assert {s.config.max_batch_size for s in feasible} == {i for i, row in enumerate(rows, 1) if row[2] <= 2000.0}
    if found is None:
        assert not feasible
        return
    best = max(standing.mean for standing in feasible)
    tied = [standing for standing in feasible if best / standing.mean <= 1 + TIE_FRACTION]
    assert found in tied
    assert found.headroom_gib > max(standing.headroom_gib for standing in tied) - HEADROOM_STEP_GIB
    assert math.isfinite(found.mean)
