"""Who wins, how sure that is, and whom to launch next: laws on draws, then whole races on made-up servers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.outcome import OutOfMemory
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Dimension, SearchSpace
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.workload import parse_workload
from advisor.search.expectation import Sought
from advisor.search.prior import OBJECTIVE, Prior
from advisor.search.racing import GOAL, LEVEL, MARGIN, Contest, Race
from advisor.search.standings import standings
from tests.search.test_standings import NAME, trial

Array = NDArray[np.float64]

SPACE = SearchSpace(
    schema_version=1,
    name="two",
    description="of the tests",
    dimensions=(
        Dimension(name="max_batch_size", values=(1, 2, 4, 8), reason="test"),
        Dimension(name="max_num_tokens", values=(4096, 8192), reason="test"),
    ),
)


class Ignorant:
    """A prior that expects the same of every configuration."""

    def over_grid(self) -> Prior:
        raise AssertionError("what was launched is all that counts")

    def at(self, configs: Sequence[ServingConfig]) -> Prior:
        n = len(configs)
        names = (OBJECTIVE, "ttft:p95")
        return Prior(
            log_values={(NAME, name): np.full(n, math.log(1000.0 if name == OBJECTIVE else 100.0)) for name in names},
            slopes={(NAME, name): np.zeros((n, 0)) for name in names},
            margin_gib=np.full(n, 10.0),
            margin_slopes=np.zeros((n, 0)),
        )


def race(slo: str = "", default: ServingConfig | None = None) -> Race:
    return Race(Sought(SPACE, (parse_workload("1k1k_c8"),), Objective(), parse_slo(slo), Ignorant()), default)


def contest(log_values: Array, keeps: NDArray[np.bool_] | None = None) -> Contest:
    n = log_values.shape[1]
    table = standings([trial(2**k, 1000.0 - k, number=k) for k in range(n)], NAME, Objective(), Slo())
    flags = np.ones(log_values.shape, bool) if keeps is None else keeps
    return Contest(table, log_values, flags, np.ones(n, bool), 0.02, (0.0, 0.0))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5))
@settings(max_examples=20)
def test_whoever_is_named_beside_the_winner_is_enough(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    draws = rng.normal(0, 0.02, n) + rng.normal(0, 0.01, (400, n))
    found = contest(draws, rng.random((400, n)) < 0.9)
    place = found.leader()
    assert place is not None
    rivals = found.rivals(place)
    assert (rivals == []) == (found.p_best(place) >= LEVEL)
    assert place not in rivals and len(set(rivals)) == len(rivals)
    others = [k for k in range(n) if k not in rivals]
    beaten = found.beaten(place)
    left = beaten[:, others].any(axis=1) & ~beaten[:, rivals].any(axis=1)
    assert left.mean() <= 1 - LEVEL + 1e-9
    lead = draws[:, place] + math.log1p(MARGIN)
    better = (draws > lead[:, None]) & found.keeps
    assert found.p_best(place) == pytest.approx(1 - better.any(axis=1).mean())


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5))
@settings(max_examples=20)
def test_the_winner_is_as_sure_as_anybody_near_the_leader_can_be(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    found = contest(rng.normal(0, 0.01, n) + rng.normal(0, 0.006, (400, n)))
    leader, winner = found.leader(), found.winner(np.ones(n, bool))
    assert leader is not None and winner is not None
    near = found.means >= found.means[leader] - math.log1p(MARGIN)
    surest = max(found.p_best(place) for place in np.flatnonzero(near).tolist())
    assert near[winner]
    assert found.p_best(winner) == surest or found.p_best(winner) >= LEVEL
    assert found.winner(np.zeros(n, bool)) is None


def test_a_tie_goes_to_memory_and_then_to_the_default() -> None:
    """Batch 4 has the most room but lies behind; of the tied two, both with as much, 2 is what the engine does."""
    default = trial(2, 1.0).config
    records = [trial(1, 1000.0, free_gib=9.0), trial(2, 999.0, free_gib=9.1, number=1)]
    records.append(trial(4, 700.0, free_gib=40.0, number=2))
    again = [changed(r, role="confirmation", number=3 + k) for k, r in enumerate(records * 4)]
    assert race(default=default).decision([*records, *again], race().sought.workloads[0]).standing is not None
    found = race(default=default).decision([*records, *again], race().sought.workloads[0]).standing
    assert found is not None and found.config == default


def launched(truth: dict[int, float], batch: int, number: int, rng: np.random.Generator, role: Role) -> TrialRecord:
    return changed(trial(batch, truth[batch] * math.exp(0.01 * rng.standard_normal()), number=number), role=role)


def run_race(truth: dict[int, float], seed: int, room: int, asked: Race | None = None) -> list[TrialRecord]:
    rng, asked = np.random.default_rng(seed), asked or race()
    records = [launched(truth, b, k, rng, "search" if k else "baseline") for k, b in enumerate(truth)]
    for left in range(room, 0, -1):
        repeat = asked.next(records, left)
        if repeat is None:
            break
        records.append(launched(truth, repeat.config.max_batch_size, len(records), rng, "confirmation"))
    return records


def batches(records: Sequence[TrialRecord]) -> list[int]:
    return [record.config.max_batch_size for record in records if record.role == "confirmation"]


def test_what_is_clear_costs_two_rounds_and_no_more() -> None:
    records = run_race({1: 1000.0, 2: 1500.0, 4: 1200.0, 8: 800.0}, 0, 12)
    assert batches(records) == [2, 1, 2, 1]
    decision = race().decision(records, race().sought.workloads[0])
    assert decision.p_best is not None and decision.p_best >= LEVEL


def test_a_race_runs_on_beyond_the_level_while_launches_are_left() -> None:
    for seed in range(4):
        records = run_race({1: 1000.0, 2: 1500.0, 4: 1460.0, 8: 800.0}, seed, 20)
        decision = race().decision(records, race().sought.workloads[0])
        assert decision.p_best is not None
        assert decision.p_best >= GOAL or len(batches(records)) == 20


def test_a_close_race_launches_the_two_at_its_head_and_not_the_others() -> None:
    records = run_race({1: 1000.0, 2: 1500.0, 4: 1490.0, 8: 800.0}, 1, 12)
    between = [batch for batch in batches(records)[2:-2] if batch != 1]
    assert len(batches(records)) > 4
    assert set(between) <= {2, 4}


def test_the_rounds_are_kept_whatever_the_race_would_like() -> None:
    records = run_race({1: 1000.0, 2: 1500.0, 4: 1499.0, 8: 1498.0}, 2, 4)
    assert batches(records).count(1) == 2
    assert len(batches(records)) == 4


def test_it_says_the_same_after_an_interruption() -> None:
    whole = run_race({1: 1000.0, 2: 1500.0, 4: 1490.0, 8: 800.0}, 3, 8)
    for kept in range(5, len(whole)):
        repeat = race().next(whole[:kept], 8 - (kept - 4))
        assert repeat is not None and repeat.config == whole[kept].config


def test_a_winner_that_breaks_its_limit_or_dies_when_launched_again_falls() -> None:
    fast, good = trial(2, 1500.0, ttft_ms=95.0, number=1), trial(4, 1200.0, ttft_ms=50.0, number=2)
    base = changed(trial(1, 1000.0, ttft_ms=50.0), role="baseline")
    slow_again = changed(trial(2, 1500.0, ttft_ms=104.0, number=3), role="confirmation")
    dead = OutOfMemory(phase="serve", component="activations", short_gib=1.0)
    died = changed(trial(2, 1500.0, ttft_ms=95.0, number=3, outcome=dead), role="confirmation")
    asked = race("ttft:p95<100ms")
    (workload,) = asked.sought.workloads
    before = asked.decision([base, fast, good], workload).standing
    assert before is not None and before.config == fast.config
    for again in (slow_again, died):
        found = asked.decision([base, fast, good, again], workload).standing
        assert found is not None and found.config == good.config
        repeat = asked.next([base, fast, good, again], 4)
        assert repeat is not None and repeat.config == good.config and repeat.is_winner


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per_launch", [-0.004, 0.004])
def test_clocks_that_drift_by_five_percent_name_no_wrong_winner(seed: int, per_launch: float) -> None:
    """The best of two was launched when the server was slow, the other when it was fast."""
    order = (1, 2, 8, 8, 8, 8, 8, 1, 8, 8, 8, 8, 4) if per_launch > 0 else (1, 4, 8, 8, 8, 8, 8, 1, 8, 8, 8, 8, 2)
    truth = {1: 1000.0, 2: 1060.0, 4: 1035.0, 8: 900.0}
    rng, asked = np.random.default_rng(seed), race()

    def launch(batch: int, role: Role) -> TrialRecord:
        record = launched(truth, batch, len(records), rng, role)
        (outcome,) = record.workloads
        assert outcome.metrics is not None
        rate = outcome.metrics.output_tok_per_s * math.exp(per_launch * len(records))
        metrics = changed(outcome.metrics, output_tok_per_s=rate, output_tok_per_s_per_gpu=rate)
        return changed(record, workloads=(changed(outcome, metrics=metrics),))

    records: list[TrialRecord] = []
    for batch in order:
        records.append(launch(batch, "baseline" if batch == 1 else "search"))
    at = {batch: order.index(batch) for batch in (2, 4)}
    assert truth[4] * math.exp(per_launch * at[4]) > truth[2] * math.exp(per_launch * at[2]), "raw numbers mislead"
    for left in range(8, 0, -1):
        repeat = asked.next(records, left)
        if repeat is None:
            break
        records.append(launch(repeat.config.max_batch_size, "confirmation"))
    found = asked.decision(records, asked.sought.workloads[0])
    assert found.standing is not None and found.standing.config.max_batch_size == 2
    assert found.contest is not None
    drift, sd = found.contest.drift
    assert drift == pytest.approx(per_launch * (len(records) - 1), abs=max(0.03, 3 * sd))


def test_what_died_when_it_was_to_be_confirmed_is_not_launched_again() -> None:
    base, fast = changed(trial(1, 1000.0), role="baseline"), trial(2, 1500.0, number=1)
    dead = OutOfMemory(phase="serve", component="activations", short_gib=1.0)
    for died in (base, fast):
        again = changed(died, role="confirmation", number=2, outcome=dead)
        repeat = race().next([base, fast, again], 4)
        assert repeat is None or repeat.config != died.config


def test_nothing_measured_is_no_contest() -> None:
    asked = race()
    assert asked.decision([], asked.sought.workloads[0]).standing is None
    assert asked.next([], 4) is None
