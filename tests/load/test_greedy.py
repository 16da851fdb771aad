"""Greedy answers of real servers, the stand-in for `trtllm-serve`: equal where nothing changed, told where it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.app.trial_runner import run_trial
from advisor.domain.answers import AnswerQuestion
from advisor.domain.deployment import Deployment
from advisor.domain.outcome import Unhealthy
from advisor.domain.ports import EngineRef, LaunchSpec, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.engines.trtllm.engine import TrtllmEngine
from advisor.load.greedy import N_TOKENS, PROMPTS
from advisor.metrics.answers import agreement, noise_floor
from tests.standin.equipment import MODEL, StandIn
from tests.standin.fixtures import inhabit

DEPLOYMENT = Deployment(
    model=MODEL, quantization="bf16", gpu="h100_sxm", gpus=1, tp=1, chunked_prefill=True, engine_version="1.1.0"
)
CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=32, kv_cache_free_gpu_memory_fraction=0.9
)


def launched(kv_cache_dtype: str, asked: AnswerQuestion | None) -> TrialRecord:
    spec = LaunchSpec(
        deployment=DEPLOYMENT,
        config=changed(CONFIG, options={"kv_cache_dtype": kv_cache_dtype}),
        workloads=(changed(parse_workload("64-4_c2"), n_requests=4),),
    )
    request = TrialRequest(
        number=0, role="search", origin="test", engine=EngineRef(name="trtllm"), spec=spec, answers=asked
    )
    return run_trial(request, TrtllmEngine(client_check=False))


def test_a_changed_cache_is_told_from_the_baseline_and_the_baseline_not_from_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inhabit(StandIn(tmp_path / "machine", release="1.1.0", speed=100.0), monkeypatch)
    baseline = launched("auto", AnswerQuestion())
    assert baseline.measured and baseline.answers is not None
    assert len(baseline.answers.texts) == len(baseline.answers.again) == len(set(PROMPTS)) == len(PROMPTS)
    assert all(1 <= len(text.split()) <= N_TOKENS for text in baseline.answers.texts)

    assert noise_floor([baseline.answers]) == 0.0

    reference = changed(baseline.answers, again=())
    refused = launched("fp8", AnswerQuestion(reference=reference, limit=0.1))
    assert refused.answers is not None and refused.workloads == ()
    found = agreement(refused.answers.texts, reference.texts)
    assert 0.15 < found.differing < 0.6 and 1 - found.differing < found.common_prefix < 1
    assert isinstance(refused.outcome, Unhealthy)
    assert f"differ from the baseline in {100 * found.differing:.0f} % of {len(PROMPTS)} prompts" in refused.ending
