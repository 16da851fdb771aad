"""Goodput, cost and energy as objectives of whole studies, the Pareto front, and defaults that decided something."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.app.results import Result, StudySummary
from advisor.app.setup import Question, resolve
from advisor.app.tuning import How, open_session
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics
from advisor.domain.ports import LaunchSpec
from advisor.domain.strict import changed
from advisor.domain.study import fingerprint
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.report import bundle
from advisor.report.goal_view import goal_notes, spread
from tests.app.scripted import Act, ScriptedEngine, metrics
from tests.app.studies import play, session


def crowded(spec: LaunchSpec, n: int) -> Act:
    """TTFT is 10 ms for each request in flight; batch 64 serves half as much again. Goodput is what is served."""
    pace = 1.5 if spec.config.max_batch_size == 64 else 1.0

    def loaded(workload: Workload) -> Metrics:
        assert workload.concurrency is not None
        served = pace * workload.concurrency * (1 + 0.001 * (n % 2))
        found = metrics(100 * served, ttft_ms=10.0 * workload.concurrency)
        return changed(
            found, goodput_request_per_s=served, output_tok_per_s_per_user=100 * served / workload.concurrency
        )

    return Act(loaded=loaded)


def goodput_study(folder: Path) -> tuple[StudySummary, tuple[TrialRecord, ...], dict[str, str]]:
    opened = session(
        folder, ScriptedEngine(crowded), workloads=("1k1k_c256",), objective="goodput", slo="ttft:p95<400ms"
    )
    summary, records = play(opened)
    return summary, records, bundle.workload_files(opened, summary.results[0])


def test_goodput_is_compared_at_the_highest_load_that_keeps_the_limits(tmp_path: Path) -> None:
    summary, records, files = goodput_study(tmp_path)
    (result,) = summary.results
    assert result.best is not None and result.status == "confirmed"
    assert result.best.serving_config.max_batch_size == 64
    assert result.confidence.gain == pytest.approx(1.5, rel=0.01)
    found = result.best.concurrency
    assert found is not None and 40 / 1.06 - 1 <= found <= 40, "40 in flight is the truth"
    assert result.best.metrics.ttft_ms.p95 == 10.0 * found
    assert f"--max-concurrency {found}" in files["benchmark.sh"], "the commands repeat the load of the numbers"
    assert any(f"the best has it at {found}" in note for note in goal_notes(result))

    for record in records:
        (outcome,) = record.workloads
        assert outcome.workload == "1k1k_c256", "under the name that was asked for"
        assert [load.concurrency for load in outcome.loads] == sorted({load.concurrency for load in outcome.loads})
        assert outcome.loads[-1].concurrency == 256
    assert {point.concurrency for point in summary.pareto} <= set(range(1, 41)), "what breaks a limit is no choice"
    assert result.pareto == summary.pareto


def test_where_not_one_request_is_good_nothing_is_feasible_and_the_report_says_so(tmp_path: Path) -> None:
    hopeless = Act(loaded=lambda workload: changed(metrics(100.0, ttft_ms=500.0), goodput_request_per_s=0.0))
    opened = session(tmp_path, ScriptedEngine(hopeless), objective="goodput", slo="ttft:p95<400ms", max_launches=6)
    summary, records = play(opened)
    assert [result.status for result in summary.results] == ["nothing_feasible"]
    assert (summary.pareto, summary.feasible) == ((), False)
    page = bundle.write(opened, records, summary)["report"].read_text()
    assert "no configuration that was launched kept every limit" in page
    assert "ttft:p95 500 ms" in bundle.why_nothing(opened.summary(records, summary.stopped_by), records)


def test_a_trial_of_another_objective_measures_the_asked_load_alone(tmp_path: Path) -> None:
    engine = ScriptedEngine(crowded)
    play(session(tmp_path, engine, workloads=("1k1k_c256",), slo="ttft:p95<9s"))
    measured = {step for step in engine.story if step.startswith("measure")}
    assert measured == {"measure 1k1k_c256", "measure 1k1k_c256_n512"}, "the second is the soak"


def test_loads_of_one_launch_never_share_a_seed(tmp_path: Path) -> None:
    engine = ScriptedEngine(crowded)
    play(session(tmp_path, engine, workloads=("1k1k_c256", "2k1k_c64"), objective="goodput", slo="ttft:p95<400ms"))
    assert len(engine.seeds) == len(set(engine.seeds)) > 24


@pytest.mark.parametrize(
    ("objective", "slo", "message"),
    [
        ("goodput", "", "give them, as --slo"),
        ("cost_per_million_tok", "", "--gpu-price"),
        ("energy_j_per_million_tok", "", "the twin has none"),
    ],
)
def test_an_objective_that_cannot_be_had_says_what_is_missing(objective: str, slo: str, message: str) -> None:
    question = Question(study="llama3.1-8b-h100", workloads=("1k1k_c8",), objective=objective, slo=slo)
    with pytest.raises(BadInput, match=message):
        open_session(question, How(engine="twin"))


def test_cost_is_price_over_output_and_a_price_alone_changes_no_run() -> None:
    question = Question(study="llama3.1-8b-h100", workloads=("1k1k_c8",), objective="cost_per_million_tok")
    cheap, dear = (resolve(changed(question, gpu_price_usd_per_hour=price)) for price in (1.8, 3.6))
    per_gpu = metrics(500.0)  # tok/s of one GPU
    assert cheap.objective.value(per_gpu) == pytest.approx(1.8 / 3600 / 500 * 1e6) == 1.0
    assert dear.objective.value(per_gpu) == pytest.approx(2.0)
    assert cheap.objective.gain(1.0, 2.0) == 2.0, "half the cost is twice as good"
    runs = [
        fingerprint(each.deployment, each.workloads, each.space, each.objective, each.slo, "twin")
        for each in (cheap, dear)
    ]
    assert runs[0] == runs[1]


def test_the_cheapest_has_most_output_and_its_cost_is_told(tmp_path: Path) -> None:
    opened = session(tmp_path, ScriptedEngine(crowded), objective="cost_per_million_tok", gpu_price=3.6)
    (result,) = play(opened)[0].results
    assert result.best is not None and result.baseline.metrics is not None
    assert result.best.serving_config.max_batch_size == 64
    assert result.best.metrics.cost_per_million_tok == pytest.approx(1000 / result.best.metrics.output_tok_per_s)
    assert result.confidence.gain == pytest.approx(1.5, rel=0.01)


def test_the_front_joins_the_loads_of_one_shape_and_no_others(tmp_path: Path) -> None:
    opened = session(tmp_path, ScriptedEngine(crowded), workloads=("1k1k_c8", "1k1k_c64", "2k1k_c8"))
    summary, _ = play(opened)
    loads = {(point.shape, point.concurrency) for point in summary.pareto}
    assert ("1k1k", 64) in loads and ("2k1k", 8) in loads
    one_k = [point for point in summary.pareto if point.shape == "1k1k"]
    assert list(summary.results[0].pareto) == list(summary.results[1].pareto) == one_k
    assert spread(summary.pareto, 1000) == list(summary.pareto)
    assert len(spread(one_k * 10, 4)) == 4


def sentences(folder: Path, act: Act, **asked: object) -> list[str]:
    summary, _ = play(session(folder, ScriptedEngine(act), **asked))  # type: ignore[arg-type]
    result: Result = summary.results[0]
    return list(result.decided_by_default)


def test_defaults_that_decided_are_named_and_what_was_said_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    by_default = sentences(tmp_path / "a", Act(limited_by="concurrency"), workloads=("1k1k",), max_launches=None)
    assert any("default of 1,024 requests in flight limits the best" in each for each in by_default)
    assert any("default of 24 launches" in each for each in by_default)
    assert any("at most 2,048 tokens" in each for each in by_default)
    said = sentences(tmp_path / "b", Act(limited_by="concurrency"), workloads=("1k1k_c1024",), max_launches=9)
    assert [each for each in said if "tokens" not in each] == []


def test_an_engine_default_that_limits_the_baseline_is_named(tmp_path: Path) -> None:
    said = sentences(tmp_path, Act(limited_by="max_num_tokens"))
    assert "The engine's own default max_num_tokens 8,192 limits the default configuration." in said


def test_a_full_streaming_path_names_the_stream_interval_of_the_default_and_that_the_space_leaves_it(
    tmp_path: Path,
) -> None:
    said = sentences(tmp_path, Act(limited_by="streaming"))
    assert "The engine's own default stream_interval 1 limits the default configuration." in said
    assert any("--vary stream_interval" in each for each in said)


def test_no_limit_on_latency_is_named_where_another_is_much_faster_for_its_users(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        slow = spec.config.max_batch_size == 2048
        found = changed(metrics(1500.0 if slow else 1000.0), output_tok_per_s_per_user=10.0 if slow else 30.0)
        return Act(loaded=lambda workload: found)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    summary, _ = play(session(tmp_path / "a", ScriptedEngine(script)))
    assert any("up to 30.0 tok/s against 10.0" in each for each in summary.results[0].decided_by_default)
    summary, _ = play(session(tmp_path / "b", ScriptedEngine(script), slo="ttft:p95<9s"))
    assert not any("--slo" in each for each in summary.results[0].decided_by_default)
