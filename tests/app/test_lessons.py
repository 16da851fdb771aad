"""What earlier runs teach: errors of the twin, each under its own workload and deployment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from advisor.app.earlier import EarlierRun
from advisor.app.forecast import Forecaster
from advisor.app.lessons import MOST_ROWS, lessons
from advisor.app.setup import Question, Resolved, resolve
from advisor.app.twin_prior import TwinPrior
from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.outcome import Crashed, Measured, Outcome
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.expectation import Sought, expectations
from advisor.search.kinship import standing
from advisor.search.prior import OBJECTIVE
from advisor.search.space import all_configs, restrict
from advisor.store.run_card import RunCard
from tests.app.scripted import metrics

SLOWER = -0.2  # log units: every launch of the earlier studies comes to so much less than the twin says


def study(workload: str = "1k1k_c64", **question: object) -> Resolved:
    return resolve(Question.model_validate({"study": "llama3.1-8b-h100", "workloads": (workload,), **question}))


OURS = study()
SPACE = restrict(
    OURS.space,
    vary=("enable_chunked_prefill",),
    fixed={"kv_cache_free_gpu_memory_fraction": 0.9, "max_num_tokens": 8192, "cuda_graph_max_batch_size": 128},
)
CONFIGS = all_configs(SPACE)


@pytest.fixture(scope="module")
def prior() -> TwinPrior:
    return TwinPrior(Forecaster(OURS.deployment, OURS.workloads), SPACE, OURS.objective, OURS.slo)


def trial(
    number: int, config: ServingConfig, name: str, log_value: float, outcome: Outcome | None = None
) -> TrialRecord:
    measured = WorkloadOutcome(workload=name, metrics=metrics(math.exp(log_value)), seed=0)
    return TrialRecord(
        number=number,
        role="search",
        origin="test",
        config=config,
        source="simulated",
        engine_label="simulated by a test",
        seed=0,
        outcome=outcome or Measured(),
        workloads=() if outcome else (measured,),
    )


def run(prior: TwinPrior, resolved: Resolved, rows: Sequence[int], off: float = SLOWER) -> EarlierRun:
    """Launches of some configurations, each `off` from the twin's own prediction there."""
    there = prior.elsewhere(Forecaster(resolved.deployment, resolved.workloads))
    configs, (workload,) = [CONFIGS[row] for row in rows], resolved.workloads
    values = there.computed(configs).log_values[workload.name, OBJECTIVE] + off
    card = RunCard(
        study="earlier",
        source="simulated",
        engine_label="simulated by a test",
        deployment=resolved.deployment,
        workloads=resolved.workloads,
        objective=resolved.objective,
        slo=resolved.slo,
    )
    made = zip(configs, values.tolist(), strict=True)
    records = tuple(trial(n, config, workload.name, value) for n, (config, value) in enumerate(made))
    return EarlierRun(folder="earlier/run", card=card, records=records)


def test_every_row_is_the_error_of_its_own_prediction(prior: TwinPrior) -> None:
    other = study("2048-512_c128", gpu="h200_sxm")
    taught = lessons([run(prior, other, [2, 5, 9])], prior, OURS.deployment)[OBJECTIVE]
    assert np.allclose(taught.residuals, SLOWER)
    assert np.allclose(taught.design.servers, standing(other.deployment, OURS.deployment, 0))
    assert (taught.design.extra_sd > 0).all()
    assert taught.design.slopes.shape[1] == prior.over_grid().slopes["1k1k_c64", OBJECTIVE].shape[1]


def test_repeats_are_one_row_failures_none_and_the_nearest_run_comes_last(prior: TwinPrior) -> None:
    near, far = run(prior, OURS, [3, 3, 7], off=-0.1), run(prior, study("4k1k_c256"), [1], off=-0.3)
    crash = trial(9, CONFIGS[4], "1k1k_c64", 0.0, Crashed(phase="serve", reason="test"))
    near = changed(near, records=(*near.records, crash))
    taught = lessons([near, far], prior, OURS.deployment)[OBJECTIVE]
    assert np.allclose(taught.residuals, [-0.3, -0.1, -0.1])


def test_there_are_never_too_many_rows_and_none_of_nothing(prior: TwinPrior) -> None:
    everything = run(prior, OURS, range(len(CONFIGS)))
    taught = lessons([everything] * 6, prior, OURS.deployment)[OBJECTIVE]
    assert len(taught.residuals) == len(taught.design) == MOST_ROWS
    unknown = changed(everything, card=changed(everything.card, deployment=changed(OURS.deployment, model="nobody")))
    assert lessons([], prior, OURS.deployment) == lessons([unknown], prior, OURS.deployment) == {}


def test_a_study_expects_what_earlier_ones_saw_before_its_first_launch(prior: TwinPrior) -> None:
    def expected(*runs: EarlierRun) -> float:
        taught = lessons(runs, prior, OURS.deployment)
        sought = Sought(SPACE, OURS.workloads, OURS.objective, OURS.slo, prior, lessons=lambda: taught)
        (found,) = expectations(sought, [])
        return float(np.nanmean(found.views[OBJECTIVE].mean - prior.over_grid().log_values["1k1k_c64", OBJECTIVE]))

    same, other_gpu = run(prior, OURS, [2, 6, 10]), run(prior, study(gpu="h200_sxm"), [2, 6, 10])
    assert expected() == 0
    assert SLOWER * 1.2 < expected(same) < SLOWER * 0.6
    assert expected(same) < expected(other_gpu) < SLOWER * 0.2
