"""Nothing is lost and nothing repeated, wherever the process is killed and wherever the journal is torn."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.domain.errors import BadInput
from advisor.store.journal import JOURNAL, mend
from advisor.store.trial_folder import committed
from tests.store.servers import essence, launch, open_ledger

ROOT = Path(__file__).parents[2]
N_TRIALS = 8


def study(run: Path, *kill_at: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.store.crash_worker", str(run), str(N_TRIALS), *map(str, kill_at)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lives: list[dict[str, Any]] = json.loads(done.stdout)
    return lives


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert [life["status"] for life in study(run)] == [0]
    return run


def assert_whole(run: Path, uninterrupted: Path) -> None:
    assert essence(tuple(committed(run))) == essence(tuple(committed(uninterrupted)))
    leftovers = [path for path in run.rglob("*") if path.is_file() and path.name.endswith((".tmp", ".lock.rename"))]
    assert leftovers == []
    folders = {path.name: sorted(p.name for p in path.iterdir()) for path in (run / "trials").iterdir()}
    assert folders == {
        path.name: sorted(p.name for p in path.iterdir()) for path in (uninterrupted / "trials").iterdir()
    }
    with open_ledger(run) as ledger, open_ledger(uninterrupted) as other:
        mirrored = [(t.number, t.state, t.value, t.params, t.constraints, t.user_attrs) for t in ledger.study.trials]
        assert mirrored == [
            (t.number, t.state, t.value, t.params, t.constraints, t.user_attrs) for t in other.study.trials
        ]


def test_killed_before_every_one_of_its_first_durable_operations(tmp_path: Path, uninterrupted: Path) -> None:
    """One life a moment, so the study creeps forward through every fsync and rename of its first trials."""
    lives = study(tmp_path / "run", *range(1, 60))
    killed = [life for life in lives if life["status"] == -9]
    # Every life is killed until one ends the study; 29 to 32 of them, as Python's own files need more or fewer writes.
    assert len(killed) >= 25
    assert all(life["status"] == -9 for life in lives[: len(killed)])
    for life in lives:
        assert not set(life["before"]) & set(life["launched"]), "a finished trial was launched again"
    assert_whole(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(tmp_path: Path, uninterrupted: Path, seed: int) -> None:
    draw = random.Random(seed)
    lives = study(tmp_path / "run", *(draw.randint(1, 60) for _ in range(8)))
    for life in lives:
        assert not set(life["before"]) & set(life["launched"]), "a finished trial was launched again"
    assert_whole(tmp_path / "run", uninterrupted)


def copied(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


def test_journal_torn_at_every_byte_of_its_last_entries(tmp_path: Path, uninterrupted: Path) -> None:
    whole = (uninterrupted / JOURNAL).read_bytes()
    lines = whole.splitlines(keepends=True)
    journal = tmp_path / JOURNAL
    last = len(whole) - len(lines[-1])
    for cut in range(last, len(whole)):
        for junk in (b"", b"\0\0\0", b'{"op_code":'):
            journal.write_bytes(whole[:cut] + junk)
            assert mend(journal) == cut - last + len(junk)
            assert journal.read_bytes() == whole[:last]
    journal.write_bytes(whole)
    assert mend(journal) == 0
    assert journal.read_bytes() == whole
    # Lines that are whole but no entries, as the blocks of a lost write may leave them.
    for junk in (b"\0\0\0\n", b"\r\r\n\0", b"x\ny\nz", b"[]\n"):
        journal.write_bytes(whole + junk)
        assert mend(journal) == len(junk)
        assert journal.read_bytes() == whole


@pytest.mark.parametrize("lost", [1, 2, 5, 9, 13, 17, 40, 10_000])
def test_study_goes_on_from_a_torn_or_lost_journal(tmp_path: Path, uninterrupted: Path, lost: int) -> None:
    """Entries lost with the power come back from the trial folders, and the next proposal is the same."""
    run = copied(uninterrupted, tmp_path / "run")
    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[: max(0, len(lines) - lost)])
    torn = lines[-lost][:7] if lost < len(lines) else b""
    (run / JOURNAL).write_bytes(kept + torn)
    assert_whole(run, uninterrupted)
    with open_ledger(run) as ledger, open_ledger(copied(uninterrupted, tmp_path / "other")) as other:
        assert ledger.ask("search") == other.ask("search")


def test_journal_is_rebuilt_from_the_trials_when_it_is_gone(tmp_path: Path, uninterrupted: Path) -> None:
    run = copied(uninterrupted, tmp_path / "run")
    (run / JOURNAL).unlink()
    assert_whole(run, uninterrupted)


def test_journal_damaged_in_the_middle_is_refused_with_its_line_and_the_way_out(
    tmp_path: Path, uninterrupted: Path
) -> None:
    run = copied(uninterrupted, tmp_path / "run")
    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    (run / JOURNAL).write_bytes(b"".join([*lines[:4], b"garbage\n", *lines[5:]]))
    with pytest.raises(BadInput, match=r"line 5 is no entry.*remove that file.*--resume"):
        open_ledger(run)
    (run / JOURNAL).write_bytes(b"".join([*lines[:4], b'{"op_code":4,"worker_id":"x"}\n', *lines[5:]]))
    with pytest.raises(BadInput, match=r"contradict.*remove that file"):
        open_ledger(run)
    (run / JOURNAL).unlink()
    assert_whole(run, uninterrupted)


def test_a_lock_of_a_killed_journal_writer_is_no_wait(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.commit(launch(ledger.ask("search")))
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    with open_ledger(tmp_path) as ledger:  # Optuna alone would wait 30 s here
        assert ledger.ask("search").number == 1
    assert not (tmp_path / f"{JOURNAL}.lock").is_symlink()
