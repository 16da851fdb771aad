"""A study whose benchmarks stop early, on the twin: the same winner in fewer hours, and the same after a resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.outcome import Hopeless
from advisor.domain.trial import TrialRecord
from advisor.engines.simulated import SimulatedEngine
from tests.app.studies import SPACE, Watcher, play

WORKLOAD = "1k1k_c64"


def opened(folder: Path, early_stop: bool = True, resume: bool = False) -> Session:
    """Llama-3.1-8B at 64 in flight over a ladder whose other steps serve half of them at once, or fewer."""
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(SPACE.replace("[64, 256, 2048]", "[8, 32, 64, 128]"))
    question = Question(
        study="llama3.1-8b-h100", workloads=(WORKLOAD,), search_space=str(folder / "small.yaml"), max_launches=9
    )
    how = How(engine="twin", out=folder / "out", sampler="random", early_stop=early_stop, resume=resume, seed=2)
    return dataclasses.replace(open_session(question, how), engine=SimulatedEngine(waves=8))  # as many as a real one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("early")


@pytest.fixture(scope="module")
def stopping(folder: Path) -> tuple[TrialRecord, ...]:
    return play(opened(folder / "stopping"))[1]


def hours(records: tuple[TrialRecord, ...]) -> float:
    return sum(record.duration_s for record in records) / 3600


def test_the_winner_is_the_same_in_fewer_hours(folder: Path, stopping: tuple[TrialRecord, ...]) -> None:
    summary, whole = play(opened(folder / "whole", early_stop=False))
    again = opened(folder / "stopping", resume=True).summary(stopping, "budget")
    assert not any(isinstance(record.outcome, Hopeless) for record in whole)
    assert hours(stopping) < hours(whole)
    best = [each.results[0].best for each in (summary, again)]
    assert best[0] is not None
    assert best[1] is not None
    assert best[0].serving_config == best[1].serving_config
    assert again.counts.hopeless == sum(isinstance(record.outcome, Hopeless) for record in stopping) > 0


def test_what_is_compared_is_always_whole_and_what_was_stopped_was_behind(stopping: tuple[TrialRecord, ...]) -> None:
    assert {record.role for record in stopping if isinstance(record.outcome, Hopeless)} <= {"start", "search"}
    best = max(w.metrics.output_tok_per_s for record in stopping for w in record.workloads if w.metrics)
    for record in stopping:
        (outcome,) = record.workloads
        assert (outcome.metrics is None) == outcome.stopped_early == isinstance(record.outcome, Hopeless)
        if outcome.so_far is not None:
            assert outcome.so_far.metrics.output_tok_per_s < best
            assert WORKLOAD in record.ending


def test_a_study_that_is_interrupted_again_and_again_ends_as_a_whole_one(
    folder: Path, stopping: tuple[TrialRecord, ...]
) -> None:
    for after in (2, 3, 1, None):
        _, pieces = play(opened(folder / "pieces", resume=True), Watcher(cancel_after=after))
    assert pieces == stopping
