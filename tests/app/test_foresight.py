"""What is foreseen beside a study: shares that add up, and a map that knows which way memory runs out."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.app.foresight import Foresight, foresee, shapley
from advisor.app.run_reading import RunRead, read_run
from advisor.app.trial_evidence import read_evidence, request_latencies_ms

MEASURED = Path(__file__).parents[2] / "studies" / "evidence" / "h100-vllm-0.24.0"


@pytest.fixture(scope="module")
def run() -> RunRead:
    return read_run(MEASURED / "study")


@pytest.fixture(scope="module")
def foresight(run: RunRead) -> Foresight:
    found = foresee(run)
    assert found is not None
    return found


@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8))
def test_shares_are_the_mean_over_all_orders_and_add_up(numbers: list[float]) -> None:
    """Against the definition: walk every order, and average what each player adds."""
    names = ("a", "b", "c")
    subsets = [frozenset(chosen) for n in range(4) for chosen in itertools.combinations(names, n)]
    value = {subset: np.array([number]) for subset, number in zip(subsets, numbers, strict=True)}
    shares = shapley(names, value.__getitem__)
    walked = dict.fromkeys(names, 0.0)
    for order in itertools.permutations(names):
        for place, name in enumerate(order):
            walked[name] += float((value[frozenset(order[: place + 1])] - value[frozenset(order[:place])])[0]) / 6
    for name in names:
        assert shares[name][0] == pytest.approx(walked[name], abs=1e-9)
    assert sum(share[0] for share in shares.values()) == pytest.approx(numbers[-1] - numbers[0], abs=1e-9)


def test_worth_adds_up_to_the_whole_difference(run: RunRead, foresight: Foresight) -> None:
    assert run.summary is not None
    result = run.summary.results[0]
    before = result.baseline.settings
    assert result.best is not None
    assert before is not None
    after = result.best.serving_config
    shares = foresight.worth(before, after, result.workload)
    assert {each.setting for each in shares} == {
        name for name, value in after.flat().items() if before.flat()[name] != value
    }
    start, end = foresight.places([before, after], result.workload)
    assert start is not None
    assert end is not None
    gained = end.output_tok_per_s_per_gpu - start.output_tok_per_s_per_gpu
    assert sum(each.tok_per_s_per_gpu for each in shares) == pytest.approx(gained, rel=1e-9)
    assert foresight.worth(before, before, result.workload) == []


def test_a_larger_pool_never_fits_better(run: RunRead, foresight: Foresight) -> None:
    maps = foresight.maps(run.records[0].config)
    assert len(maps) == 6
    for found in maps:
        assert found.p_fits.shape == (len(found.y_steps), len(found.x_steps))
        assert ((found.p_fits >= 0) & (found.p_fits <= 1)).all()
        if found.y == "kv_cache_free_gpu_memory_fraction":
            assert (np.diff(found.p_fits, axis=0) <= 1e-9).all()


def test_latencies_are_those_of_the_samples(run: RunRead) -> None:
    (workload, *_) = run.card.workloads
    metrics = run.records[0].workload(workload.name)
    assert metrics is not None
    assert metrics.metrics is not None
    found = request_latencies_ms(run, (0,), workload.name)
    assert found["ttft"].size == metrics.metrics.n_requests
    assert float(np.percentile(found["ttft"], 99)) == pytest.approx(metrics.metrics.ttft_ms.p99, rel=1e-6)
    assert metrics.metrics.tpot_ms is not None
    assert float(found["tpot"].mean()) == pytest.approx(metrics.metrics.tpot_ms.mean, rel=1e-6)
    assert "itl" not in found, "recorded before gaps were kept"
    both = request_latencies_ms(run, (0, 7), workload.name)
    assert both["ttft"].size == 2 * found["ttft"].size
    assert (np.diff(both["ttft"]) >= 0).all()


def test_a_real_out_of_memory_is_diagnosed_from_its_log() -> None:
    run = read_run(MEASURED / "oom-load")
    (evidence,) = read_evidence(run).values()
    assert evidence.argv[:2] == ("vllm", "serve")
    assert evidence.log_tail
    assert evidence.diagnosis is not None
    assert evidence.diagnosis.verdict == "oom"
    assert "gpu_memory_utilization" in {remedy.setting for remedy in evidence.diagnosis.remedies}
