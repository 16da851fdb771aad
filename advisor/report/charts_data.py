"""The numbers behind every chart, as plain tables: `charts.json` beside the page, which embeds the same document.

A chart is a table whose columns carry their units; the page, the pictures, the CSV and the text alternative are all
made from it, and none of them knows another number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field

from advisor.app.results import Result
from advisor.domain.measurement import Source
from advisor.domain.objective import COST, ENERGY, Objective
from advisor.domain.outcome import OutOfMemory
from advisor.domain.strict import StrictModel
from advisor.domain.trial import TrialRecord
from advisor.report.visible import visible

Cell: TypeAlias = bool | int | float | str | None
Kind = Literal["pareto", "course", "memory", "frontier", "worth", "latency", "timeline", "workloads"]
DIGITS = 6  # significant, of every number of a chart

OBJECTIVE_TITLES = {
    "output_tok_per_s_per_gpu": "output tok/s per GPU",
    "output_tok_per_s": "output tok/s",
    "output_tok_per_s_per_user": "output tok/s per user",
    "request_per_s": "requests/s",
    "goodput": "requests/s within the limits",
    COST: "USD per million tokens",
    ENERGY: "J per million tokens",
}


class Chart(StrictModel):
    """One chart: a table, what it shows in words, and single numbers beside it."""

    name: str = Field(description="Unique in its document; also names its picture")
    kind: Kind
    family: str = Field(description="Charts of one family share a figure, in which one is chosen")
    label: str = Field(description="In the choice, where there is one")
    title: str
    about: str = Field(description="What it shows, in sentences")
    source: Source
    columns: tuple[str, ...] = Field(description="Names that end in their units")
    rows: tuple[tuple[Cell, ...], ...]
    facts: dict[str, Cell] = Field(default_factory=dict, description="Single numbers, such as a level drawn as a line")

    def records(self) -> list[dict[str, Any]]:
        """Its rows by name of the column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def csv(self) -> str:
        """The table as CSV."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return stream.getvalue()


class ChartsDocument(StrictModel):
    """`charts.json`: the numbers of every chart of `report.html`."""

    schema_version: Literal[1] = 1
    study: str
    run: str
    source: Source
    label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    charts: tuple[Chart, ...]


def chart(
    name: str,
    kind: Kind,
    title: str,
    about: str,
    source: Source,
    rows: Sequence[Mapping[str, Cell]],
    *,
    family: str | None = None,
    label: str = "",
    facts: Mapping[str, Cell] | None = None,
) -> Chart:
    """A chart from rows that all have the same keys; numbers are rounded to `DIGITS` significant digits."""
    columns = tuple(rows[0]) if rows else ()
    return Chart(
        name=name,
        kind=kind,
        family=family or name,
        label=label or title,
        title=title,
        about=about,
        source=source,
        columns=columns,
        rows=tuple(tuple(map(_shown, (row[column] for column in columns))) for row in rows),
        facts={key: _shown(value) for key, value in (facts or {}).items()},
    )


def _shown(value: Cell) -> Cell:
    """A number to `DIGITS` significant digits, a text with nothing hidden in it."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return visible(value) if isinstance(value, str) else value


def total(values: Iterable[Any]) -> float:
    """Sum of cells that may be empty."""
    return float(sum(value for value in values if value is not None))


def objective_title(objective: Objective) -> str:
    """The objective with its unit: `output tok/s per GPU`, `TTFT p95, ms`."""
    latency, _, statistic = objective.metric.partition(":")
    return f"{latency.upper()} {statistic}, ms" if statistic else OBJECTIVE_TITLES[objective.metric]


def objective_text(objective: Objective, value: float) -> str:
    """A value of the objective with its unit: `4,788 output tok/s per GPU`, `812 ms TTFT p95`."""
    name, _, unit = objective_title(objective).partition(", ")
    return " ".join(filter(None, (f"{value:,.0f}" if value >= 100 else f"{value:,.2f}", unit, name)))


def group_of(results: Iterable[Result], record: TrialRecord) -> Literal["best", "baseline", "other"]:
    """Whether a trial has the configuration of a winner, of a baseline, or another one."""
    groups = set()
    for result in results:
        base = result.baseline.compared
        if result.best is not None and record.config == result.best.serving_config:
            groups.add("best")
        elif base is not None and record.config == base.serving_config:
            groups.add("baseline")
    return "best" if "best" in groups else "baseline" if "baseline" in groups else "other"


def outcome_of(record: TrialRecord) -> str:
    """How it ended, in a word; a success on the twin is `simulated`, never `measured`."""
    return record.source if record.measured else record.outcome.kind


def short_gib(record: TrialRecord) -> float | None:
    """GiB that were missing, where memory ran out."""
    return record.outcome.short_gib if isinstance(record.outcome, OutOfMemory) else None


def short_text(gib: float) -> str:
    """GiB that were missing, for people."""
    return f"{gib:.2f} GiB" if gib >= 0.01 else "< 0.01 GiB"
