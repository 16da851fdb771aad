"""The configuration that loses least where it loses most: against brute force, and laws."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.objective import Objective
from advisor.search.robust import regrets, robust
from advisor.search.standings import TIE_FRACTION, Standing
from tests.search.test_standings import trial

THROUGHPUT, TTFT = Objective(), Objective(metric="ttft:p95")


def standing(batch: int, value: float, feasible: bool = True, free_gib: float = 10.0) -> Standing:
    record = trial(batch, 1.0, free_gib=free_gib)
    return Standing(
        config=record.config,
        numbers=(0,),
        values=(value,),
        outcomes=record.workloads,
        memory_gib=record.memory_measured_gib,
        memory_predicted_gib=None,
        surprises=(),
        feasible=feasible,
    )


values = st.floats(1.0, 1e4)
cells = st.tuples(values, st.sampled_from([True, True, True, False]))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Standing]]:
    n_workloads, n_configs = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    free = [draw(st.floats(0, 50)) for _ in range(n_configs)]
    return {
        f"w{w}": [standing(8 + c, *draw(cells), free_gib=free[c]) for c in range(n_configs)] for w in range(n_workloads)
    }


def worst(batch: int, found: dict[str, list[Standing]], objective: Objective) -> float | None:
    """Maximum regret from its definition, None where the configuration does not do everywhere."""
    lost = []
    for table in found.values():
        (own,) = [s for s in table if s.config.max_batch_size == batch]
        if not own.feasible:
            return None
        able = [s.mean for s in table if s.feasible]
        best = max(able) if objective.direction == "maximize" else min(able)
        lost.append(1 - own.mean / best if objective.direction == "maximize" else 1 - best / own.mean)
    return max(lost)


@given(tables(), st.sampled_from([THROUGHPUT, TTFT]))
def test_nobody_who_does_everywhere_has_a_clearly_smaller_maximum_regret(
    found: dict[str, list[Standing]], objective: Objective
) -> None:
    batches = [s.config.max_batch_size for s in next(iter(found.values()))]
    all_worst = {batch: regret for batch in batches if (regret := worst(batch, found, objective)) is not None}
    chosen = robust(found, objective)
    assert (chosen is None) == (not all_worst)
    if chosen is None:
        return
    own = all_worst[chosen.max_batch_size]
    assert own <= min(all_worst.values()) + TIE_FRACTION + 1e-9
    assert max(regrets(chosen, found, objective).values()) == pytest.approx(own, abs=1e-9)
    headroom = {s.config.max_batch_size: s.headroom_gib for s in next(iter(found.values()))}
    tied = [batch for batch, regret in all_worst.items() if regret <= min(all_worst.values()) + TIE_FRACTION - 1e-9]
    assert all(headroom[chosen.max_batch_size] >= headroom[batch] for batch in tied)


@given(tables(), st.floats(0.01, 100))
def test_only_ratios_count(found: dict[str, list[Standing]], factor: float) -> None:
    """Tokens or kilotokens, one workload slower than another: the choice is the same."""
    scaled = {
        name: [standing(s.config.max_batch_size, s.mean * factor, s.feasible, s.headroom_gib) for s in table]
        for name, table in itertools.islice(found.items(), 1)
    }
    before, after = robust(found, THROUGHPUT), robust({**found, **scaled}, THROUGHPUT)
    if before is None or after is None:
        assert before == after
        return
    one, other = (max(regrets(config, found, THROUGHPUT).values()) for config in (before, after))
    assert one == pytest.approx(other, abs=TIE_FRACTION + 1e-9)


def test_a_specialist_of_each_workload_loses_to_the_one_that_does_both_well() -> None:
    found = {
        "a": [standing(8, 100.0), standing(16, 50.0), standing(32, 90.0)],
        "b": [standing(8, 40.0), standing(16, 100.0), standing(32, 95.0)],
    }
    chosen = robust(found, THROUGHPUT)
    assert chosen is not None
    assert chosen.max_batch_size == 32
    assert regrets(chosen, found, THROUGHPUT) == pytest.approx({"a": 0.1, "b": 0.05})


def test_for_one_workload_it_is_its_winner() -> None:
    found = {"a": [standing(8, 100.0), standing(16, 99.0)]}
    chosen = robust(found, THROUGHPUT)
    assert chosen is not None
    assert chosen.max_batch_size == 8
    assert robust({}, THROUGHPUT) is None


def test_what_was_not_measured_everywhere_is_no_candidate() -> None:
    found = {"a": [standing(8, 100.0), standing(16, 50.0)], "b": [standing(16, 100.0)]}
    chosen = robust(found, THROUGHPUT)
    assert chosen is not None
    assert chosen.max_batch_size == 16
