"""The live panel: what the running trial does, and where the study stands.

It shows itself once a trial has run for a second, so that a study of quick trials is lines alone and nothing flickers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from advisor.app.context import StudyContext
from advisor.domain.measurement import Source
from advisor.domain.ports import Asked, MemoryInUse, SettlingRate, TrialEvent
from advisor.domain.trial import TrialRecord
from advisor.report.console import Screen
from advisor.report.progress import LineReporter, StudyReporter, config_text
from advisor.report.scoreboard import Scoreboard
from advisor.report.spans import span_text

QUIET_S = 1.0
REDRAWN_PER_S = 2  # the load client shares this process
BAR, SHORT_BAR = 20, 6
WIDE = 80  # columns of a terminal from which on bars are long
HEAD = 9  # columns of the words before each line

PHASES = {
    "configure": "checking its configuration",
    "download": "fetching the checkpoint",
    "launch": "starting its processes",
    "connect": "connecting its ranks",
    "load": "loading weights",
    "build": "building",
    "kv_estimate": "profiling memory",
    "kv_allocate": "allocating the KV cache",
    "warm_up": "warming up, capturing graphs",
    "answers": "answering fixed prompts",
    "serve": "serving",
    "referee": "meeting the engine's own benchmark",
    "stop": "stopping",
}


@dataclass(frozen=True)
class Running:
    """A trial that runs, as its events tell it; times by the reporter's clock."""

    asked: Asked
    began_s: float
    phase: str = ""
    phase_began_s: float = 0.0
    deadline_s: float | None = None
    detail: str = ""
    fraction_done: float | None = None
    memory: MemoryInUse | None = None
    rate: SettlingRate | None = None

    def after(self, event: TrialEvent, now_s: float) -> Running:
        """With one more event: a phase forgets the progress of the one before, memory stays until it is told anew."""
        seen = replace(self, memory=event.memory or self.memory)
        if event.kind == "memory":
            return seen
        if event.kind == "phase":
            seen = replace(seen, phase_began_s=now_s, deadline_s=event.deadline_s)
        return replace(seen, phase=event.phase, detail=event.detail, fraction_done=event.fraction_done, rate=event.rate)


def bar(share: float, width: int) -> str:
    """`[#####---------------]` of a share, clipped to 0..1, on a terminal so many columns wide."""
    cells = BAR if width >= WIDE else SHORT_BAR
    full = round(cells * min(1.0, max(0.0, share)))
    return f"[{'#' * full}{'-' * (cells - full)}]"


def panel_rows(running: Running, board: Scoreboard, now_s: float, word: str, width: int) -> Iterator[tuple[str, str]]:
    """Head and text of each line of the panel.

    Args:
        running: The trial.
        board: Of the study.
        now_s: By the reporter's clock.
        word: What is being done since a Ctrl-C, empty before one.
        width: Of the terminal.
    """
    doing = "simulates" if board.context.identity.source == "simulated" else "measures"
    yield doing, f"#{running.asked.number} {config_text(running.asked.config)} ({running.asked.origin})"
    if running.phase:
        yield "phase", phase_text(running, now_s, board.context.identity.source)
    if running.memory is not None:
        used, capacity = running.memory.used_gib, running.memory.capacity_gib
        yield "memory", f"{bar(used / capacity, width)} {used:.1f} of {capacity:.1f} GiB"
    if running.fraction_done is not None:
        yield "load", f"{bar(running.fraction_done, width)} {running.detail}"
    if running.rate is not None:
        yield "tok/s", rate_text(running.rate)
    yield "best", board.best_text
    yield "so far", board.counts_text
    left = board.eta_text(now_s)
    yield "budget", f"{bar(board.spent, width)} {board.budget_text}{', ' if left else ''}{left}"
    if word:
        yield "Ctrl-C", word


def phase_text(running: Running, now_s: float, source: Source) -> str:
    """The phase with how long it has taken, and may take where the time is real."""
    what = PHASES.get(running.phase, running.phase)
    about = f" {running.detail}" if running.detail and running.fraction_done is None else ""
    if source == "simulated":
        return f"{what}{about}"
    allowed = "" if running.deadline_s is None else f", deadline {span_text(running.deadline_s)}"
    return f"{what}{about}, {span_text(now_s - running.phase_began_s)}{allowed}"


def rate_text(rate: SettlingRate) -> str:
    """`32,412 +- 310 (95 %)`; without an interval, that there is none yet."""
    if rate.half_width is None:
        return f"{rate.tok_per_s:,.0f} so far, too early for an interval"
    return f"{rate.tok_per_s:,.0f} +- {rate.half_width:,.0f} (95 %)"


class LiveReporter(LineReporter):
    """Lines of finished trials with the panel below them.

    Args:
        context: Of the study.
        screen: A terminal.
        records: Of earlier starts of the same study.
        word: What is being done since a Ctrl-C, empty before one.
        now_s: The clock.
    """

    def __init__(
        self,
        context: StudyContext,
        screen: Screen,
        records: Sequence[TrialRecord],
        word: Callable[[], str],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(context, screen, records, now_s)
        self._word = word
        self._running: Running | None = None
        self._live = Live(self, console=screen, refresh_per_second=REDRAWN_PER_S, transient=True, redirect_stderr=False)

    def __enter__(self) -> StudyReporter:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = None
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The panel as it is now, each line cut to the width of the terminal so that its height is known."""
        running, now_s, word = self._running, self.now_s(), self._word()
        if running is not None and (word or now_s - running.began_s >= QUIET_S):
            for head, text in panel_rows(running, self.board, now_s, word, options.max_width):
                line = Text.assemble((f"{head:<{HEAD}} ", "dim"), text, no_wrap=True)
                line.truncate(options.max_width, overflow="ellipsis")
                yield line

    def trial_started(self, asked: Asked) -> None:
        """It is shown when it has run for a while."""
        self._running = Running(asked, self.now_s())

    def event(self, event: TrialEvent) -> None:
        """Kept for the next drawing."""
        if self._running is not None:
            self._running = self._running.after(event, self.now_s())

    def trial_ended(self, record: TrialRecord) -> None:
        """Its line above the panel."""
        self._running = None
        super().trial_ended(record)


def reporter_for(
    screen: Screen, context: StudyContext, records: Sequence[TrialRecord], word: Callable[[], str]
) -> StudyReporter:
    """Live where lines can be drawn anew, lines alone elsewhere."""
    return LiveReporter(context, screen, records, word) if screen.is_live else LineReporter(context, screen, records)
