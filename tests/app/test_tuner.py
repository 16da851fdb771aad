"""The study loop on a scripted engine: who is launched when, what it costs, and what the result says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from advisor.app.results import Result
from advisor.app.trial_maker import launches
from advisor.domain.outcome import Crashed, Infrastructure, OutOfMemory, Rejected
from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from tests.app.scripted import LAUNCH_S, Act, ScriptedEngine
from tests.app.studies import Watcher, play, session

OOM = Act(at_start=OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=2.0))
CRASH = Act(at_start=Crashed(phase="load", reason="segmentation fault"))
BROKEN = Act(at_start=Infrastructure(reason="port taken"))
DEFAULT = ServingConfig(
    max_batch_size=2048, max_num_tokens=8192, cuda_graph_max_batch_size=128, kv_cache_free_gpu_memory_fraction=0.9
)


def bare(config: ServingConfig) -> tuple[int, int, int, float]:
    return (
        config.max_batch_size,
        config.max_num_tokens,
        config.cuda_graph_max_batch_size,
        config.kv_cache_free_gpu_memory_fraction,
    )


def is_default(spec: LaunchSpec) -> bool:
    return bare(spec.config) == bare(DEFAULT)


def faster_away_from_the_default(spec: LaunchSpec, n: int) -> Act:
    """One clear optimum (batch 64), the default slower by a third; 0.1 % apart from launch to launch."""
    base = 1000.0 if is_default(spec) else 1500.0 if spec.config.max_batch_size == 64 else 1200.0
    return Act(tok_per_s=base * (1 + 0.001 * (n % 2)))


def only(results: Sequence[Result]) -> Result:
    (result,) = results
    return result


def roles(records: Sequence[TrialRecord]) -> list[str]:
    return [record.role for record in records]


def test_a_clear_winner_is_confirmed_by_alternating_fresh_starts(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    summary, records = play(session(tmp_path, engine))
    result = only(summary.results)
    assert result.status == "confirmed"
    assert result.best is not None
    assert result.best.serving_config.max_batch_size == 64
    assert result.confidence.interval is not None
    assert result.confidence.interval.low > 1.4
    assert (result.confidence.n_winner, result.confidence.n_baseline) == (2, 3)  # not what it was picked for
    assert roles(records)[0] == "baseline"
    assert bare(records[0].config) == bare(DEFAULT)
    confirmations = [record.config for record in records if record.role == "confirmation"]
    winner, base = result.best.serving_config, records[0].config
    assert confirmations == [winner, base, winner, base]
    assert roles(records)[-4:] == ["confirmation"] * 4
    assert (len(engine.starts), summary.counts.launches, summary.stopped_by) == (12, 12, "budget")


def test_equal_configurations_keep_the_baseline(tmp_path: Path) -> None:
    summary, _ = play(session(tmp_path, ScriptedEngine(lambda spec, n: Act(tok_per_s=1000.0 + n % 3))))
    result = only(summary.results)
    assert result.status == "baseline_within_noise"
    assert result.best is not None
    assert bare(result.best.serving_config) == bare(DEFAULT)


@pytest.mark.parametrize("max_launches", [1, 2, 3, 5])
def test_a_budget_too_small_to_confirm_leaves_a_candidate(tmp_path: Path, max_launches: int) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    summary, records = play(session(tmp_path, engine, max_launches=max_launches))
    assert len(engine.starts) == max_launches
    assert "confirmation" not in roles(records)
    result = only(summary.results)
    assert result.status == ("baseline_within_noise" if max_launches == 1 else "candidate")
    assert result.confidence.kind == "single_run"


def test_nothing_feasible_when_everything_runs_out_of_memory(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: OOM)
    summary, records = play(session(tmp_path, engine))
    result = only(summary.results)
    assert (result.status, result.best, result.runner_up) == ("nothing_feasible", None, None)
    assert result.baseline.outcome.startswith("out of memory")
    assert not summary.feasible
    configs = [record.config for record in records if record.launched]
    assert len(set(configs)) == len(configs), "an OOM is never repeated"
    assert {record.n_attempts for record in records if record.launched} == {1}


def test_nothing_feasible_when_no_configuration_keeps_the_limit(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: Act(ttft_ms=5000.0))
    summary, _ = play(session(tmp_path, engine, slo="ttft:p95<2s"))
    result = only(summary.results)
    assert (result.status, result.best) == ("nothing_feasible", None)
    assert result.baseline.compared is not None, "the baseline ran, and is shown"


def test_a_faster_configuration_that_breaks_the_limit_does_not_win(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        fast = spec.config.max_batch_size == 64
        return Act(tok_per_s=3000.0 if fast else 1100.0, ttft_ms=2500.0 if fast else 500.0)

    summary, _ = play(session(tmp_path, ScriptedEngine(script), slo="ttft:p95<2s"))
    result = only(summary.results)
    assert result.best is not None
    assert result.best.serving_config.max_batch_size != 64


@pytest.mark.parametrize("objective", ["ttft:p95", "output_tok_per_s_per_gpu"])
def test_latencies_are_minimised(tmp_path: Path, objective: str) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        fast = spec.config.max_batch_size == 64
        return Act(tok_per_s=3000.0 if fast else 1000.0, ttft_ms=900.0 if fast else 300.0 + n % 2)

    summary, _ = play(session(tmp_path, ScriptedEngine(script), objective=objective))
    result = only(summary.results)
    assert result.best is not None
    assert (result.best.serving_config.max_batch_size == 64) == (objective != "ttft:p95")


def test_cancelled_studies_say_what_is_known_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    whole, records = play(session(tmp_path / make(tmp_path, "a"), ScriptedEngine(faster_away_from_the_default)))
    folder = tmp_path / make(tmp_path, "b")
    engine = ScriptedEngine(faster_away_from_the_default)
    for n_more, resume in ((2, False), (3, True), (2, True)):
        summary, _ = play(session(folder, engine, resume=resume), Watcher(cancel_after=n_more))
        assert summary.stopped_by == "cancelled"
        assert only(summary.results).status == "interrupted"
    summary, resumed = play(session(folder, engine, resume=True))
    assert len(engine.starts) == 12, "no finished trial was launched again"
    assert [(r.number, r.role, r.config) for r in resumed] == [(r.number, r.role, r.config) for r in records]
    assert only(summary.results).best == only(whole.results).best


def make(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def test_the_baseline_is_launched_whatever_the_memory_law_thinks_of_it(tmp_path: Path) -> None:
    (tmp_path / "greedy.yml").write_text(
        "max_batch_size: 2048\nmax_num_tokens: 2048\nkv_cache_config:\n  free_gpu_memory_fraction: 0.99\n"
    )
    engine = ScriptedEngine(faster_away_from_the_default)
    opened = session(tmp_path, engine, workloads=("4k1k_c512",), baselines=(str(tmp_path / "greedy.yml"),))
    greedy = opened.context.baselines[-1].config
    assert greedy is not None
    assert isinstance(opened.gate.admit(greedy, ()), Rejected)
    _, records = play(opened)
    assert [bare(spec.config) for spec in engine.starts[:2]] == [bare(DEFAULT), bare(greedy)]
    assert roles(records)[:2] == ["baseline", "baseline"]


def test_a_baseline_that_dies_is_replaced_by_the_nearest_that_fits(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: OOM if is_default(spec) else faster_away_from_the_default(spec, n))
    summary, records = play(session(tmp_path, engine))
    assert roles(records)[:2] == ["baseline", "baseline"]
    assert records[1].origin == "nearest to default that fits"
    assert records[1].measured
    baseline = only(summary.results).baseline
    assert baseline.is_substitute
    assert baseline.outcome.startswith("out of memory")
    assert baseline.compared is not None
    assert baseline.compared.serving_config == records[1].config


def test_an_oom_that_the_memory_law_cannot_explain_does_not_end_the_study(tmp_path: Path) -> None:
    """Eight GiB of surprise make it doubt every configuration; one launch that runs restores its faith."""
    engine = ScriptedEngine(lambda spec, n: OOM if is_default(spec) else faster_away_from_the_default(spec, n))
    summary, _ = play(session(tmp_path, engine, max_launches=6))
    assert (len(engine.starts), summary.stopped_by) == (6, "budget")
    assert only(summary.results).status == "confirmed"


def test_every_process_start_counts_also_of_second_attempts(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: Act(tok_per_s=1000.0) if is_default(spec) else CRASH)
    summary, records = play(session(tmp_path, engine, max_launches=12))
    assert len(engine.starts) == launches(records) == summary.counts.launches <= 12
    assert {record.n_attempts for record in records if isinstance(record.outcome, Crashed)} <= {1, 2}
    assert summary.counts.failed > 0


def test_the_last_launch_of_a_budget_is_not_retried(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: CRASH)
    _, records = play(session(tmp_path, engine, max_launches=3))
    assert len(engine.starts) == 3
    assert [record.n_attempts for record in records] == [2, 1]


@pytest.mark.parametrize("good", [0, 1, 5])
def test_three_broken_launches_in_a_row_stop_the_study_wherever_they_come(tmp_path: Path, good: int) -> None:
    broken = ScriptedEngine(lambda spec, n: faster_away_from_the_default(spec, n) if n < good else BROKEN)
    summary, records = play(session(tmp_path, broken))
    assert summary.stopped_by == "infrastructure"
    assert len(broken.starts) == good + 3
    assert [record.infrastructure for record in records] == [False] * good + [True] * 3

    mended = ScriptedEngine(faster_away_from_the_default)
    summary, _ = play(session(tmp_path, mended, resume=True))
    assert summary.stopped_by == "budget"
    assert summary.counts.launches == 12
    assert bare(mended.starts[0].config) == bare(DEFAULT) or good > 0, "the baseline is tried again first"


def test_a_fault_now_and_then_does_not_stop_it(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: BROKEN if n % 3 else faster_away_from_the_default(spec, n))
    summary, _ = play(session(tmp_path, engine))
    assert summary.stopped_by == "budget"


def test_hours_are_kept_with_the_confirmation_inside(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    hours = 10.5 * LAUNCH_S / 3600
    summary, records = play(session(tmp_path, engine, max_launches=24, max_hours=hours))
    assert summary.stopped_by == "hours"
    assert summary.duration_s <= hours * 3600
    assert roles(records).count("confirmation") == 4
    assert only(summary.results).status == "confirmed"


def test_tiny_hours_launch_the_baseline_only(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    summary, records = play(session(tmp_path, engine, max_hours=1e-6))
    assert (summary.stopped_by, roles(records)) == ("hours", ["baseline"])


def test_all_of_a_small_space_is_tried_once_and_then_it_ends(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    summary, records = play(session(tmp_path, engine, max_launches=60))
    assert summary.stopped_by == "exhausted"
    again = [record for record in records if record.origin == "baseline again, for drift"]
    searched = [record.config for record in records if record.role != "confirmation" and record not in again]
    assert len(set(searched)) == len(searched) == 36
    assert {record.config for record in again} == {records[0].config}
    assert [record.number for record in again] == [8, 16, 24, 32]


def test_one_launch_measures_every_workload_and_each_has_its_own_winner(tmp_path: Path) -> None:
    summary, records = play(
        session(tmp_path, ScriptedEngine(faster_away_from_the_default), workloads=("1k1k_c8", "2k1k_c16"))
    )
    assert [result.workload_name for result in summary.results] == ["1k1k_c8", "2k1k_c16"]
    assert all(len(record.workloads) == 2 for record in records if record.measured)
    assert all(result.best is not None for result in summary.results)
