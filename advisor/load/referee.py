"""The referee: one run of the engine's own benchmark script, shown beside advisor's numbers and never mixed in.

TensorRT-LLM's `python -m tensorrt_llm.serve.scripts.benchmark_serving` exits 0 when every request failed, counts cut
streams and clamped outputs as successes, and reports latencies of zero when nothing completed. So its figures count
only if its own totals say that every request returned all of its tokens.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from advisor.domain.measurement import Metrics, RefereeReport
from advisor.domain.strict import StrictModel, changed
from advisor.domain.workload import Workload
from advisor.load.referee_result import FIGURES, Asked, figures_of, problems_of

GRACE_S = 10.0
POLL_S = 0.05
KEPT_OUTPUT_BYTES = 256 * 1024


class RefereeCall(StrictModel):
    """How the script is started, and where it writes.

    Attributes:
        argv: Its command line, with `--save-result` into `result_path`.
        cwd: Working folder.
        env: Its whole environment.
        result_path: The JSON that it will write; an older one is removed first.
        output_path: Takes what it prints.
        timeout_s: It is ended after so many seconds.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    result_path: str
    output_path: str
    timeout_s: float


def run_referee(call: RefereeCall, workload: Workload) -> RefereeReport:
    """Run the script once and read what it says, from its JSON or else from its console block.

    Whatever goes wrong with it is a problem in the report, never an error: a referee decides nothing.
    """
    asked = Asked.of(workload)
    result = Path(call.result_path)
    try:
        result.unlink(missing_ok=True)
        exit_code = run_to_file(call)
    except OSError as error:
        problems = (f"it could not be started: {error}",)
        return RefereeReport(command=call.argv, n_requests=asked.n_requests, n_completed=0, problems=problems)
    output = _tail(Path(call.output_path))
    figures, unread = figures_of(_text(result), output)
    return RefereeReport(
        command=call.argv,
        n_requests=asked.n_requests,
        n_completed=figures.completed or 0,
        problems=(*_ending(exit_code, call.timeout_s), *unread, *problems_of(figures, asked, output)),
        **{name: getattr(figures, name) for name in FIGURES},
    )


def compared(report: RefereeReport, ours: Metrics | None) -> RefereeReport:
    """The report with its difference from our own metrics, by name: referee over ours - 1; only if it counts."""
    if ours is None or report.problems:
        return report
    mine = {
        "output_tok_per_s": ours.output_tok_per_s,
        "ttft_ms_mean": ours.ttft_ms.mean,
        "tpot_ms_mean": ours.tpot_ms.mean if ours.tpot_ms else None,
    }
    theirs: dict[str, float | None] = {name: getattr(report, name) for name in FIGURES}
    difference = {name: their / own - 1 for name, own in mine.items() if own and (their := theirs[name]) is not None}
    return changed(report, difference=difference)


def run_to_file(call: RefereeCall) -> int | None:
    """Run the command to its end with all output in a file; its exit code, None when it ran out of time.

    Its process group is ended on every way out. The leader is reaped last, so that its number still names the group.

    Raises:
        OSError: it cannot be started.
    """
    with Path(call.output_path).open("wb") as output:
        process = subprocess.Popen(
            call.argv,
            cwd=call.cwd,
            env=dict(call.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        in_time = _exits(process.pid, call.timeout_s)
    finally:
        _end_group(process)
    return process.returncode if in_time else None


def _exits(pid: int, within_s: float) -> bool:
    """True once the process has exited; it is not reaped."""
    deadline_s = time.monotonic() + within_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        if not _exits(process.pid, 0):
            os.killpg(process.pid, signal.SIGTERM)
            _exits(process.pid, GRACE_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(exit_code: int | None, timeout_s: float) -> tuple[str, ...]:
    if exit_code is None:
        return (f"it did not end within {timeout_s:g} s",)
    return (f"it exited with code {exit_code}",) if exit_code else ()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _tail(path: Path) -> str:
    """The end of the output; the console block is the last thing that the script prints."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - KEPT_OUTPUT_BYTES))
        return file.read().decode("utf-8", "replace")
