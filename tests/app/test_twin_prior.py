"""The twin as a prior: its numbers are the ranking's, and its slopes point where a wrong constant would move them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from advisor.app.forecast import Forecaster, log_predicted
from advisor.app.setup import Question, resolve
from advisor.app.twin_prior import TwinPrior
from advisor.domain.objective import OBJECTIVES, parse_objective, parse_slo
from advisor.domain.strict import changed
from advisor.search.prior import OBJECTIVE, log_output, outputs
from advisor.search.space import all_configs, restrict
from advisor.twin.constants import NOMINAL
from advisor.twin.ranking import rank

SLO = parse_slo("ttft:p95<2s,tpot:mean<20ms")
RESOLVED = resolve(Question(study="llama3.1-8b-h100", workloads=("1k1k_c64",)))
SPACE = restrict(RESOLVED.space, fixed={"kv_cache_free_gpu_memory_fraction": 0.9, "enable_chunked_prefill": True})
WORKLOAD = RESOLVED.workloads[0]


@pytest.fixture(scope="module")
def prior() -> TwinPrior:
    return TwinPrior(Forecaster(RESOLVED.deployment, RESOLVED.workloads), SPACE, RESOLVED.objective, SLO)


def test_every_output_has_a_row_for_every_configuration(prior: TwinPrior) -> None:
    grid, n = prior.over_grid(), len(all_configs(SPACE))
    assert set(grid.log_values) == set(grid.slopes) == {(WORKLOAD.name, name) for name in outputs(SLO)}
    assert all(len(values) == n for values in (*grid.log_values.values(), *grid.slopes.values(), grid.margin_gib))
    assert np.isfinite(grid.log_values[WORKLOAD.name, OBJECTIVE]).all()


def test_rows_of_some_configurations_are_those_of_the_grid(prior: TwinPrior) -> None:
    rows = [0, 17, 40]
    some, grid = prior.at([all_configs(SPACE)[row] for row in rows]), prior.over_grid()
    for key, values in grid.log_values.items():
        assert np.allclose(some.log_values[key], values[rows])
        assert np.allclose(some.slopes[key], grid.slopes[key][rows])
    assert np.allclose(some.margin_slopes, grid.margin_slopes[rows])
    beside = changed(all_configs(SPACE)[0], max_batch_size=300)
    assert len(prior.at([beside]).margin_gib) == 1


def test_slower_kernels_are_in_the_span_of_the_slopes(prior: TwinPrior) -> None:
    """A server whose dense kernels are 8 % slower is a combination of the columns, to first order."""
    grid, forecaster = prior.over_grid(), prior.forecaster
    slower = replace(forecaster.twin, constants=replace(NOMINAL, dense_factor=math.exp(0.08)))
    configs = all_configs(SPACE)
    for name, sense in ((OBJECTIVE, -1), ("tpot:mean", 1)):
        each = [
            log_predicted(name, rank(twin, forecaster.deployment, configs, WORKLOAD), RESOLVED.objective, WORKLOAD)
            for twin in (slower, forecaster.twin)
        ]
        moved = each[0] - each[1]
        known = np.isfinite(moved)
        slopes = grid.slopes[WORKLOAD.name, name][known]
        weights, *_ = np.linalg.lstsq(slopes, moved[known], rcond=None)
        assert np.abs(slopes @ weights - moved[known]).max() < 1e-6
        assert (sense * moved[known] >= 0).all()


@pytest.mark.parametrize("metric", [name for name in OBJECTIVES if not name.startswith("energy") and name != "goodput"])
def test_a_prediction_is_on_the_scale_of_what_is_measured(metric: str) -> None:
    """Within a third of the twin's own simulation, whatever the objective: no factor of GPUs or tokens is missing."""
    maverick = resolve(Question(workloads=("1k1k_c256",)))
    objective = changed(parse_objective(metric), gpu_price_usd_per_hour=2.5)
    forecaster, workload = Forecaster(maverick.deployment, maverick.workloads), maverick.workloads[0]
    config = changed(all_configs(maverick.space)[-1], max_batch_size=256, max_num_tokens=8192)
    metrics = forecaster.predict(config, workload).metrics
    assert metrics is not None
    measured = log_output(OBJECTIVE, metrics, objective)
    ranking = forecaster.rank([config], workload)
    (predicted,) = log_predicted(OBJECTIVE, ranking, objective, workload, maverick.deployment.gpus)
    tail = ":" in metric and not metric.endswith("mean")
    assert measured == pytest.approx(predicted, abs=3.0 if tail else 0.35)
