"""Charts as Plotly figures, in plain dictionaries: the page draws them, and so do the pictures for documents.

A figure holds no number that its chart does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advisor.report.charts_data import Chart, Kind
from advisor.report.figures_memory import frontier_figure, memory_figure, worth_figure
from advisor.report.figures_trials import course, latency, pareto, timeline, workloads
from advisor.report.plotly_parts import Figure, one


def _single(draw: Callable[[Chart], dict[str, Any]]) -> Callable[[Sequence[Chart]], Figure]:
    """The drawer of a family of one chart."""
    return lambda family: one(family[0], draw(family[0]))


_DRAWERS: Mapping[Kind, Callable[[Sequence[Chart]], Figure]] = {
    "pareto": _single(pareto),
    "course": _single(course),
    "latency": _single(latency),
    "timeline": _single(timeline),
    "workloads": _single(workloads),
    "worth": _single(worth_figure),
    "memory": lambda family: memory_figure(family[0]),
    "frontier": frontier_figure,
}


def figures(charts: Sequence[Chart]) -> list[Figure]:
    """One figure a family of charts, in their order; charts without rows are left out."""
    families: dict[str, list[Chart]] = {}
    for chart in charts:
        if chart.rows:
            families.setdefault(chart.family, []).append(chart)
    return [_DRAWERS[family[0].kind](family) for family in families.values()]
