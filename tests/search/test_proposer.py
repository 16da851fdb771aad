"""advisor's own sampler against a server whose prior is wrong: what it proposes, and what it never does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pytest

from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics, SoFar
from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.outcome import Crashed, Hopeless, Infrastructure
from advisor.domain.ports import Asked
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import Dimension, SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.memory.frontier import Frontier
from advisor.search.expectation import Expectation, Sought, expectations
from advisor.search.opening import DrawnServers
from advisor.search.prior import OBJECTIVE, Prior, grid_places, joined, outputs, places_of, steps_along
from advisor.search.proposer import OwnProposer
from advisor.search.space import all_configs
from tests.store.servers import CAPACITY_GIB, SLO, SPACE, launch, needed_gib, record

WORKLOAD = parse_workload("4k1k_c256")
NO_LIMIT = Slo()


class Believed:
    """Believes that batches do not matter and that chunking costs a third; knows memory to a GiB."""

    def __init__(self, space: SearchSpace, slo: Slo = NO_LIMIT) -> None:
        self.space, self.slo = space, slo

    @cached_property
    def _grid(self) -> Prior:
        return self._of(all_configs(self.space))

    def over_grid(self) -> Prior:
        return self._grid

    def at(self, configs: Sequence[ServingConfig]) -> Prior:
        return joined([self._of([config]) for config in configs], like=self._grid)

    def _of(self, configs: Sequence[ServingConfig]) -> Prior:
        batch = np.array([config.max_batch_size for config in configs], float)
        chunked = np.array([bool(config.options["enable_chunked_prefill"]) for config in configs])
        tokens = np.array([config.max_num_tokens for config in configs], float)
        values = {
            OBJECTIVE: math.log(12_000) - 0.3 * chunked,
            **{limit.name: np.log(3e6 / tokens) for limit in self.slo.limits},
        }
        slopes = np.stack([0.2 * np.log2(batch / 128), 0.3 * chunked], axis=1)
        names = outputs(self.slo)
        return Prior(
            log_values={(WORKLOAD.name, name): values[name] for name in names},
            slopes={(WORKLOAD.name, name): slopes for name in names},
            margin_gib=np.array([CAPACITY_GIB - needed_gib(config) for config in configs]),
            margin_slopes=np.ones((len(configs), 1)),
        )


def knows_memory(records: Sequence[TrialRecord]) -> Frontier:
    return Frontier(np.zeros(1), 0.5 * np.eye(1))


def proposer(slo: Slo = NO_LIMIT, space: SearchSpace = SPACE) -> OwnProposer:
    prior = Believed(space, slo)
    return OwnProposer(Sought(space, (WORKLOAD,), Objective(), slo, prior), knows_memory)


def run(asked: OwnProposer, n: int) -> list[TrialRecord]:
    history: list[TrialRecord] = []
    for number in range(n):
        proposal = asked.propose(history)
        history.append(launch(Asked(number=number, config=proposal.config, role="search", origin=proposal.origin)))
    return history


def speed(trial: TrialRecord) -> float:
    metrics = trial.workloads[0].metrics if trial.workloads else None
    return 0.0 if metrics is None else metrics.output_tok_per_s


def best_of_grid(slo: Slo = NO_LIMIT) -> float:
    every = [launch(Asked(number=0, config=config, role="search", origin="")) for config in all_configs(SPACE)]
    kept = [each for each in every if each.measured and slo.met(metrics_of(each))]
    return max(speed(each) for each in kept)


def metrics_of(trial: TrialRecord) -> Metrics:
    metrics = trial.workloads[0].metrics
    assert metrics is not None
    return metrics


def test_a_wrong_belief_is_mended_in_few_launches() -> None:
    history = run(proposer(), 10)
    assert max(map(speed, history)) >= 0.99 * best_of_grid()
    assert not any(trial.out_of_memory for trial in history)
    assert len({trial.config for trial in history}) == 10


def test_limits_are_kept() -> None:
    history = run(proposer(SLO), 10)
    kept = [trial for trial in history if trial.measured and SLO.met(metrics_of(trial))]
    assert max(map(speed, kept)) >= 0.97 * best_of_grid(SLO)
    assert len(kept) >= 6, "most launches go where the limits are kept"


def test_the_same_history_gives_the_same_proposal_whatever_the_seed() -> None:
    history = run(proposer(), 4)
    assert proposer().propose(history, seed=1) == proposer().propose(history, seed=2)
    broken = record(
        Asked(number=4, config=history[0].config, role="search", origin=""), Infrastructure(reason="a port was taken")
    )
    assert proposer().propose([*history, broken]) == proposer().propose(history), "it says nothing of configurations"


def test_workers_go_different_ways() -> None:
    history, running = run(proposer(), 3), list[ServingConfig]()
    for _ in range(4):
        running.append(proposer().propose(history, running=running).config)
    assert len(set(running)) == 4
    assert not {trial.config for trial in history} & set(running)


def test_a_crash_makes_its_neighbours_suspect_and_nobody_far_away() -> None:
    history = run(proposer(), 3)
    proposal = proposer().propose(history).config
    crash = record(
        Asked(number=3, config=proposal, role="search", origin=""), Crashed(phase="serve", reason="segmentation fault")
    )
    asked = proposer()
    before, after = asked._chance(history, ()), asked._chance([*history, crash], ())
    grid = grid_places(SPACE)
    distance = np.abs(grid - places_of(SPACE, [proposal])).sum(axis=1)
    open_ = (before > 0) & (after > 0)
    near, far = open_ & (distance < 0.25), open_ & (distance > 1.0)
    assert (after[near] < before[near]).all()
    assert np.allclose(after[far], before[far], rtol=0.02)


def test_what_is_refused_by_rule_is_not_proposed() -> None:
    asked = OwnProposer(
        proposer().sought, knows_memory, admissible=lambda config: not config.options["enable_chunked_prefill"]
    )
    assert not any(trial.config.options["enable_chunked_prefill"] for trial in run(asked, 6))


def test_the_first_proposal_is_the_likeliest_in_servers_that_agree_with_the_baseline() -> None:
    """Servers on which the least batch is three times as fast, whatever the belief says; later they are not asked."""
    calls, least = list[int](), min(config.max_batch_size for config in all_configs(SPACE))

    def drawing(records: Sequence[TrialRecord], configs: Sequence[ServingConfig]) -> DrawnServers:
        calls.append(len(records))
        batches = np.array([config.max_batch_size for config in configs])
        return DrawnServers(
            {(WORKLOAD.name, OBJECTIVE): np.log(np.where(batches == least, 3.0, 1.0))[None, :]}, np.ones(1)
        )

    asked = OwnProposer(proposer().sought, knows_memory, drawing=drawing)
    baseline = changed(run(proposer(), 1)[0], role="baseline")
    first = asked.propose([baseline])
    assert first.config.max_batch_size == least
    history = [baseline, launch(Asked(number=1, config=first.config, role="search", origin=first.origin))]
    assert asked.propose(history) == proposer().propose(history)
    assert asked.propose([baseline], running=[first.config]) == proposer().propose([baseline], running=[first.config])
    assert calls == [1]


def test_the_expected_gain_shrinks_as_less_is_left_to_find() -> None:
    history = run(proposer(), 12)
    gains = [proposer().propose(history[:n]).expected_gain for n in (1, 12)]
    assert gains[0] is not None
    assert gains[1] is not None
    assert gains[0] > gains[1] >= 0


def test_a_space_that_was_tried_is_said_to_be_empty() -> None:
    tiny = changed(
        SPACE,
        name="tiny",
        dimensions=tuple(
            changed(each, values=each.values[:2] if each.name == "max_batch_size" else each.values[:1])
            for each in SPACE.dimensions
        ),
    )
    asked = proposer(space=tiny)
    history = run(asked, 2)
    with pytest.raises(BadInput, match=r"Nothing is left to try among the 2 configurations of search space 'tiny'"):
        asked.propose(history)


def test_what_is_expected_after_nothing_is_the_belief() -> None:
    sought = proposer().sought
    (found,) = expectations(sought, [])
    assert found.incumbent is None
    assert np.allclose(found.views[OBJECTIVE].mean, sought.prior.over_grid().log_values[WORKLOAD.name, OBJECTIVE])


def test_places_on_the_ladders() -> None:
    configs = all_configs(SPACE)
    assert np.allclose(grid_places(SPACE), places_of(SPACE, configs))
    assert grid_places(SPACE).min() == 0
    assert grid_places(SPACE).max() == 1
    between = changed(configs[0], max_batch_size=300)
    at = places_of(SPACE, [changed(between, max_batch_size=256), between, changed(between, max_batch_size=384)])[:, 0]
    assert at[0] < at[1] < at[2]


def test_names_have_no_order() -> None:
    """Any two of them are as far apart as any other two, and one step."""
    names = Dimension(name="moe_backend", values=("CUTLASS", "DEEPGEMM", "TRTLLM"), reason="test")
    space = changed(SPACE, dimensions=(*SPACE.dimensions, names))
    config = all_configs(SPACE)[0]
    at = places_of(space, [changed(config, options={**config.options, "moe_backend": name}) for name in names.values])
    steps = np.abs(at[:, None, :] - at[None, :, :]) @ steps_along(space)
    assert np.array_equal(steps, 1 - np.eye(3))
    assert grid_places(space).shape[1] == len(steps_along(space)) == len(space.active) + 2


def test_limits_in_text_are_outputs() -> None:
    assert outputs(parse_slo("ttft:p95<2s,tpot:mean<20ms")) == (OBJECTIVE, "ttft:p95", "tpot:mean")


def test_a_gain_that_nobody_can_expect_is_nothing_and_not_less() -> None:
    """Far below the incumbent the closed form of the expected improvement is a difference of equal numbers."""
    (expected,) = expectations(proposer().sought, run(proposer(), 12))
    hopeless = Expectation(expected.views, expected.log_limits, incumbent=1e3)
    assert (hopeless.hoped_gain() >= 0).all()
    assert (hopeless.expected_gain(np.arange(50)) >= 0).all()


def test_a_stopped_trial_teaches_what_it_showed_and_makes_no_neighbour_suspect() -> None:
    sought, history = proposer().sought, run(proposer(), 3)
    *before, last = history
    row = all_configs(SPACE).index(last.config)
    outcome, metrics = last.workloads[0], metrics_of(last)

    def expected_after(factor: float, bound: bool) -> float:
        shown = changed(metrics, output_tok_per_s_per_gpu=factor * metrics.output_tok_per_s_per_gpu)
        so_far = SoFar(n_done=4, n_requests=8, metrics=shown, bound=bound)
        stopped = changed(outcome, metrics=None, stopped_early=True, so_far=so_far)
        trial = changed(last, outcome=Hopeless(reason="slow"), workloads=(stopped,))
        return float(expectations(sought, [*before, trial])[0].views[OBJECTIVE].mean[row])

    unknown = float(expectations(sought, before)[0].views[OBJECTIVE].mean[row])
    assert expected_after(0.5, bound=False) < unknown - 0.1
    assert expected_after(0.5, bound=True) < unknown - 0.1
    assert expected_after(50.0, bound=True) == pytest.approx(unknown), "a bound above what is believed says nothing"
    dead, slow = (
        [*before, changed(last, outcome=each, workloads=())]
        for each in (Crashed(phase="load", reason=""), Hopeless(reason=""))
    )
    assert proposer()._p_survives(slow).min() == 1.0 > proposer()._p_survives(dead).min()
