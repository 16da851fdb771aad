"""The referee against a script that writes what upstream's writes, in order and in each broken way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from advisor.domain.measurement import LatencySummary, Metrics, RefereeReport
from advisor.domain.workload import Workload
from advisor.load.referee import RefereeCall, compared, run_referee

SCRIPT = Path(__file__).with_name("benchmark_script.py")
WORKLOAD = Workload(isl=1000, osl=128, concurrency=8, n_requests=16)


def call(folder: Path, broken: str = "", timeout_s: float = 60.0) -> RefereeCall:
    lengths = ("--num-prompts", "16", "--random-input-len", "1000", "--random-output-len", "128")
    return RefereeCall(
        argv=(sys.executable, "-S", str(SCRIPT), *lengths, "--result-dir", str(folder), "--result-filename", "r.json"),
        cwd=str(folder),
        env={"BROKEN": broken, "PIPE": str(folder / "pipe")},
        result_path=str(folder / "r.json"),
        output_path=str(folder / "referee.log"),
        timeout_s=timeout_s,
    )


def test_a_run_that_counts(tmp_path: Path) -> None:
    asked = call(tmp_path)
    report = run_referee(asked, WORKLOAD)
    assert report == RefereeReport(
        command=asked.argv,
        n_requests=16,
        n_completed=16,
        output_tok_per_s=1024.0,
        ttft_ms_mean=50.0,
        tpot_ms_mean=8.0,
    )
    assert "Serving Benchmark Result" in (tmp_path / "referee.log").read_text()


@pytest.mark.parametrize(
    ("broken", "problems"),
    [
        ("all fail", ["0 of 16 requests completed", "0 output tokens came back, 2,048 were due",
                      "its output_tok_per_s is zero", "its ttft_ms_mean is zero", "its tpot_ms_mean is zero"]),
        ("some fail", ["14 of 16 requests completed"]),
        ("clamped", ["2,045 output tokens came back, 2,048 were due"]),
        ("drift", ["16,320 prompt tokens were sent, 16,000 were due"]),
        ("start tokens", []),
        ("other number", ["it sent 17 requests where 16 were asked for", "17 of 16 requests completed"]),
        ("test run", ["it exited with code 1", "it wrote no result file", "its first test request failed",
                      "it does not say how many requests completed"]),
        ("exit 3", ["it exited with code 3"]),
        ("old", []),
        ("not a number", []),
        ("half a file", []),  # the console says it all
        ("a list", []),
        ("no file", []),
        ("no file, no console", ["it wrote no result file", "it does not say how many requests completed"]),
    ],
)  # fmt: skip
def test_every_trap_is_a_problem_of_the_report(broken: str, problems: list[str], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"completed": 16, "total_output_tokens": 2048}')  # of an earlier run
    report = run_referee(call(tmp_path, broken), WORKLOAD)
    assert list(report.problems) == problems
    if not problems and broken not in ("old", "not a number"):
        assert (report.n_completed, report.output_tok_per_s) == (16, 1024.0)
    if broken == "old":
        assert (report.ttft_ms_mean, report.tpot_ms_mean) == (50.0, None), "what old releases do not say is unknown"
    if broken == "not a number":
        assert (report.output_tok_per_s, report.ttft_ms_mean, report.tpot_ms_mean) == (None, None, 8.0)


def test_lengths_in_a_range_may_sum_to_anything_within_it(tmp_path: Path) -> None:
    ranged = Workload(isl=1200, isl_min=800, osl=150, osl_min=100, concurrency=8, n_requests=16)
    assert run_referee(call(tmp_path), ranged).problems == ()
    longer = Workload(isl=1200, isl_min=1100, osl=150, osl_min=140, concurrency=8, n_requests=16)
    assert len(run_referee(call(tmp_path), longer).problems) == 2


def test_a_script_that_is_not_there_is_a_problem_too(tmp_path: Path) -> None:
    asked = call(tmp_path).model_copy(update={"argv": ("/no/such/python",)})
    report = run_referee(asked, WORKLOAD)
    assert report.n_completed == 0
    assert "could not be started" in report.problems[0]
    assert "/no/such/python" in report.problems[0]


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody reads it: the script waits
    report = run_referee(call(tmp_path, "hangs", timeout_s=0.2), WORKLOAD)
    assert report.problems[:2] == ("it did not end within 0.2 s", "it wrote no result file")


class Cancelled(BaseException):
    """What a signal handler raises."""


def test_a_cancelled_one_is_ended_with_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def cancel(number: int, frame: FrameType | None) -> None:
        raise Cancelled

    def cancel_once_it_runs() -> None:
        with (tmp_path / "pipe").open() as pipe:
            pipe.readline()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            pipe.read()  # ends when the last process that holds the pipe has

    before = signal.signal(signal.SIGUSR1, cancel)
    listener = threading.Thread(target=cancel_once_it_runs, daemon=True)
    listener.start()
    try:
        with pytest.raises(Cancelled):
            run_referee(call(tmp_path, "hangs"), WORKLOAD)
    finally:
        signal.signal(signal.SIGUSR1, before)
    listener.join(30)
    assert not listener.is_alive(), "a process of its group lives on"


def test_the_difference_is_the_referee_over_ours_and_only_where_it_counts() -> None:
    def flat(ms: float) -> LatencySummary:
        return LatencySummary(mean=ms, p50=ms, p90=ms, p95=ms, p99=ms)

    ours = Metrics(
        output_tok_per_s=1000.0,
        output_tok_per_s_per_gpu=1000.0,
        output_tok_per_s_per_user=1.0,
        request_per_s=1.0,
        ttft_ms=flat(40.0),
        tpot_ms=flat(10.0),
        itl_ms=None,
        e2e_ms=flat(1.0),
        n_requests=16,
        duration_s=1.0,
    )
    good = RefereeReport(
        command=(), n_requests=16, n_completed=16, output_tok_per_s=990.0, ttft_ms_mean=50.0, tpot_ms_mean=None
    )
    assert compared(good, ours).difference == pytest.approx({"output_tok_per_s": -0.01, "ttft_ms_mean": 0.25})
    bad = good.model_copy(update={"problems": ("14 of 16 requests completed",)})
    assert compared(bad, ours) == bad
    assert compared(good, None) == good
