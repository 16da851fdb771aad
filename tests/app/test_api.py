"""`from advisor import ...` does what its documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest

import advisor
from advisor import Deployment, ServingConfig, Slo, Workload, estimate, plan, tune
from advisor.domain.errors import BadInput, EngineMissing

DEPLOYMENT = Deployment(model="meta-llama/Llama-3.1-8B-Instruct", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)
WORKLOAD = Workload(isl=1024, osl=256, concurrency=16)
CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=64, kv_cache_free_gpu_memory_fraction=0.9
)


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(advisor.__all__) >= {
        "Deployment",
        "Workload",
        "ServingConfig",
        "Slo",
        "diagnose",
        "estimate",
        "plan",
        "tune",
    }
    for name in advisor.__all__:
        assert getattr(advisor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'estimat'"):
        advisor.estimat  # noqa: B018


def test_estimate_takes_one_or_many() -> None:
    one = estimate(DEPLOYMENT, WORKLOAD, CONFIG)
    many = estimate(DEPLOYMENT, WORKLOAD, [CONFIG, CONFIG.model_copy(update={"max_batch_size": 8})])
    assert not isinstance(one, list)
    assert isinstance(many, list)
    assert many[0] == one
    assert one.fits
    assert one.metrics is not None
    assert many[1].metrics is not None
    assert many[1].metrics.output_tok_per_s < one.metrics.output_tok_per_s
    assert one.source == "predicted"
    assert estimate(DEPLOYMENT, WORKLOAD, []) == []


def test_estimate_says_what_does_not_fit_as_a_value() -> None:
    short = estimate(DEPLOYMENT, WORKLOAD, CONFIG.model_copy(update={"max_num_tokens": 512}))
    huge = estimate(DEPLOYMENT, WORKLOAD, CONFIG.model_copy(update={"max_num_tokens": 400_000}))
    for found in (short, huge):
        assert not isinstance(found, list)
        assert (found.fits, found.metrics) == (False, None)
        assert found.p_fits < 0.05
        assert found.failure is not None


@pytest.mark.parametrize(
    ("deployment", "workload", "words"),
    [
        (DEPLOYMENT.model_copy(update={"model": "nobody/knows"}), WORKLOAD, "No architecture numbers"),
        (DEPLOYMENT.model_copy(update={"gpu": "h100"}), WORKLOAD, "Unknown GPU 'h100'"),
        (DEPLOYMENT.model_copy(update={"engine_version": "0.9"}), WORKLOAD, "older than every release"),
        (DEPLOYMENT.model_copy(update={"tp": 3, "gpus": 3}), WORKLOAD, "does not divide"),
        (DEPLOYMENT, Workload(isl=200_000, osl=1, concurrency=1), "context of"),
    ],
)
def test_estimate_refuses_what_cannot_be_meant(deployment: Deployment, workload: Workload, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        estimate(deployment, workload, CONFIG)


def test_options_of_a_wrong_type_are_bad_input() -> None:
    wrong = CONFIG.model_copy(update={"options": {"stream_interval": "often"}})
    with pytest.raises(BadInput, match=r"stream_interval: .*valid integer.*'often'"):
        estimate(DEPLOYMENT, WORKLOAD, wrong)


def test_plan_ranks_without_launching() -> None:
    found = plan(workload="1k1k_c16", study="llama3.1-8b-h100", top_n=3)
    assert len(found.rows) == 3
    speeds = [row.prediction.metrics.output_tok_per_s for row in found.rows if row.prediction.metrics]
    assert speeds == sorted(speeds, reverse=True)
    with pytest.raises(BadInput, match="'1k' is not a workload name"):
        plan(workload="1k", study="llama3.1-8b-h100")


def test_tune_writes_its_ledger_and_resumes(tmp_path: Path) -> None:
    ask = {"workloads": ("1k1k_c16",), "study": "llama3.1-8b-h100", "max_launches": 3, "out": tmp_path}
    first = tune(**ask)  # type: ignore[arg-type]
    assert first.counts.launches == 3
    assert first.results[0].slo == Slo()
    with pytest.raises(BadInput, match="resume"):
        tune(**ask)  # type: ignore[arg-type]
    assert tune(**ask, resume=True) == first  # type: ignore[arg-type]
    assert len(list(tmp_path.rglob("outcome.json"))) == 3


def test_tune_never_falls_back_from_an_engine_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="--engine twin"):
        tune(engine="trtllm", out=tmp_path)
    assert list(tmp_path.iterdir()) == []
