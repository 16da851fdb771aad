"""The twin behind domain words: what fits, what it fails at, what limits it, and grids against single predictions."""

from __future__ import annotations

import itertools
from functools import cache

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.outcome import OutOfMemory, Unhealthy
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.workload import parse_workload
from advisor.memory.law import STAGES
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.ranking import rank

tables_for = cache(catalog.step_tables)
MAVERICK = "nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8"


def maverick(gpu: str = "b200_sxm", **fixed: bool) -> Deployment:
    return Deployment.model_validate(
        {"model": MAVERICK, "quantization": "fp8", "gpu": gpu, "gpus": 8, "tp": 8, "ep": 8, **fixed}
    )


def config(
    batch: int = 1024, tokens: int = 8192, graphs: int = 1024, fraction: float = 0.9, **options: OptionValue
) -> ServingConfig:
    return ServingConfig(
        max_batch_size=batch,
        max_num_tokens=tokens,
        cuda_graph_max_batch_size=graphs,
        kv_cache_free_gpu_memory_fraction=fraction,
        options=options,
    )


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin(catalog.model_facts(MAVERICK), tables_for)


def test_a_configuration_that_fits_has_metrics_memory_and_a_limit(twin: Twin) -> None:
    found = twin.predict(maverick(), config(), parse_workload("1k1k_c128"))
    assert found.fits
    assert found.failure is None
    assert found.metrics is not None
    assert found.metrics.n_requests == 3 * 128
    assert found.data_source == "tables"
    assert found.memory_gib.headroom > 0
    assert found.p_fits > 0.99
    # Every component of the report adds up to what the law says is left under load.
    budget = twin.memory(maverick(), config(), parse_workload("1k1k_c128"))
    assert found.memory_gib.headroom == pytest.approx(float(budget.margin_gib[-1]))


@pytest.mark.parametrize(
    ("gpu", "changed", "workload", "limit"),
    [
        ("b200_sxm", {"batch": 64, "graphs": 64}, "1k1k_c512", "max_batch_size"),
        ("b200_sxm", {"tokens": 4096}, "4k1k_c64", "max_num_tokens"),
        ("h100_sxm", {"fraction": 0.3}, "1k1k_c1024", "kv_capacity"),
        ("b200_sxm", {}, "1k1k_c8", "concurrency"),
        ("b200_sxm", {"graphs": 0}, "1k1k_c4", "host"),
        ("b200_sxm", {}, "1k1k_r2", "request_rate"),
        ("b200_sxm", {"enable_attention_dp": True}, "4k1k_c1024", "gpu"),
    ],
)
def test_what_limits_it(twin: Twin, gpu: str, changed: dict[str, int], workload: str, limit: str) -> None:
    assert twin.predict(maverick(gpu), config(**changed), parse_workload(workload)).limited_by == limit


def test_too_large_a_share_dies_under_load_and_larger_ones_while_capturing(twin: Twin) -> None:
    load = twin.predict(maverick("h100_sxm"), config(fraction=0.95), parse_workload("1k2k_c1024"))
    assert isinstance(load.failure, OutOfMemory)
    assert load.failure.phase == "serve"
    assert load.metrics is None
    assert load.p_fits < 0.2
    start = twin.predict(maverick("h100_sxm"), config(fraction=0.99), parse_workload("1k2k_c8"))
    assert isinstance(start.failure, OutOfMemory)
    assert (start.failure.phase, start.failure.component) == STAGES[4]
    assert start.failure.short_gib == pytest.approx((start.failure.tried_gib or 0) - (start.failure.free_gib or 0))


def test_weights_that_do_not_fit_die_while_loading(twin: Twin) -> None:
    four = Deployment(model=MAVERICK, quantization="fp8", gpu="h100_sxm", gpus=4, tp=4, ep=4)
    failure = twin.predict(four, config(), parse_workload("1k1k_c64")).failure
    assert isinstance(failure, OutOfMemory)
    assert (failure.phase, failure.component) == ("load", "Model")
    # 94.5 GiB of weights; 80 GiB less runtime and communicators are free.
    assert failure.tried_gib == pytest.approx(94.5, abs=0.2)
    assert failure.short_gib == pytest.approx(94.5 - (80 - 3.18 - 0.38), abs=0.2)


def test_healthy_but_useless(twin: Twin) -> None:
    short = twin.predict(maverick("h100_sxm", attention_dp=True), config(fraction=0.5), parse_workload("128k1k_c8"))
    assert isinstance(short.failure, Unhealthy)
    assert "longest request" in short.failure.reason
    whole = twin.predict(maverick(), config(tokens=2048), parse_workload("4k1k_c8"))
    assert isinstance(whole.failure, Unhealthy)
    assert whole.p_fits == 0.0


def test_options_override_the_deployment(twin: Twin) -> None:
    workload = parse_workload("4k1k_c64")
    as_option = twin.predict(
        maverick(), config(tokens=2048, enable_attention_dp=True, enable_chunked_prefill=True), workload
    )
    as_fixed = twin.predict(maverick(attention_dp=True, chunked_prefill=True), config(tokens=2048), workload)
    assert as_option == as_fixed


def test_a_longer_stream_interval_costs_the_host_less(twin: Twin) -> None:
    workload, fixed = parse_workload("1k1k_c512"), maverick(overlap_scheduler=False)
    rates = [
        found.metrics.output_tok_per_s
        for interval in (1, 4, 20)
        for found in [twin.predict(fixed, config(stream_interval=interval), workload)]
        if found.metrics is not None
    ]
    assert rates == sorted(rates)
    assert 1.01 < rates[-1] / rates[0] < 1.2


def test_models_without_tables_are_estimated_and_say_so() -> None:
    scout = Deployment(
        model="meta-llama/Llama-4-Scout-17B-16E-Instruct", quantization="fp8", gpu="h200_sxm", gpus=4, tp=4, ep=4
    )
    found = Twin(catalog.model_facts(scout.model), tables_for).predict(scout, config(), parse_workload("1k1k_c64"))
    assert found.data_source == "roofline"
    assert found.metrics is not None


@pytest.mark.parametrize("name", catalog.study_names())
def test_every_shipped_study_has_measured_tables_for_all_it_searches(name: str) -> None:
    deployment = catalog.study(name).deployment
    for attention_dp in (False, True) if deployment.ep > 1 else (False,):
        for kv_cache_dtype in ("auto", "fp8"):
            changed = deployment.with_options({"enable_attention_dp": attention_dp, "kv_cache_dtype": kv_cache_dtype})
            assert tables_for(changed).data_source == "tables"


def test_pipeline_parallelism_is_refused(twin: Twin) -> None:
    pipelined = Deployment(model=MAVERICK, quantization="fp8", gpu="b200_sxm", gpus=8, tp=4, pp=2, ep=4)
    with pytest.raises(BadInput, match="pipeline"):
        twin.predict(pipelined, config(), parse_workload("1k1k_c8"))


def test_ranking_and_prediction_are_one_memory_law_and_nearly_one_speed(twin: Twin) -> None:
    deployment, workload = maverick("h100_sxm"), parse_workload("2048-512_c256")
    configs = [
        config(b, t, b, f, enable_chunked_prefill=c, enable_attention_dp=a)
        for b, t, f, c, a in itertools.product((32, 512), (1024, 8192), (0.8, 0.99), (False, True), (False, True))
    ]
    table = rank(twin, deployment, configs, workload)
    n_served = 0
    for i, one in enumerate(configs):
        found = twin.predict(deployment, one, workload)
        assert bool(table.servable[i]) == found.fits, one.flat()
        assert int(table.kv_tokens[i]) == found.kv_tokens
        if found.metrics is not None:
            n_served += 1
            assert table.output_tok_per_s[i] == pytest.approx(found.metrics.output_tok_per_s, rel=0.12)
            assert table.p_fits[i] == pytest.approx(found.p_fits)
    assert 5 < n_served < len(configs)
