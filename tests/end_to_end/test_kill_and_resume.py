"""Nothing is lost and nothing repeated: the real command under SIGKILL, SIGINT and SIGTERM, then `--resume`."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.command import SMALL_SPACE, advisor, environment, half_written, outcomes, started, the_run

STUDY = ("--study", "llama3.1-8b-h100", "--workload", "1k1k_c256", "--workload", "4k1k_c128")
TUNE = ("tune", *STUDY, *SMALL_SPACE, "--max-launches", "9", "--out", "out")
N_LAUNCHES = 9
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("end_to_end")]  # they share the uninterrupted run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert advisor(*TUNE, cwd=folder).returncode == 0
    return the_run(folder / "out")


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def hears(pid: int, number: int) -> bool:
    """True once a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def has_committed(folder: Path, n_trials: int) -> bool:
    # A walk that minds nothing that vanishes under it: trials are being made.
    return sum("outcome.json" in names for _, _, names in os.walk(folder)) >= n_trials


def assert_equal_to(uninterrupted: Path, run: Path) -> None:
    assert (run / "trials.csv").read_text() == (uninterrupted / "trials.csv").read_text()
    for name in ("summary.json", "1k1k_c256/result.json", "4k1k_c128/result.json"):
        assert json.loads((run / name).read_text()) == json.loads((uninterrupted / name).read_text())
    assert half_written(run.parent) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_then_resumed(tmp_path: Path, uninterrupted: Path, seed: int) -> None:
    draw = random.Random(seed)
    for n_more in (0, draw.randint(1, 4), draw.randint(1, 3)):
        finished = outcomes(tmp_path)
        n_wanted = min(len(finished) + n_more, N_LAUNCHES - 1)
        process = started(*TUNE, "--resume", cwd=tmp_path)
        if len(finished) < n_wanted:
            wait_for(process, functools.partial(has_committed, tmp_path, n_wanted))
        time.sleep(draw.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        after = outcomes(tmp_path)
        assert {name: after[name] for name in finished} == finished, "a finished trial was made again"
    done = advisor(*TUNE, "--resume", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    last = outcomes(tmp_path)
    assert {name: last[name] for name in after} == after
    assert_equal_to(uninterrupted, the_run(tmp_path / "out"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_the_trial_writes_what_is_known_and_can_go_on(
    tmp_path: Path, uninterrupted: Path, number: int
) -> None:
    process = started(*TUNE, cwd=tmp_path)
    wait_for(process, lambda: has_committed(tmp_path, 2))
    process.send_signal(number)
    said, heard = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finishing this measurement" in heard
    assert "Traceback" not in heard
    assert "--resume" in said
    run = the_run(tmp_path / "out")
    finished = outcomes(run)
    assert 2 <= len(finished) < N_LAUNCHES
    assert sorted(path.name for path in (run / "trials").iterdir()) == sorted(finished), "a trial was cut in the middle"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped_by"] == "cancelled"
    assert {result["status"] for result in summary["results"]} <= {"interrupted", "baseline_within_noise"}
    assert len((run / "trials.csv").read_text().splitlines()) == 1 + 2 * len(finished)

    assert advisor(*TUNE, "--resume", cwd=tmp_path).returncode == 0
    after = outcomes(run)
    assert {name: after[name] for name in finished} == finished
    assert_equal_to(uninterrupted, run)


def test_three_interrupts_stop_at_once(tmp_path: Path) -> None:
    process = started(*TUNE, cwd=tmp_path)
    wait_for(process, lambda: has_committed(tmp_path, 1))
    for _ in range(3):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)  # signals of one kind do not queue
    heard = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in heard
    assert half_written(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.0, 0.2])
def test_stopped_before_it_began_it_leaves_nothing_and_says_130(tmp_path: Path, number: int, after_s: float) -> None:
    process = started("plan", "--workload", "4k1k_c1024", "--output", "json", cwd=tmp_path)
    wait_for(process, lambda: hears(process.pid, signal.SIGTERM))  # before that, Python itself is only starting
    time.sleep(after_s)
    process.send_signal(number)
    said, heard = process.communicate(timeout=60)
    assert (process.returncode, said, heard) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_on_the_same_run_is_turned_away(tmp_path: Path) -> None:
    first = started(*TUNE, cwd=tmp_path)
    wait_for(first, lambda: has_committed(tmp_path, 1))
    first.send_signal(signal.SIGSTOP)  # it must be there for as long as the second one looks
    second = advisor(*TUNE, "--resume", cwd=tmp_path)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert f"already being tuned by process {first.pid}: wait for it" in second.stderr
    assert "Traceback" not in second.stderr


def test_resuming_a_finished_run_launches_nothing_and_says_the_same(tmp_path: Path) -> None:
    small = ("tune", "--workload", "1k1k_c16", *SMALL_SPACE, "--max-launches", "6", "--out", "out", "--output", "json")
    once = advisor(*small, cwd=tmp_path)
    run = the_run(tmp_path / "out")
    before = outcomes(run)
    again = advisor(*small, "--resume", cwd=tmp_path)
    assert (once.returncode, again.returncode) == (0, 0)
    assert outcomes(run) == before
    assert json.loads(again.stdout) == json.loads(once.stdout)


def test_a_disk_that_fills_up_ends_in_one_paragraph_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, uninterrupted: Path
) -> None:
    """No file may grow beyond 12 KiB, as on a disk that is full: the journal hits it after a few trials."""
    limited = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (12288, 12288)); runpy.run_module('advisor')"
    )
    argv = [sys.executable, "-c", limited, *TUNE]
    full = subprocess.run(
        argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.splitlines()[-1].startswith("advisor: Cannot write ")
    assert "Traceback" not in full.stderr
    assert half_written(tmp_path) == []
    finished = outcomes(tmp_path)
    assert 0 < len(finished) < N_LAUNCHES
    assert advisor(*TUNE, "--resume", cwd=tmp_path).returncode == 0
    after = outcomes(tmp_path)
    assert {name: after[name] for name in finished} == finished
    assert_equal_to(uninterrupted, the_run(tmp_path / "out"))
