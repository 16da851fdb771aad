"""Optuna's samplers behind the proposer port: stateless, repeatable, and told about failures in a form they see."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import pytest

from advisor.domain.errors import BadInput
from advisor.domain.outcome import Infrastructure
from advisor.domain.ports import Asked, Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.space import all_configs, contains, neighbours, restrict
from advisor.store.stock_samplers import (
    STOCK_SAMPLERS,
    OptunaProposer,
    derived_seed,
    make_proposer,
    nearest_untried,
    shown,
)
from advisor.store.telling import Told, told
from tests.store.servers import BASELINE, CAPACITY_GIB, SLO, SPACE, launch, needed_gib, record, value_of

INSTALLED = [
    name for name, stock in STOCK_SAMPLERS.items() if all(importlib.util.find_spec(package) for package in stock.needs)
]
TINY = restrict(
    SPACE,
    fixed={
        "max_batch_size": 64,
        "max_num_tokens": 4096,
        "cuda_graph_max_batch_size": 32,
        "kv_cache_free_gpu_memory_fraction": 0.8,
    },
)


def proposer(name: str) -> OptunaProposer:
    return make_proposer(name, SPACE, SLO, value_of)


def trial(number: int, proposal: Proposal) -> TrialRecord:
    return launch(Asked(number=number, config=proposal.config, role="search", origin=proposal.origin))


def run(name: str, n: int, seed: int) -> list[TrialRecord]:
    history = [trial(0, Proposal(config=BASELINE, origin="baseline"))]
    asked = proposer(name)
    while len(history) < n:
        history.append(trial(len(history), asked.propose(history, seed)))
    return history


def run_blind(name: str, n: int, seed: int) -> list[TrialRecord]:
    """The same, with out-of-memory trials hidden, as a study hides them that tells them as FAIL."""
    history = [trial(0, Proposal(config=BASELINE, origin="baseline"))]
    asked = proposer(name)
    while len(history) < n:
        seen = [t for t in history if not t.out_of_memory]
        history.append(trial(len(history), asked.propose(seen, derived_seed(seed, len(history)))))
    return history


@pytest.mark.parametrize("name", INSTALLED)
def test_same_history_and_seed_give_the_same_point_which_is_new_and_on_the_grid(name: str) -> None:
    history = run(name, 14, seed=3)
    assert [t.config for t in history] == [t.config for t in run(name, 14, seed=3)]
    assert [t.config for t in history] != [t.config for t in run(name, 14, seed=4)]
    assert len({t.config for t in history}) == len(history)
    assert all(contains(SPACE, t.config) for t in history[1:])


@pytest.mark.parametrize("name", INSTALLED)
def test_a_fresh_proposer_in_the_middle_goes_on_as_the_old_one(name: str) -> None:
    history = run(name, 12, seed=5)
    for cut in (1, 4, 9):
        assert proposer(name).propose(history[:cut], 5).config == history[cut].config


def test_infrastructure_faults_are_as_if_they_never_were() -> None:
    history = run("tpe", 8, seed=1)
    lost = changed(history[-1], outcome=Infrastructure(reason="port taken"), workloads=(), number=8)
    asked = proposer("tpe")
    assert asked.propose([*history, lost], 1) == asked.propose(history, 1)


def oom_share(trials: Sequence[TrialRecord]) -> float:
    """Of the proposals after the start-up trials."""
    return sum(t.out_of_memory for t in trials[5:]) / len(trials[5:])


def mean_share(name: str, study: Callable[[str, int, int], list[TrialRecord]] = run) -> float:
    return sum(oom_share(study(name, 20, seed)) for seed in range(8)) / 8


def test_samplers_that_are_told_of_oom_avoid_it_more_than_blind_ones() -> None:
    """The fastest configurations lie beyond the memory limit, so a sampler that does not see OOMs runs into it."""
    grid = all_configs(SPACE)
    chance = sum(needed_gib(config) > CAPACITY_GIB for config in grid) / len(grid)
    random, tpe, nsgaii = mean_share("random"), mean_share("tpe"), mean_share("nsgaii")
    assert random == pytest.approx(chance, abs=0.1)
    assert tpe < random - 0.15
    assert nsgaii < random - 0.15
    assert tpe < mean_share("tpe", run_blind) - 0.15


@pytest.mark.parametrize("sees", ["states", "constraints", "value"])
def test_the_form_of_a_failure(sees: str) -> None:
    good = Told("COMPLETE", 0.5, {"memory": -1.0, "serves": -0.5})
    poor = Told("COMPLETE", -0.7, {"memory": -0.2, "serves": -0.5})
    slow = Told("COMPLETE", 0.9, {"memory": -0.2, "serves": -0.5, "ttft:p95": 0.5})
    oom = Told("PRUNED", None, {"memory": 0.6, "serves": 0.0})
    facts = [good, poor, slow, oom]
    seen = shown(facts, sees)  # type: ignore[arg-type]
    if sees == "states":
        assert seen == facts
    elif sees == "constraints":
        assert seen[:3] == facts[:3]
        assert (seen[3].state, seen[3].value, seen[3].constraints) == ("COMPLETE", -0.7, oom.constraints)
    else:
        assert all(fact.state == "COMPLETE" and fact.constraints == {} for fact in seen)
        values = [fact.value for fact in seen]
        assert values[:2] == [0.5, -0.7]
        assert values[2] == pytest.approx(0.9 - 3 * 0.5)
        assert values[3] is not None
        assert values[3] < -0.7
    alone = shown([oom], sees)[0]  # type: ignore[arg-type]
    assert alone.state == "PRUNED" if sees == "states" else alone.value is not None


def test_worse_failures_are_folded_lower() -> None:
    mild, bad = (Told("PRUNED", None, {"memory": units}) for units in (0.1, 2.0))
    one, other = shown([mild, bad], "value")
    assert one.value is not None
    assert other.value is not None
    assert other.value < one.value


@pytest.mark.parametrize("name", sorted(set(STOCK_SAMPLERS) - set(INSTALLED)))
def test_a_missing_package_is_named_before_the_study_starts(name: str) -> None:
    with pytest.raises(BadInput, match=rf"(?s)needs .*{STOCK_SAMPLERS[name].needs[-1]}.*pip install.*--sampler tpe"):
        proposer(name)


def test_every_need_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, stock in STOCK_SAMPLERS.items():
        if stock.needs:
            with pytest.raises(BadInput, match=f"Sampler '{name}' needs {' and '.join(stock.needs)},"):
                proposer(name)
        else:
            proposer(name)


def test_unknown_sampler_gets_did_you_mean() -> None:
    with pytest.raises(BadInput, match="Did you mean 'nsgaii'"):
        proposer("nsga2")


def test_a_used_up_space_says_so_and_before_that_gives_what_is_left() -> None:
    asked = make_proposer("tpe", TINY, SLO, value_of)
    history: list[TrialRecord] = []
    for _ in all_configs(TINY):
        history.append(trial(len(history), asked.propose(history, 0)))
    assert {t.config for t in history} == set(all_configs(TINY))
    with pytest.raises(BadInput, match="All 2 configurations"):
        asked.propose(history, 0)


def test_nearest_untried_is_as_few_steps_away_as_any() -> None:
    here = all_configs(SPACE)[500]
    first = set(neighbours(SPACE, here))
    assert nearest_untried(SPACE, here, {here}) in first
    second: set[ServingConfig] = {far for near in first for far in neighbours(SPACE, near)}
    assert nearest_untried(SPACE, here, {here, *first}) in second - first - {here}


def test_seeds_of_neighbouring_studies_and_places_differ() -> None:
    drawn = {derived_seed(seed, place) for seed in range(50) for place in range(50)}
    assert len(drawn) == 2500


def test_constraints_shown_to_gp_have_the_same_keys_in_the_same_order_on_every_trial() -> None:
    history = [*run("random", 12, seed=0)]
    asked = Asked(number=12, config=history[1].config, role="search", origin="x")
    history.append(record(asked, Infrastructure(reason="x")))
    facts = [told(t, SLO, value_of) for t in history if not t.infrastructure]
    assert {tuple(fact.constraints) for fact in shown(facts, "constraints")} == {("memory", "serves", "ttft:p95")}
