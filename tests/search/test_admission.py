"""What is refused before a launch, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.outcome import Rejected
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import Role
from advisor.domain.workload import Workload
from advisor.search.admission import Forecast, admit

DEPLOYMENT = Deployment(model="m", quantization="fp8", gpu="g", gpus=1, tp=1)
WORKLOADS = (Workload(isl=4096, osl=1024, concurrency=8), Workload(isl=1024, osl=8192, concurrency=8))
CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=4096, cuda_graph_max_batch_size=64, kv_cache_free_gpu_memory_fraction=0.9
)
SHORT = changed(CONFIG, max_num_tokens=2048)
FITS = Forecast(p_fits=0.9, shortfall_gib=0.01, kv_tokens=100_000)


def test_a_prompt_longer_than_one_step_needs_chunked_prefill() -> None:
    assert admit(CONFIG, DEPLOYMENT, WORKLOADS, lambda: FITS) is None
    refusal = admit(SHORT, DEPLOYMENT, WORKLOADS, lambda: FITS)
    assert refusal is not None
    assert refusal.rule == "prompt_fits"
    assert refusal.excess == pytest.approx(4096 / 2048 - 1)
    assert admit(SHORT, changed(DEPLOYMENT, chunked_prefill=True), WORKLOADS, lambda: FITS) is None
    chunking = changed(SHORT, options={"enable_chunked_prefill": True})
    assert admit(chunking, DEPLOYMENT, WORKLOADS, lambda: FITS) is None


def test_static_rules_come_before_the_forecast_is_made() -> None:
    def never() -> Forecast:
        raise AssertionError("the forecast was made although a rule had refused")

    assert admit(SHORT, DEPLOYMENT, WORKLOADS, never) is not None


@given(p=st.floats(0, 1), short_gib=st.floats(0, 100))
def test_memory_gate_refuses_below_one_half_and_says_what_is_missing(p: float, short_gib: float) -> None:
    refusal = admit(CONFIG, DEPLOYMENT, WORKLOADS, lambda: Forecast(p, short_gib, 100_000))
    assert (refusal is not None) == (p < 0.5)
    if refusal is not None:
        assert refusal.rule == "memory"
        assert 0 < refusal.excess <= 10
        assert refusal.excess == pytest.approx(min(max(short_gib, 0.05) / 4, 10))


@pytest.mark.parametrize(("kv_tokens", "refused"), [(9216, False), (9215, True), (0, True)])
def test_kv_pool_must_hold_the_longest_request(kv_tokens: int, refused: bool) -> None:
    refusal = admit(CONFIG, DEPLOYMENT, WORKLOADS, lambda: Forecast(0.99, 0.0, kv_tokens))
    assert (refusal is not None) == refused
    if refusal is not None:
        assert refusal.rule == "one_request_fits"
        assert "9,216" in refusal.reason


@pytest.mark.parametrize("role", ["baseline", "confirmation"])
def test_what_a_person_or_the_search_already_chose_is_always_launched(role: Role) -> None:
    hopeless = Forecast(p_fits=0.0, shortfall_gib=50.0, kv_tokens=0)
    assert admit(SHORT, DEPLOYMENT, WORKLOADS, lambda: hopeless, role) is None
    assert admit(SHORT, DEPLOYMENT, WORKLOADS, lambda: hopeless, "start") is not None


def test_an_engine_may_add_rules_and_sees_the_deployment_as_the_trial_runs_it() -> None:
    seen = []

    def rule(config: ServingConfig, deployment: Deployment, workloads: object) -> Rejected | None:
        seen.append(deployment.attention_dp)
        return Rejected(rule="dialect", reason="no.", excess=1.0) if config.max_batch_size > 32 else None

    config = changed(CONFIG, options={"enable_attention_dp": True})
    refusal = admit(config, DEPLOYMENT, WORKLOADS, None, engine_rules=[rule])
    assert refusal is not None
    assert refusal.rule == "dialect"
    assert seen == [True]
    assert admit(changed(config, max_batch_size=32), DEPLOYMENT, WORKLOADS, None, engine_rules=[rule]) is None


def test_without_a_forecast_only_the_rules_decide() -> None:
    assert admit(CONFIG, DEPLOYMENT, WORKLOADS, None) is None
