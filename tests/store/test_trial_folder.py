"""Evidence of a trial on disk, and what happens when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from advisor.domain.errors import BadInput
from advisor.domain.outcome import Evidence, OutOfMemory
from advisor.domain.ports import Asked
from advisor.store.trial_folder import TrialFolder, committed, has_trials
from tests.store.servers import BASELINE, launch, record, with_number

DONE = launch(Asked(number=7, config=BASELINE, role="baseline", origin="test"))


def test_everything_comes_back(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, 7)
    folder.begin()
    assert folder.path == tmp_path / "trials" / "0007"
    folder.write_launch(["trtllm-serve", "--port", "1"], "max_batch_size: 8\n", "extra-llm-api-config.yml")
    folder.write_samples("4k1k_c256", {"ttft_ms": np.array([1.5, 2.5]), "n_output": [3, 4]})
    assert not has_trials(tmp_path)
    assert folder.read() is None
    folder.commit(DONE)
    assert has_trials(tmp_path)
    assert folder.read() == DONE
    assert json.loads((folder.path / "argv.json").read_text()) == ["trtllm-serve", "--port", "1"]
    with np.load(folder.path / "samples-4k1k_c256.npz", allow_pickle=False) as samples:
        np.testing.assert_array_equal(samples["ttft_ms"], [1.5, 2.5])
        np.testing.assert_array_equal(samples["n_output"], [3, 4])


def test_evidence_of_a_crash_comes_back_exactly(tmp_path: Path) -> None:
    evidence = (Evidence(line=12, text='torch.OutOfMemoryError: "CUDA" out of memory\u2026'),)
    outcome = OutOfMemory(phase="warm_up", component="graphs", tried_gib=0.1 + 0.2, short_gib=1e-9, evidence=evidence)
    done = record(Asked(number=0, config=BASELINE, role="search", origin="x"), outcome)
    folder = TrialFolder(tmp_path, 0)
    folder.commit(done)
    assert folder.read() == done


def test_beginning_again_removes_what_an_interrupted_attempt_left_but_never_a_finished_trial(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, 7)
    folder.begin()
    folder.write_launch(["a"], "b", "config.yml")
    folder.begin()
    assert list(folder.path.iterdir()) == []
    folder.commit(DONE)
    folder.begin()
    assert folder.read() == DONE


def test_committed_trials_come_in_number_order_whatever_else_lies_there(tmp_path: Path) -> None:
    for number in (10_000, 2, 11):
        TrialFolder(tmp_path, number).commit(with_number(DONE, number))
    TrialFolder(tmp_path, 3).begin()
    (tmp_path / "trials" / "0005-copy").mkdir()
    (tmp_path / "trials" / "notes.txt").write_text("x")
    assert [trial.number for trial in committed(tmp_path)] == [2, 11, 10_000]
    assert committed(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: text.replace('"number": 7', '"number": 8'), "outcome of trial 8"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2'), "schema_version"),
        (lambda text: text.replace('"seed"', '"sead"'), "Did you mean 'seed'"),
        (lambda text: text.replace('"measured"', '"measuered"', 1), "damaged"),
    ],
)
def test_a_damaged_outcome_names_the_file_and_the_way_out(tmp_path: Path, damage: object, words: str) -> None:
    folder = TrialFolder(tmp_path, 7)
    folder.commit(DONE)
    path = folder.path / "outcome.json"
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(BadInput, match=words) as error:
        committed(tmp_path)
    assert str(path) in str(error.value)
    assert "remove the folder" in str(error.value)
