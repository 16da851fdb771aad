"""The person watching, on a real pseudo-terminal and on what is none."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from advisor.domain.outcome import Hopeless
from advisor.domain.ports import Asked, MemoryInUse, SettlingRate, TrialEvent
from advisor.domain.strict import changed
from advisor.report.console import Screen
from advisor.report.live import LiveReporter, Running, bar, reporter_for
from advisor.report.progress import LineReporter, trial_line
from advisor.report.scoreboard import Scoreboard
from tests.report.conftest import Finished
from tests.report.vt import Pty, terminal

pytestmark = pytest.mark.xdist_group("finished study")  # they share it

XTERM = {"TERM": "xterm-256color"}
SERVING = (
    TrialEvent(kind="phase", phase="load", deadline_s=1800),
    TrialEvent(kind="memory", phase="load", memory=MemoryInUse(used_gib=20.0, capacity_gib=80.0)),
    TrialEvent(kind="phase", phase="serve", detail="1k1k_c16"),
    TrialEvent(
        kind="progress",
        phase="serve",
        detail="1k1k_c16: 24 of 48 requests",
        fraction_done=0.5,
        memory=MemoryInUse(used_gib=72.0, capacity_gib=80.0),
        rate=SettlingRate(tok_per_s=3210.4, half_width=120.6),
    ),
)


class Watch:
    """A clock that a hand moves, and a word."""

    def __init__(self) -> None:
        self.now_s, self.word = 100.0, ""


@contextmanager
def screen_of(pty: Pty, **env: str) -> Iterator[Screen]:
    with os.fdopen(os.dup(pty.slave), "w") as file:
        yield Screen(file, {**XTERM, **env}, pty.vt.columns)  # rich asks the standard streams, which are others here


def asked(finished: Finished) -> Asked:
    record = finished.records[1]
    return Asked(number=record.number, config=record.config, role=record.role, origin=record.origin)


@pytest.mark.parametrize("columns", [30, 60, 120])
def test_a_trial_that_lasts_has_a_panel_which_goes_with_it(finished: Finished, columns: int) -> None:
    watch, context = Watch(), finished.session.context
    with terminal(columns) as pty, screen_of(pty) as screen:
        reporter = LiveReporter(context, screen, finished.records[:1], lambda: watch.word, lambda: watch.now_s)
        with reporter:
            pty.wait_for(lambda vt: not vt.cursor_shown)
            reporter.trial_started(asked(finished))
            for event in SERVING:
                reporter.event(event)
            watch.now_s += 5
            pty.wait_for(lambda vt: "budget" in vt.text)
            panel = pty.vt.text
            assert "simulates #1" in panel, "never measures"
            assert "tok/s     3,210 +- 121" in panel
            assert f"memory    {bar(0.9, columns)}" in panel
            assert f"load      {bar(0.5, columns)}" in panel
            if columns == 120:
                assert "72.0 of 80.0 GiB" in panel
                assert "best      #0, +0.0 % on " in panel
                assert "0 OOM, 0 rejected, 0 stopped early" in panel
                assert "1 of 9 launches" in panel
            watch.word = "stopping soon"
            pty.wait_for(lambda vt: "Ctrl-C    stopping soon" in vt.text)
            reporter.trial_ended(finished.records[1])
        pty.wait_for(lambda vt: vt.cursor_shown)
    assert "#1 " in pty.vt.text
    for word in ("budget", "Ctrl-C", "simulates"):
        assert word not in pty.vt.text
    assert pty.vt.lines[pty.vt.row] == "", "the next thing said begins on a line of its own"
    assert max(map(len, pty.vt.lines)) <= columns


def test_quick_trials_are_lines_alone(finished: Finished) -> None:
    context = finished.session.context
    with terminal(100) as pty, screen_of(pty) as screen:
        watch = Watch()
        with LiveReporter(context, screen, (), lambda: "", lambda: watch.now_s) as reporter:
            for record in finished.records:
                reporter.trial_started(asked(finished))
                reporter.event(SERVING[0])
                reporter.trial_ended(record)
        pty.wait_for(lambda vt: f"#{finished.records[-1].number} " in vt.text and vt.cursor_shown)
    assert "budget" not in pty.raw
    starts = [line for line in pty.vt.text.splitlines() if line.startswith("[")]
    assert len(starts) == len(finished.records)


def test_an_error_leaves_a_clean_line_and_the_cursor(finished: Finished) -> None:
    watch = Watch()
    with terminal(80) as pty, screen_of(pty) as screen:

        def interrupted() -> None:
            with LiveReporter(finished.session.context, screen, (), lambda: "", lambda: watch.now_s) as reporter:
                reporter.trial_started(asked(finished))
                watch.now_s += 5
                pty.wait_for(lambda vt: "budget" in vt.text)
                raise SystemExit(130)

        with pytest.raises(SystemExit):
            interrupted()
        pty.wait_for(lambda vt: vt.cursor_shown)
    assert pty.vt.text.strip() == ""


@pytest.mark.parametrize(
    ("env", "live", "coloured"),
    [
        (XTERM, True, True),
        ({**XTERM, "NO_COLOR": "1"}, True, False),
        ({**XTERM, "ADVISOR_PLAIN": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
    ids=["terminal", "no-colour", "screen-reader", "dumb"],
)
def test_what_a_terminal_gets(finished: Finished, env: dict[str, str], live: bool, coloured: bool) -> None:
    context = finished.session.context
    with terminal(70) as pty, os.fdopen(os.dup(pty.slave), "w") as file:
        screen = Screen(file, env, 70 if live else None)
        with reporter_for(screen, context, (), lambda: "") as reporter:
            assert isinstance(reporter, LiveReporter) == live
            reporter.trial_ended(finished.records[0])
            screen.print("bold", style="bold red")
        pty.wait_for(lambda vt: "bold" in vt.text and vt.cursor_shown)
        assert screen.width == 70 or "ADVISOR_PLAIN" in env
    assert pty.vt.coloured == coloured
    assert ("\x1b" in pty.raw) == live


@pytest.mark.parametrize("env", [XTERM, {"FORCE_COLOR": "1", **XTERM}], ids=["file", "forced-colour"])
def test_what_is_no_terminal_gets_one_line_a_trial(finished: Finished, env: dict[str, str]) -> None:
    stream = io.StringIO()
    with reporter_for(Screen(stream, env), finished.session.context, (), lambda: "") as reporter:
        assert type(reporter) is LineReporter
        for record in finished.records:
            reporter.trial_started(asked(finished))
            reporter.event(SERVING[0])
            reporter.trial_ended(record)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(finished.records)
    assert "\x1b[?25" not in stream.getvalue(), "nothing is drawn anew"
    assert all(line.startswith("[") and f"#{n} " in line for n, line in enumerate(lines))


def test_what_was_measured_before_another_benchmark_was_stopped_is_shown(finished: Finished) -> None:
    context = finished.session.context
    whole = next(record for record in finished.records if record.measured)
    measured = whole.workloads[0]
    assert measured.metrics is not None
    tok_per_s = f"{measured.metrics.output_tok_per_s:,.0f} tok/s"
    stopped = changed(measured, workload="other", metrics=None, stopped_early=True)
    both, none = (
        changed(whole, outcome=Hopeless(reason="too slow"), workloads=workloads)
        for workloads in ((measured, stopped), (stopped,))
    )
    said, silent = (trial_line(record, context, Scoreboard(context, (), 0.0)) for record in (both, none))
    assert f" {tok_per_s} | stopped, hopeless: too slow: batch" in said
    assert f"#{whole.number:<3} hopeless: too slow: batch" in silent


def test_what_events_tell_is_kept_as_long_as_it_holds(finished: Finished) -> None:
    running = Running(asked(finished), 0.0)
    for place, event in enumerate(SERVING):
        running = running.after(event, float(place))
    assert (running.phase, running.phase_began_s, running.deadline_s) == ("serve", 2.0, None)
    assert (running.fraction_done, running.memory) == (0.5, SERVING[3].memory)
    again = running.after(TrialEvent(kind="phase", phase="load", deadline_s=9), 7.0)
    assert (again.rate, again.fraction_done, again.memory) == (None, None, SERVING[3].memory)
    assert (again.phase_began_s, again.deadline_s) == (7.0, 9)
