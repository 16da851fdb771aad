"""What a study says beyond its winner: the Pareto front, the load that was found, and what defaults decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from advisor.app.pareto import ParetoPoint
from advisor.app.results import Result, StudySummary
from advisor.domain.measurement import Metrics
from advisor.report.console import table
from advisor.report.progress import config_text
from advisor.report.scatter import Mark, scatter

SHOWN = 6  # of a front on the terminal
HEADS = ("lengths", "load", "tok/s per GPU", "tok/s per user", "trial", "configuration")
MOST_COLUMNS, ROWS = 72, 12  # of a plot
NOISE = 0.02
MEANINGS = {"B": "best", "x": "baseline", "*": "front", "o": "others of the table"}
WHAT = "single runs that keep every limit; none of them is beaten in both"


def load_notes(result: Result) -> list[str]:
    """The highest load that keeps the limits, where the load was searched."""
    best, base = result.best, result.baseline
    if best is None or best.concurrency is None:
        return []
    against = "" if base.concurrency is None else f", the {base.name} configuration at {base.concurrency:,}"
    return [
        f"Goodput is at the best load found on each launch, up to {result.workload.concurrency:,} requests in flight: "
        f"the best has it at {best.concurrency:,}{against}."
    ]


def goal_notes(result: Result) -> list[str]:
    """The load that was found, then what defaults decided."""
    return [*load_notes(result), *result.decided_by_default]


def spread(points: Sequence[ParetoPoint], n: int) -> list[ParetoPoint]:
    """At most `n` points of each shape, evenly from one end of its front to the other."""
    shown: list[ParetoPoint] = []
    for shape in dict.fromkeys(point.shape for point in points):
        front = [point for point in points if point.shape == shape]
        last = len(front) - 1
        places = range(len(front)) if last < n else sorted({round(i * last / (n - 1)) for i in range(n)})
        shown += [front[place] for place in places]
    return shown


def pareto_cells(point: ParetoPoint) -> list[str]:
    """One point of the front under `HEADS`."""
    load = f"{point.concurrency:,} in flight" if point.concurrency else point.workload.rpartition("_r")[2] + "/s"
    return [
        point.shape,
        load,
        f"{point.output_tok_per_s_per_gpu:,.0f}",
        f"{point.output_tok_per_s_per_user:,.1f}",
        f"#{point.trial}",
        config_text(point.serving_config),
    ]


def pareto_view(summary: StudySummary) -> RenderableType | None:
    """The front of each shape as a plot and a short table; None where there is nothing to choose between."""
    drawings = [Drawing(marks, shape) for shape, marks in plotted(summary).items() if is_spread(marks)]
    shown = spread(summary.pareto, SHOWN)
    if len(shown) < 2 and not drawings:
        return None
    title = f"Output per GPU against speed for each user ({summary.source})."
    parts: list[RenderableType] = [Text(title, style="bold"), *drawings]
    if len(shown) > 1:
        heads = ("front", *HEADS[1:]) if len({point.shape for point in shown}) == 1 else HEADS
        grid = table(*heads)
        grid.columns[-1].justify = "left"
        for point in shown:
            grid.add_row(*pareto_cells(point))
        more = "" if len(shown) == len(summary.pareto) else f" {len(shown)} of {len(summary.pareto)} are shown."
        parts += [Text(), grid, Text(f"The front: {WHAT}.{more}", style="dim")]
    return Group(*parts)


def plotted(summary: StudySummary) -> dict[str, list[Mark]]:
    """What is drawn of each shape, what matters most last: the table's configurations, the front, baseline, best."""
    shapes: dict[str, list[Mark]] = {result.workload.shape: [] for result in summary.results}
    for result in summary.results:
        shapes[result.workload.shape] += [_mark(entry.metrics, "o") for entry in result.top]
    for point in summary.pareto:
        shapes[point.shape].append(Mark(point.output_tok_per_s_per_user, point.output_tok_per_s_per_gpu, "*"))
    for result in summary.results:
        for entry, symbol in ((result.baseline.compared, "x"), (result.best, "B")):
            if entry is not None:
                shapes[result.workload.shape].append(_mark(entry.metrics, symbol))
    return shapes


def _mark(metrics: Metrics, symbol: str) -> Mark:
    return Mark(metrics.output_tok_per_s_per_user, metrics.output_tok_per_s_per_gpu, symbol)


def is_spread(marks: Sequence[Mark]) -> bool:
    """True where the points differ by more than noise does in either direction."""
    pairs = [[mark.x for mark in marks], [mark.y for mark in marks]]
    return any(bool(values) and max(values) > (1 + NOISE) * min(values) for values in pairs)


@dataclass(frozen=True)
class Drawing:
    """A plot as wide as the terminal allows; nothing for a screen reader or on too narrow a one: the table has it."""

    marks: Sequence[Mark]
    shape: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines and what the characters mean."""
        if getattr(console, "plain", False):
            return
        lines = scatter(
            self.marks,
            min(options.max_width, MOST_COLUMNS),
            ROWS,
            x_title="tok/s per user",
            y_title=f"tok/s per GPU, {self.shape}",
            x_format=",.1f",
            y_format=",.0f",
        )
        if lines:
            yield Text("\n".join(["", *lines]))
            drawn = "".join(lines[1 : 1 + ROWS])
            seen = [f"{symbol} {meaning}" for symbol, meaning in MEANINGS.items() if symbol in drawn]
            yield Text(", ".join(seen), style="dim")
