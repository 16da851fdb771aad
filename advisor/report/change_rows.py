"""Differences as a table: each metric here and there, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from advisor.metrics.confidence import Interval
from advisor.metrics.verdict import Change
from advisor.report.console import table

TITLES = {"kv_tokens": "KV cache, tokens", "kv_pool_gib": "KV pool, GiB"}


def change_table(changes: Sequence[Change], before: str, after: str) -> Table:
    """One row a metric, in the order given.

    Args:
        changes: To show.
        before: Head of the column of the first numbers.
        after: Of the second.
    """
    grid = table("metric", before, after, "change", "interval", "verdict")
    for each in changes:
        share = "" if not each.before or each.after is None else percent(each.after / each.before)
        told = "" if each.ratio is None else interval_percent(each.ratio)
        grid.add_row(title(each.metric), number(each.before), number(each.after), share, told, each.kind)
    return grid


def title(metric: str) -> str:
    """A metric with its unit: `ttft:p95, ms`."""
    if metric.endswith("_gib"):
        return TITLES.get(metric, f"{metric.removesuffix('_gib').replace('_', ' ')}, GiB")
    return f"{metric}, ms" if ":" in metric else TITLES.get(metric, metric)


def number(value: float | None) -> str:
    """Three digits at least, thousands apart."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(ratio: float) -> str:
    """A ratio as a change: +1.2 %."""
    return f"{100 * (ratio - 1):+.1f} %"


def interval_percent(interval: Interval) -> str:
    """-1.2 to +3.4 %."""
    return f"{100 * (interval.low - 1):+.1f} to {percent(interval.high)}"
