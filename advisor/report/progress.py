"""The person watching a study: a line a trial anywhere, and below them a live panel where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from advisor.app.context import StudyContext
from advisor.domain.outcome import summary
from advisor.domain.ports import Asked, TrialEvent
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.report.console import Screen, short_name, value_text
from advisor.report.scoreboard import Scoreboard, gain_text


def config_text(config: ServingConfig) -> str:
    """The four settings and the options in one short clause."""
    batch, tokens, graphs, fraction = (value_text(getattr(config, name)) for name in FOUR_SETTINGS)
    options = "".join(_option_text(short_name(name), value) for name, value in config.options.items())
    return f"batch {batch} tokens {tokens} graphs {graphs} kv {fraction}{options}"


def _option_text(name: str, value: OptionValue) -> str:
    """A switch by its name when it is on; anything else with its value."""
    if isinstance(value, bool):
        return f" +{name}" if value else ""
    return f" {name} {value_text(value)}"


class StudyReporter(Protocol):
    """A reporter that also frames the whole study."""

    def __enter__(self) -> StudyReporter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def trial_started(self, asked: Asked) -> None: ...
    def event(self, event: TrialEvent) -> None: ...
    def trial_ended(self, record: TrialRecord) -> None: ...
    def note(self, text: str) -> None: ...


def trial_line(record: TrialRecord, context: StudyContext, board: Scoreboard) -> str:
    """One trial in one line, the same for terminals, logs, CI and Slurm."""
    gain = board.add(record)
    place = f"[{board.launches:>3}/{context.budget.max_launches}] #{record.number:<3}"
    rates = [
        f"{outcome.metrics.output_tok_per_s:,.0f} tok/s" if outcome.metrics is not None else "stopped"
        for outcome in record.workloads
        if outcome.metrics is not None or outcome.stopped_early
    ]
    if not record.measured:
        # What is hopeless under one workload may be the best under another.
        found = f"{' | '.join(rates)}, " if set(rates) - {"stopped"} else ""
        return f"{place} {found}{summary(record.outcome)}: {config_text(record.config)} ({record.origin})"
    limits = sorted({outcome.limited_by for outcome in record.workloads if outcome.limited_by})
    by = f", limited by {', '.join(limits)}" if limits else ""
    result = f"{' | '.join(rates)} {gain_text(gain)}".rstrip()
    return f"{place} {result}: {config_text(record.config)} ({record.origin}{by})"


class LineReporter:
    """One line a trial; nothing is drawn anew."""

    def __init__(
        self,
        context: StudyContext,
        screen: Screen,
        records: Sequence[TrialRecord] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context, self.screen, self.now_s = context, screen, now_s
        self.board = Scoreboard(context, records, now_s())

    def __enter__(self) -> StudyReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def trial_started(self, asked: Asked) -> None:
        """Nothing to say: the line comes at the end."""

    def event(self, event: TrialEvent) -> None:
        """Phases are for the live panel."""

    def trial_ended(self, record: TrialRecord) -> None:
        """The line of this trial."""
        line = trial_line(record, self.context, self.board)
        left = self.board.eta_text(self.now_s()) if record.launched else ""
        self.note(f"{line}; {left}" if left else line)

    def note(self, text: str) -> None:
        """A remark between trials; a log keeps it in one line, a terminal wraps it between words."""
        self.screen.print(text, soft_wrap=not self.screen.file.isatty())
