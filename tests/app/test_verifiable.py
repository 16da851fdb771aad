"""`tune --verifiable`: launches behind a result that change no word of it, unless its best falls at one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor.app.changes import reference_of
from advisor.app.results import Result
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.app.verifiable import expected_launches
from advisor.domain.errors import BadInput
from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.outcome import OutOfMemory
from advisor.domain.ports import LaunchSpec
from advisor.domain.trial import TrialRecord
from advisor.metrics.verdict import FULL_REFERENCE, LOSS
from advisor.report.summary import sure_notes
from tests.app.scripted import LAUNCH_S, Act, ScriptedEngine
from tests.app.studies import Watcher, play, session
from tests.app.test_tuner import CRASH, faster_away_from_the_default, is_default, only

WORKLOAD = "1k1k_c8"
OOM = OutOfMemory(phase="serve", component="activations", short_gib=1.0)
SHORT = WorkloadOutcome(
    workload=WORKLOAD, metrics=None, n_short=1, note="1 requests fell short", limited_by=None, seed=0
)


def references(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.role == "reference"]


def said(result: Result) -> Result:
    """A result without what is for verifications; prices of memory are by all launches."""
    counts = result.counts.model_copy(update={"trials": 0, "reference": 0})
    return result.model_copy(
        update={"reference": (), "noticeable_loss": None, "soak": None, "prices": (), "counts": counts}
    )


def test_a_verifiable_study_says_the_same_and_stands_on_enough_launches(tmp_path: Path) -> None:
    for name in ("plain", "verifiable"):
        (tmp_path / name).mkdir()
    engine = ScriptedEngine(faster_away_from_the_default)
    plain, _ = play(session(tmp_path / "plain", ScriptedEngine(faster_away_from_the_default)))
    opened = session(tmp_path / "verifiable", engine, verifiable=True)
    summary, records = play(opened)
    result, without = only(summary.results), only(plain.results)
    assert said(result) == said(without)
    assert result.best is not None
    assert len(reference_of(result)) == expected_launches(opened.context) == 9
    assert [each.trial for each in result.reference] == [record.number for record in records[12:]]
    assert {record.config for record in references(records)} == {result.best.serving_config}
    assert (summary.counts.launches, summary.counts.reference) == (12, len(result.reference))
    assert len(set(engine.seeds)) == len(engine.seeds), "no two launches share a seed"
    assert result.noticeable_loss is not None and without.noticeable_loss is not None
    assert result.noticeable_loss <= LOSS < without.noticeable_loss
    assert any("stand behind it (simulated)" in note for note in sure_notes(result))


def test_a_finished_study_is_completed_by_resuming_it_however_often_it_is_interrupted(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    before, records = play(session(tmp_path, engine))
    for _ in range(2):
        play(session(tmp_path, engine, resume=True, verifiable=True), Watcher(cancel_after=2))
    after, completed = play(session(tmp_path, engine, resume=True, verifiable=True))
    assert completed[: len(records)] == records
    assert said(only(after.results)) == said(only(before.results))
    assert len(reference_of(only(after.results))) == 9
    assert [record.origin for record in completed[12:]] == [f"launch {n} of 9 for verify" for n in range(3, 10)]
    n_starts = len(engine.starts)
    again, _ = play(session(tmp_path, engine, resume=True, verifiable=True))
    plain, _ = play(session(tmp_path, engine, resume=True))
    assert len(engine.starts) == n_starts, "nothing is missing any more"
    assert again == after == plain


@pytest.mark.parametrize("weakness", [Act(under={WORKLOAD: OOM}), Act(under={WORKLOAD: SHORT}), CRASH])
def test_a_best_that_breaks_at_a_launch_for_verify_falls_and_the_next_one_is_launched(
    tmp_path: Path, weakness: Act
) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        return weakness if n >= 8 and spec.config.max_batch_size == 64 else faster_away_from_the_default(spec, n)

    summary, records = play(session(tmp_path, ScriptedEngine(script), max_launches=6, verifiable=True))
    result = only(summary.results)
    fell = {record.config for record in references(records) if not record.measured}
    assert fell and result.best is not None
    assert result.best.serving_config not in fell
    assert len(reference_of(result)) == 9
    assert {record.n_attempts for record in references(records)} == ({1, 2} if weakness == CRASH else {1})


def test_a_baseline_that_is_kept_is_what_is_launched(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda spec, n: Act(tok_per_s=1000.0 + n % 3))
    summary, records = play(session(tmp_path, engine, verifiable=True))
    result = only(summary.results)
    assert result.status == "baseline_within_noise"
    assert {record.config for record in references(records)} == {records[0].config}
    assert len(reference_of(result)) == 9


def test_a_study_too_small_for_a_confirmation_can_be_verified_too(tmp_path: Path) -> None:
    summary, records = play(
        session(tmp_path, ScriptedEngine(faster_away_from_the_default), max_launches=4, verifiable=True)
    )
    result = only(summary.results)
    assert (result.status, len(reference_of(result)), len(references(records))) == ("candidate", 9, 8)


def test_workloads_share_launches_where_one_configuration_serves_both_best(tmp_path: Path) -> None:
    names = ("1k1k_c8", "2k1k_c16")
    (tmp_path / "one").mkdir()
    summary, records = play(
        session(tmp_path / "one", ScriptedEngine(_default_is_best), workloads=names, verifiable=True)
    )
    needed = expected_launches(session(tmp_path / "one", ScriptedEngine(CRASH), workloads=names).context)
    assert needed > 9, "two results share the false alarms"
    assert [len(reference_of(result)) for result in summary.results] == [needed, needed]
    (config,) = {record.config for record in references(records)}
    assert all(result.best and result.best.serving_config == config for result in summary.results)


def _default_is_best(spec: LaunchSpec, n: int) -> Act:
    return Act(tok_per_s=(1500.0 if is_default(spec) else 1000.0) + n % 3)


def test_noise_buys_more_launches_and_no_more_than_a_result_is_completed_to(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        act = faster_away_from_the_default(spec, n)
        return dataclasses.replace(act, tok_per_s=act.tok_per_s * (1 + 0.05 * (n % 2)))

    result = only(play(session(tmp_path, ScriptedEngine(script), verifiable=True))[0].results)
    assert len(reference_of(result)) == FULL_REFERENCE
    assert result.noticeable_loss is not None and result.noticeable_loss > LOSS, "and it says that this is too few"


def test_hours_hold_for_these_launches_too(tmp_path: Path) -> None:
    engine, hours = ScriptedEngine(faster_away_from_the_default), 15.5 * LAUNCH_S / 3600
    summary, records = play(session(tmp_path, engine, max_hours=hours, verifiable=True))
    assert summary.duration_s <= hours * 3600
    assert 0 < len(references(records)) < 7


def test_a_rescue_has_no_best_to_verify(tmp_path: Path) -> None:
    (tmp_path / "file.yml").write_text("max_batch_size: 64\n")
    asked: dict[str, Any] = {"rescue": str(tmp_path / "file.yml"), "verifiable": True}
    with pytest.raises(BadInput, match="--verifiable means nothing to --rescue"):
        open_session(Question(study="llama3.1-8b-h100"), How(engine="twin", out=tmp_path, **asked))
