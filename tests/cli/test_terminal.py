"""`advisor tune` on a real terminal: what is seen, and that Ctrl-C leaves a clean line and a way to go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.end_to_end.command import SMALL_SPACE, environment, outcomes, the_run
from tests.report.vt import finish, started, terminal

pytestmark = pytest.mark.system

LONG = ("tune", "--workload", "1k8k_c1024", *SMALL_SPACE, "--max-launches", "24", "--out", "out")
SHORT = (
    "tune",
    "--study",
    "llama3.1-8b-h100",
    "--workload",
    "1k1k_c16",
    *SMALL_SPACE,
    "--max-launches",
    "3",
    "--out",
    "out",
)


def seen_by(**more: str) -> dict[str, str]:
    """The environment of a person at a terminal."""
    own = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "ADVISOR_PLAIN", "CI"}
    return {name: value for name, value in environment(TERM="xterm-256color").items() if name not in own} | more


@pytest.mark.parametrize(
    ("columns", "env", "coloured"),
    [
        (40, {}, True),
        (60, {"NO_COLOR": "1"}, False),
        (100, {"TERM": "dumb"}, False),
        (80, {"ADVISOR_PLAIN": "1"}, False),
    ],
    ids=["narrow", "no-colour", "dumb", "screen-reader"],
)
def test_a_short_study(tmp_path: Path, columns: int, env: dict[str, str], coloured: bool) -> None:
    with terminal(columns) as pty, started(pty, *SHORT, cwd=tmp_path, env=seen_by(**env)) as process:
        assert finish(pty, process) == 0
    text = " ".join(pty.vt.text.split())
    assert pty.vt.coloured == coloured
    assert pty.vt.cursor_shown
    assert ("\x1b" in pty.raw) == (columns in (40, 60)), "nothing is drawn anew elsewhere"
    assert text.count("SIMULATED") == 2, "over the plan and over the result"
    assert pty.vt.text.count("\n[") == 3, "a line a trial"
    for said in ("plan", "GPU-hours", "at most 3", "Limited by", "config:", "report:", "Next"):
        assert said in text
    whole = [line for line in pty.vt.lines if len(line.rstrip()) == columns]
    assert len(whole) < len(pty.vt.lines) / 3, "lines end between words, not at the edge"


def test_ctrl_c_finishes_the_measurement_and_says_how_to_go_on(tmp_path: Path) -> None:
    with terminal(100) as pty, started(pty, *LONG, cwd=tmp_path, env=seen_by()) as process:
        pty.wait_for(lambda vt: "\n[" in vt.text)
        os.killpg(process.pid, signal.SIGINT)
        assert finish(pty, process) == 130
    assert pty.vt.cursor_shown
    text = pty.vt.text
    assert "\nCtrl-C " not in text
    assert "Ended because it was interrupted." in " ".join(text.split())
    assert "the same command with --resume goes on in out/" in "".join(text.splitlines())
    assert (the_run(tmp_path / "out") / "summary.json").exists()
    assert len(outcomes(tmp_path)) == text.count("\n["), "what was seen is what was written"


def test_three_times_ctrl_c_stops_at_once_on_a_clean_line(tmp_path: Path) -> None:
    with terminal(100) as pty, started(pty, *LONG, cwd=tmp_path, env=seen_by()) as process:
        pty.wait_for(lambda vt: "\n[" in vt.text)
        while process.poll() is None:  # signals that come together count as one
            os.kill(process.pid, signal.SIGINT)
            pty.read(0.01)
        assert finish(pty, process) == 130
    assert pty.vt.cursor_shown
    last = " ".join(pty.vt.text.split())
    assert "advisor: stopped. Finished trials are safe in out/" in last
    assert last.endswith("go on with --resume.")
    assert "\nbudget " not in pty.vt.text
