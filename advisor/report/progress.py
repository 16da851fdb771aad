"""The person watching a study: a live panel on a terminal, one line a trial anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from advisor.app.context import StudyContext
from advisor.app.trial_maker import launches
from advisor.domain.outcome import summary
from advisor.domain.ports import Asked, TrialEvent
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.report.console import short_name, value_text


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


class Scoreboard:
    """Counts and the incumbent, derived from the records as they come."""

    def __init__(self, context: StudyContext, records: tuple[TrialRecord, ...]) -> None:
        self._context = context
        self._started = time.monotonic()
        self.launches = self.new_launches = self.oom = self.rejected = 0
        self.best: float | None = None
        self.baseline: float | None = None
        for record in records:
            self.add(record)
        self.new_launches = 0

    def add(self, record: TrialRecord) -> float | None:
        """Count a trial; returns its gain over the baseline where both are known."""
        self.launches += launches([record])
        self.new_launches += launches([record])
        self.oom += record.out_of_memory
        self.rejected += not record.launched
        value = self._context.value_of(record)
        if value is None:
            return None
        if record.role == "baseline" and self.baseline is None:
            self.baseline = value
        self.best = value if self.best is None else max(self.best, value)
        return None if self.baseline is None else value - self.baseline

    def gain_text(self, log_gain: float | None) -> str:
        """`+12.3 %` of a log gain, empty when unknown."""
        return "" if log_gain is None else f"{100 * (2.718281828459045**log_gain - 1):+.1f} %"

    def best_text(self) -> str:
        """The incumbent against the baseline."""
        if self.best is None or self.baseline is None:
            return "no measurement yet"
        return f"best {self.gain_text(self.best - self.baseline)} on {self._context.baseline.name}"

    def eta_s(self) -> float | None:
        """Seconds left at the pace so far."""
        left = self._context.budget.max_launches - self.launches
        if self.new_launches == 0:
            return None
        return max(0.0, left * (time.monotonic() - self._started) / self.new_launches)


def trial_line(record: TrialRecord, context: StudyContext, board: Scoreboard) -> str:
    """One trial in one line, the same for logs, CI and Slurm."""
    gain = board.add(record)
    if record.measured:
        rates = [
            f"{outcome.metrics.output_tok_per_s:,.0f} tok/s"
            for outcome in record.workloads
            if outcome.metrics is not None
        ]
        result = f"{' | '.join(rates)} {board.gain_text(gain)}".rstrip()
        limits = {outcome.limited_by for outcome in record.workloads if outcome.limited_by}
        result += f"  limit: {', '.join(sorted(limits))}" if limits else ""
    else:
        result = summary(record.outcome)
    place = f"[{board.launches:>3}/{context.budget.max_launches}] #{record.number:<3}"
    return f"{place} {config_text(record.config)}  {result}  ({record.origin})"


class LineReporter:
    """One line a trial on stderr."""

    def __init__(self, context: StudyContext, console: Console, records: tuple[TrialRecord, ...] = ()) -> None:
        self._context, self._console = context, console
        self._board = Scoreboard(context, records)

    def __enter__(self) -> LineReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def trial_started(self, asked: Asked) -> None:
        """Nothing to say: the line comes at the end."""

    def event(self, event: TrialEvent) -> None:
        """Phases are for the live view."""

    def trial_ended(self, record: TrialRecord) -> None:
        """The line of this trial."""
        line = trial_line(record, self._context, self._board)
        eta = self._board.eta_s()
        self._print(line + (f"  eta {eta:.0f} s" if eta is not None and record.launched else ""))

    def note(self, text: str) -> None:
        """A remark between trials."""
        self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class LiveReporter:
    """A bar that lives below the finished trials' lines."""

    def __init__(self, context: StudyContext, console: Console, records: tuple[TrialRecord, ...] = ()) -> None:
        self._context = context
        self._board = Scoreboard(context, records)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("launches"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> LiveReporter:
        self._progress.start()
        self._task = self._progress.add_task(
            f"[bold]{'simulating' if self._context.identity.source == 'simulated' else 'measuring'}[/bold]",
            total=self._context.budget.max_launches,
            completed=self._board.launches,
            state="",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def trial_started(self, asked: Asked) -> None:
        """Show what is being launched."""
        self._state(f"{self._counts()}  now #{asked.number} {config_text(asked.config)}")

    def event(self, event: TrialEvent) -> None:
        """Show the phase."""
        done = "" if event.fraction_done is None else f" {event.fraction_done:.0%}"
        self._state(f"{self._counts()}  {event.phase}{done} {event.detail}")

    def trial_ended(self, record: TrialRecord) -> None:
        """Print the trial's line above the bar."""
        line = trial_line(record, self._context, self._board)
        self._progress.console.print(line, markup=False, style=None if record.measured else "dim")
        if self._task is not None:
            self._progress.update(self._task, completed=self._board.launches)

    def note(self, text: str) -> None:
        """A remark between trials."""
        self._progress.console.print(text, markup=False)

    def _counts(self) -> str:
        return f"{self._board.best_text()}, {self._board.oom} OOM, {self._board.rejected} rejected"

    def _state(self, text: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, state=text)


ReporterFactory = Callable[[StudyContext, Console, tuple[TrialRecord, ...]], StudyReporter]


def reporter_for(console: Console) -> ReporterFactory:
    """Live where there is a terminal, lines elsewhere."""
    return LiveReporter if console.is_terminal else LineReporter
