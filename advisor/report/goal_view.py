"""What a study says beyond its winner: the Pareto front, the load that was found, and what defaults decided."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.pareto import ParetoPoint
from advisor.app.results import Result, StudySummary
from advisor.report.console import table
from advisor.report.progress import config_text

SHOWN = 6  # of a front on the terminal
HEADS = ("lengths", "load", "tok/s per GPU", "tok/s per user", "trial", "configuration")
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
    """The front as a short table; None where it is a single point or nothing, which says nothing new."""
    shown = spread(summary.pareto, SHOWN)
    if len(shown) < 2:
        return None
    grid = table("pareto", *HEADS[1:]) if len({point.shape for point in shown}) == 1 else table(*HEADS)
    for point in shown:
        grid.add_row(*pareto_cells(point))
    more = "" if len(shown) == len(summary.pareto) else f", {len(shown)} of {len(summary.pareto)} shown"
    title = f"Output per GPU against speed for each user ({summary.source}): {WHAT}{more}."
    return Group(grid, Text(title, style="dim"))
