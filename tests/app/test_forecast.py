"""Scores order the grid, limits come before gains, and memory slopes of many configurations are those of each."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.app.setup import Question, resolve
from advisor.domain.measurement import ProfiledMemory, Source
from advisor.domain.objective import Objective, Slo, parse_slo
from advisor.domain.outcome import Measured
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.memory.constants import VLLM_MEMORY
from advisor.search.space import all_configs
from advisor.twin.constants import NOMINAL

RESOLVED = resolve(Question(study="llama4-maverick-fp8-h100", workloads=("1k1k", "4k1k_c256")))
FORECASTER = Forecaster(RESOLVED.deployment, RESOLVED.workloads)
SAMPLE = all_configs(RESOLVED.space)[::701]


def test_slopes_of_many_are_those_of_each() -> None:
    margins, rows = FORECASTER.slopes(SAMPLE)
    for place in range(0, len(SAMPLE), 9):
        margin, row = FORECASTER.slopes([SAMPLE[place]])
        assert margin[0] == pytest.approx(margins[place])
        assert row[0] == pytest.approx(rows[place])
        assert margin[0].min() == pytest.approx(float(FORECASTER.budget(SAMPLE[place]).headroom_gib))


def test_the_margin_is_never_more_hopeful_than_that_of_any_single_workload() -> None:
    margins, _ = FORECASTER.slopes(SAMPLE)
    for workload in RESOLVED.workloads:
        alone, _ = Forecaster(RESOLVED.deployment, (workload,)).slopes(SAMPLE)
        assert np.all(margins <= alone + 1e-9)


def test_best_first_orders_and_leaves_out_what_cannot_serve() -> None:
    assert best_first(np.array([0.1, np.nan, 0.3, -np.inf])) == [2, 0]


def test_a_kept_limit_outranks_any_gain() -> None:
    workload = parse_workload("1k1k")
    ranking = FORECASTER.rank(SAMPLE, workload)
    slo = parse_slo("tpot:mean<15ms")
    order = best_first(log_scores(ranking, Objective(), slo, workload))
    kept = [bool(ranking.tpot_ms[place] <= 15) for place in order]
    assert any(kept) and not all(kept)
    assert kept == sorted(kept, reverse=True)
    free = best_first(log_scores(ranking, Objective(), Slo(), workload))
    assert np.all(np.diff(ranking.output_tok_per_s[free]) <= 0)


def test_latency_objectives_are_minimised() -> None:
    workload = parse_workload("1k1k")
    ranking = FORECASTER.rank(SAMPLE, workload)
    order = best_first(log_scores(ranking, Objective(metric="tpot:mean"), Slo(), workload))
    assert np.all(np.diff(ranking.tpot_ms[order]) >= 0)


ON_VLLM = resolve(Question(study="llama3.1-8b-h100-vllm", workloads=("1k1k_c64",)))
CONFIG = ServingConfig(
    max_batch_size=128, max_num_tokens=1024, cuda_graph_max_batch_size=256, kv_cache_free_gpu_memory_fraction=0.9
)
PROFILED = ProfiledMemory(weights=15.0, activations=1.2)


def launched(
    config: ServingConfig, profiled: ProfiledMemory | None = PROFILED, source: Source = "measured"
) -> TrialRecord:
    return TrialRecord(
        number=0,
        role="search",
        origin="test",
        config=config,
        source=source,
        engine_label="",
        seed=0,
        outcome=Measured(),
        profiled_gib=profiled,
    )


def test_a_launch_whose_graph_was_compiled_before_is_expected_to_load_it() -> None:
    forecaster = Forecaster(ON_VLLM.deployment, ON_VLLM.workloads)
    first = forecaster.memory_of_launch(CONFIG, [])
    prediction = forecaster.shown(CONFIG, ON_VLLM.workloads[0])
    made, found = (forecaster.law(CONFIG, compiled=each)(NOMINAL) for each in (False, True))
    assert float(found.profiled_gib) < float(made.profiled_gib) - 0.8
    assert first is not None
    assert prediction is not None
    assert first == prediction.memory_gib
    same_graph = (
        CONFIG,
        changed(CONFIG, max_batch_size=1024),
        changed(CONFIG, kv_cache_free_gpu_memory_fraction=0.6),
        changed(CONFIG, options={"stream_interval": 16}),
    )
    for before in same_graph:
        again = forecaster.memory_of_launch(CONFIG, [launched(before)])
        assert again is not None
        assert again.kv_pool > first.kv_pool + 0.8
        # Under load neither has what compiling took, and the first report leaves it out where nothing took its place.
        assert again.activations < first.activations - 0.7
        assert again.used - again.kv_pool == pytest.approx(first.used - first.kv_pool - VLLM_MEMORY.compiled_gib)
    for other in (
        launched(changed(CONFIG, max_num_tokens=2048)),
        launched(changed(CONFIG, cuda_graph_max_batch_size=512)),
        launched(changed(CONFIG, options={"kv_cache_dtype": "fp8"})),
        launched(CONFIG, profiled=None),
        launched(CONFIG, profiled=ProfiledMemory(weights=15.0)),
        launched(CONFIG, source="simulated"),
    ):
        assert forecaster.memory_of_launch(CONFIG, [other]) == first


def test_an_eager_launch_and_one_of_trtllm_are_expected_as_ever() -> None:
    eager = changed(CONFIG, cuda_graph_max_batch_size=0)
    for forecaster, config in ((Forecaster(ON_VLLM.deployment, ON_VLLM.workloads), eager), (FORECASTER, SAMPLE[0])):
        first = forecaster.memory_of_launch(config, [])
        assert forecaster.memory_of_launch(config, [launched(config)]) == first
