"""A study that searches what can change answers: what departs too far from the baseline cannot win, however fast."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest

from advisor.app.results import Result
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.ports import LaunchSpec
from advisor.domain.trial import TrialRecord
from advisor.report.bundle import trials_csv
from advisor.report.study_notes import answer_notes
from tests.app.scripted import Act, ScriptedEngine
from tests.app.studies import play

SPACE = """\
schema_version: 1
name: small
description: of the tests
dimensions:
  - {name: max_batch_size, values: [64, 2048], reason: test}
  - {name: max_num_tokens, values: [8192], reason: test}
  - {name: cuda_graph_max_batch_size, values: [128], reason: test}
  - {name: kv_cache_free_gpu_memory_fraction, values: [0.9], reason: test}
  - {name: kv_cache_config.dtype, values: [auto, fp8], reason: test, enabled: false}
"""
SAME, NOISY, OTHER = ("a", "b", "c", "d"), ("a", "b", "c", "D"), ("a", "B", "C", "D")


def opened(folder: Path, act: object, **said: object) -> Session:
    (folder / "small.yaml").write_text(SPACE)
    question = Question.model_validate(
        {
            "study": "llama3.1-8b-h100",
            "workloads": ("1k1k_c8",),
            "search_space": str(folder / "small.yaml"),
            "max_launches": 9,
            **said,
        }
    )
    how = How(engine="twin", out=folder / "out", sampler="random")
    return dataclasses.replace(open_session(question, how), engine=ScriptedEngine(act))  # type: ignore[arg-type]


def fp8_is_faster(spec: LaunchSpec, n: int) -> Act:
    """Twice as fast with an FP8 cache, of which three answers of four are others; the baseline errs in one of four."""
    fp8 = spec.config.options.get("kv_cache_dtype") == "fp8"
    return Act(tok_per_s=(2000.0 if fp8 else 1000.0) + n % 2, texts=(OTHER, OTHER) if fp8 else (SAME, NOISY))


def only(session: Session) -> tuple[Result, tuple[TrialRecord, ...]]:
    summary, records = play(session)
    (result,) = summary.results
    return result, records


def test_a_faster_server_that_says_something_else_is_not_benchmarked(tmp_path: Path) -> None:
    session = opened(tmp_path, fp8_is_faster, vary=("kv_cache_dtype",))
    result, records = only(session)
    endings = [record.ending for record in records if record.config.options["kv_cache_dtype"] == "fp8"]
    rows = list(csv.DictReader(io.StringIO(trials_csv(session, records))))
    assert {(row["kv_cache_dtype"], row["answers_differing"]) for row in rows} == {("auto", "0.000"), ("fp8", "0.750")}
    assert endings and all("75 % of 4 prompts" in ending for ending in endings)
    assert result.best is not None and result.best.serving_config.options["kv_cache_dtype"] == "auto"
    check = result.answers
    assert check is not None and check.best is not None
    assert (check.dimensions, check.floor, check.limit, check.best.differing) == (("kv_cache_dtype",), 0.25, 0.25, 0)
    assert len(check.departed) == len(endings) and {each.differing for each in check.departed} == {0.75}
    assert "Not considered, because more than 25 %" in answer_notes(check)[1]


def test_it_may_win_where_a_person_allows_it_and_the_result_says_how_far_it_is(tmp_path: Path) -> None:
    session = opened(tmp_path, fp8_is_faster, vary=("kv_cache_config.dtype",), max_answer_drift=0.5)
    result, _ = only(session)
    assert result.best is not None and result.best.serving_config.options["kv_cache_dtype"] == "fp8"
    assert result.answers is not None and result.answers.best is not None and result.answers.departed == ()
    assert result.answers.best.differing == 0.75
    (note,) = answer_notes(result.answers)
    assert "differ from the baseline's in 75 % of 4 prompts" in note and "from its own in 25 %" in note


@pytest.mark.parametrize("vary", [(), ("kv_cache_dtype",)])
def test_nothing_is_asked_unless_it_matters_and_what_has_no_answers_says_so(
    tmp_path: Path, vary: tuple[str, ...]
) -> None:
    session = opened(tmp_path, Act(), vary=vary, max_launches=2)
    summary, records = play(session)
    assert all(record.answers is None for record in records)
    engine = session.engine
    assert isinstance(engine, ScriptedEngine) and ("answers" in engine.story) == bool(vary)
    notes = answer_notes(summary.results[0].answers)
    assert [("nothing was checked" in note) for note in notes] == [True] * len(vary)
