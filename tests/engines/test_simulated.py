"""Measurement noise on the twin never makes what cannot be: tokens keep their order, repeats differ by about 1 %."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.app.trial_runner import run_trial
from advisor.domain.ports import EngineRef, LaunchSpec, NoEvidence, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.store import catalog


class Samples(NoEvidence):
    """Keeps the per-request samples of a trial."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, NDArray[Any]]] = {}

    def write_launch(self, argv: Sequence[str], config_text: str, config_name: str) -> None:
        assert argv[0] == "trtllm-serve" and "max_batch_size" in config_text

    def write_samples(self, workload_name: str, samples: Mapping[str, NDArray[Any]]) -> None:
        self.kept[workload_name] = samples


def trial(seed: int, max_num_tokens: int, evidence: Samples) -> TrialRecord:
    config = ServingConfig(
        max_batch_size=384,
        max_num_tokens=max_num_tokens,
        cuda_graph_max_batch_size=384,
        kv_cache_free_gpu_memory_fraction=0.9,
    )
    spec = LaunchSpec(
        deployment=catalog.study("llama3.1-8b-h100").deployment,
        config=config,
        workloads=(parse_workload("1k1k_c128"),),
        seed=seed,
    )
    request = TrialRequest(number=seed, role="search", origin="test", engine=EngineRef(name="twin"), spec=spec)
    return run_trial(request, evidence=evidence)


# 1,024 tokens a step are the cliff: prompts starve until the running requests are done, so TTFT is almost all of E2E.
@pytest.mark.parametrize("max_num_tokens", [1024, 8192])
@pytest.mark.parametrize("seed", range(4))
def test_every_request_gets_its_first_token_before_its_last(seed: int, max_num_tokens: int) -> None:
    evidence = Samples()
    record = trial(seed, max_num_tokens, evidence)
    samples = evidence.kept["1k1k_c128"]
    assert np.all(samples["sent_ms"] < samples["first_token_ms"])
    assert np.all(samples["first_token_ms"] < samples["done_ms"])
    assert np.all(samples["n_output"] == 1024)
    metrics = record.workloads[0].metrics
    assert metrics is not None and metrics.tpot_ms is not None
    assert metrics.tpot_ms.mean > 0
    assert metrics.ttft_ms.p99 < metrics.e2e_ms.p99
    assert record.source == "simulated" and record.ending == "simulated"


def test_repeats_differ_as_real_ones_do_and_equal_seeds_agree() -> None:
    rates = []
    for seed in range(12):
        metrics = trial(seed, 8192, Samples()).workloads[0].metrics
        assert metrics is not None
        rates.append(metrics.output_tok_per_s)
    spread = float(np.std(np.log(rates), ddof=1))
    assert 0.004 < spread < 0.02  # drawn with 1 %; twelve values pin their deviation to about a factor of 1.8
    assert trial(3, 8192, Samples()).workloads == trial(3, 8192, Samples()).workloads
