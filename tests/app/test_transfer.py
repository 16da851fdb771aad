"""A study that learns from an earlier one below the same folder, and goes on as it began."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from advisor.app.tuning import Session
from advisor.domain.ports import LaunchSpec
from advisor.domain.trial import TrialRecord
from tests.app.scripted import Act, ScriptedEngine
from tests.app.studies import Watcher, play, session


def slow_in_large_batches(spec: LaunchSpec, n: int) -> Act:
    return Act(tok_per_s=500.0 if spec.config.max_batch_size > 64 else 900.0)


def own(folder: Path, workload: str, **more: Any) -> Session:
    engine = ScriptedEngine(slow_in_large_batches)
    return session(folder, engine, max_launches=7, workloads=(workload,), sampler="advisor", **more)


def settings(records: tuple[TrialRecord, ...]) -> list[str]:
    return [record.config.key for record in records]


def test_it_says_what_taught_it_resumes_as_it_began_and_can_do_without(tmp_path: Path) -> None:
    first, _ = play(own(tmp_path, "1k1k_c8"))
    assert first.taught_by == ()

    whole, records = play(own(tmp_path, "1k1k_c16"))
    assert whole.taught_by == ("7 launches of 1k1k_c8",)
    shutil.rmtree(tmp_path / "out" / whole.study / whole.run)

    play(own(tmp_path, "1k1k_c16"), Watcher(cancel_after=2))
    shutil.rmtree(tmp_path / "out" / first.study / first.run)
    resumed, again = play(own(tmp_path, "1k1k_c16", resume=True))
    assert resumed.taught_by == whole.taught_by, "although the earlier study is gone"
    assert settings(again) == settings(records)

    assert own(tmp_path, "1k1k_c32").taught_by == ("7 launches of 1k1k_c16",)
    assert own(tmp_path, "1k1k_c32", transfer=False).taught_by == ()


def test_other_samplers_are_not_said_to_learn(tmp_path: Path) -> None:
    play(own(tmp_path, "1k1k_c8"))
    engine = ScriptedEngine(slow_in_large_batches)
    assert session(tmp_path, engine, workloads=("1k1k_c16",)).taught_by == ()
