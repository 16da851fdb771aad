"""Twins drawn around a launch: they agree with it, and know more of a server of their form than the nominal one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from advisor.app.drawn_twins import NOISE, WIDTH, DrawnTwins, drawn_errors
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question, resolve
from advisor.app.twin_prior import TwinPrior
from advisor.domain.measurement import EffectiveSettings, LatencySummary, Metrics, WorkloadOutcome
from advisor.domain.objective import parse_slo
from advisor.domain.outcome import Measured
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.prior import OBJECTIVE, outputs
from advisor.search.space import all_configs, restrict
from advisor.twin.constants import NOMINAL, TwinConstants, off_by
from advisor.twin.ranking import rank

SLO = parse_slo("ttft:p95<2s")
RESOLVED = resolve(Question(study="llama3.1-8b-h100", workloads=("1k1k_c64",)))
SPACE = restrict(RESOLVED.space, fixed={"kv_cache_free_gpu_memory_fraction": 0.9, "enable_chunked_prefill": True})
WORKLOAD = RESOLVED.workloads[0]
TAIL = 1.5
SERVER = off_by(NOMINAL, {"dense_factor": 2.5, "attention_factor": -2.0, "host_base_ms": 2.0})
CONFIGS = all_configs(SPACE)[:: max(1, len(all_configs(SPACE)) // 12)]


@pytest.fixture(scope="module")
def prior() -> TwinPrior:
    return TwinPrior(Forecaster(RESOLVED.deployment, RESOLVED.workloads), SPACE, RESOLVED.objective, SLO)


def summary(ms: float) -> LatencySummary:
    return LatencySummary(mean=ms, p50=ms, p90=ms, p95=TAIL * ms, p99=2 * ms)


def measured(prior: TwinPrior, constants: TwinConstants, config: ServingConfig) -> TrialRecord:
    """What a server of the twin's form and these constants shows, without noise."""
    twin = replace(prior.forecaster.twin, constants=constants)
    shown = rank(twin, prior.forecaster.deployment, [config], WORKLOAD)
    speed, ttft, tpot = (float(each[0]) for each in (shown.output_tok_per_s, shown.ttft_ms, shown.tpot_ms))
    metrics = Metrics(
        output_tok_per_s=speed,
        output_tok_per_s_per_gpu=speed / prior.forecaster.deployment.gpus,
        output_tok_per_s_per_user=1e3 / tpot,
        request_per_s=speed / WORKLOAD.osl,
        ttft_ms=summary(ttft),
        tpot_ms=summary(tpot),
        itl_ms=None,
        e2e_ms=summary(ttft + tpot * (WORKLOAD.osl - 1)),
        n_requests=192,
        duration_s=192 * WORKLOAD.osl / speed,
    )
    return TrialRecord(
        number=0,
        role="baseline",
        origin="test",
        config=config,
        source="simulated",
        engine_label="simulated by a test",
        seed=0,
        outcome=Measured(),
        workloads=(WorkloadOutcome(workload=WORKLOAD.name, metrics=metrics, seed=0),),
        effective=EffectiveSettings(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            max_seq_len=2048,
            kv_tokens=int(shown.kv_tokens[0]),
            cuda_graph_sizes=(1,),
        ),
    )


def test_on_a_straight_line_every_draw_weighs_the_same() -> None:
    """Importance weights prior x likelihood / proposal are constant where the proposal is the posterior."""
    rng = np.random.default_rng(3)
    J, off = rng.normal(0, 0.1, (4, 6)), rng.normal(0, 0.1, 4)
    d, log_weights = drawn_errors(J, off)
    whole = log_weights - 0.5 * (((off - d @ J.T) / NOISE) ** 2).sum(axis=1)
    assert whole == pytest.approx(np.full(len(d), whole[0]))
    expected = np.linalg.solve(np.eye(6) / WIDTH**2 + J.T @ J / NOISE**2, J.T @ off / NOISE**2)
    assert d.mean(axis=0) == pytest.approx(expected, abs=5 * WIDTH / math.sqrt(len(d)))


def test_drawn_twins_foretell_a_server_of_their_form_better_than_the_nominal_one(prior: TwinPrior) -> None:
    record = measured(prior, SERVER, CONFIGS[3])
    drawn = DrawnTwins(prior)([record], CONFIGS)
    assert drawn is not None
    assert drawn.weights.sum() == pytest.approx(1.0)
    assert set(drawn.log_values) == {(WORKLOAD.name, name) for name in outputs(SLO)}
    nominal, truth = (
        rank(replace(prior.forecaster.twin, constants=each), prior.forecaster.deployment, CONFIGS, WORKLOAD)
        for each in (NOMINAL, SERVER)
    )
    off = np.log(truth.output_tok_per_s / prior.forecaster.deployment.gpus)
    off -= drawn.weights @ drawn.log_values[WORKLOAD.name, OBJECTIVE]
    assert np.abs(off).max() < 0.5 * np.abs(np.log(nominal.output_tok_per_s / truth.output_tok_per_s)).max()
    ours = drawn.weights @ drawn.log_values[WORKLOAD.name, "ttft:p95"]
    shown = record.workloads[0].metrics
    assert shown is not None and shown.ttft_ms is not None
    assert ours[3] == pytest.approx(math.log(TAIL * shown.ttft_ms.mean), abs=2 * NOISE)


def test_nothing_is_drawn_from_a_load_that_was_searched_without_a_pool(prior: TwinPrior) -> None:
    record = measured(prior, SERVER, CONFIGS[3])
    searched = changed(record.workloads[0], concurrency=32)
    assert DrawnTwins(prior)([changed(record, workloads=(searched,), effective=None)], CONFIGS) is None
