"""The tables of the report, as values: best against baseline, predictions, prices, the Pareto front, deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.app.pareto import ParetoPoint
from advisor.app.report_sources import baseline_title
from advisor.app.results import Result, ResultEntry, StudySummary
from advisor.app.robustness import RobustChoice
from advisor.domain.objective import latency_ms
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue
from advisor.memory.pricing import Price
from advisor.report.console import SHORT_NAMES, value_text
from advisor.report.goal_view import HEADS as PARETO_HEADS
from advisor.report.goal_view import WHAT, pareto_cells
from advisor.report.metric_rows import METRICS, NONE
from advisor.report.price_view import HEADS as PRICE_HEADS
from advisor.report.price_view import PRICES_NOTE, price_cells
from advisor.report.summary import setting_title
from advisor.store.run_card import AsAsked, RunCard


@dataclass(frozen=True)
class Shown:
    """A cell that is more than its text: code, a dotted name that may be broken after its dots, or of a CSS class."""

    text: str
    class_: str = ""
    code: bool = False
    breaks: bool = False


Cells = Sequence["str | Shown"]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names it.

    Attributes:
        caption: What it shows, spoken first.
        columns: Heads.
        rows: Cells, as many as columns.
        words: Numbers of the columns that hold words and not numbers.
        row_classes: CSS class of each row, or nothing at all.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Cells]
    words: frozenset[int] = frozenset()
    row_classes: Sequence[str] = ()


def change(ours: float | None, theirs: float | None, sign: int) -> str | Shown:
    """`+12.8 % better`; by the numbers that are shown when both round to the same it is `same`."""
    if ours is None or not theirs:
        return NONE
    percent = f"{100 * (ours / theirs - 1):+.1f} %"
    if percent in ("+0.0 %", "-0.0 %"):
        return Shown("same", "aside")
    if not sign:
        return percent
    better = (ours > theirs) == (sign > 0)
    return Shown(f"{percent} {'better' if better else 'worse'}", "better" if better else "worse")


def value_of(flat: dict[str, OptionValue], key: str) -> str:
    """A setting for people, a dash where it is not said."""
    return value_text(flat[key]) if key in flat else NONE


def comparison_table(result: Result, best: ResultEntry) -> Table:
    """Settings and metrics of best and baseline side by side."""
    name = baseline_title(result)
    settings, metrics = _setting_rows(result, best), [*_metric_rows(result, best), *_limit_rows(result, best)]
    rows = [cells for cells, _ in settings] + metrics
    classes = [kind for _, kind in settings] + ["first-metric"] * bool(metrics) + [""] * (len(metrics) - 1)
    caption = f"Best against {name}, {result.source}; means over the trials behind each."
    return Table(caption, ["", "best", name, "change"], rows, row_classes=classes)


def _setting_rows(result: Result, best: ResultEntry) -> list[tuple[Cells, str]]:
    against = result.baseline.settings
    theirs, ours = {} if against is None else against.flat(), best.serving_config.flat()
    rows: list[tuple[Cells, str]] = []
    for key in dict.fromkeys([*ours, *theirs]):
        left, right = value_of(ours, key), value_of(theirs, key)
        differs = against is not None and left != right
        title = Shown(setting_title(result.deployment.engine, key), code=True, breaks=True)
        rows.append(([title, left, right, "changed" if differs else ""], "differs" if differs else ""))
    return rows


def _metric_rows(result: Result, best: ResultEntry) -> list[Cells]:
    base = result.baseline.compared
    other = None if base is None else base.metrics
    rows: list[Cells] = []
    for row in METRICS:
        ours = row.read(best.metrics)
        if ours is not None:
            shown = change(ours, None if other is None else row.read(other), row.sign)
            rows.append([f"{row.title}, {row.unit}", row.text(best.metrics), row.text(other), shown])
    memory = [None if entry is None else entry.memory_gib for entry in (best, base)]
    for key, title in (("kv_pool", "KV pool, GiB per GPU"), ("headroom", "Left free, GiB per GPU")):
        values = [None if report is None else float(getattr(report, key)) for report in memory]
        if values[0] is not None:
            cells = [NONE if value is None else f"{value:,.2f}" for value in values]
            rows.append([title, *cells, change(values[0], values[1], 0)])
    return rows


def _limit_rows(result: Result, best: ResultEntry) -> list[Cells]:
    rows: list[Cells] = []
    for limit in result.slo.limits:
        name = f"{limit.latency.upper()} {limit.statistic}, ms (limit {limit.limit_ms:,g} ms)"
        entries = (best, result.baseline.compared)
        pair = [None if e is None else latency_ms(e.metrics, limit.latency, limit.statistic) for e in entries]
        cells = [NONE if value is None else f"{value:,.1f}" for value in pair]
        rows.append([name, *cells, "kept" if limit.excess(best.metrics) <= 0 else "broken"])
    return rows


def predicted_table(result: Result) -> Table:
    """Every named baseline as the nominal twin predicts it; where one does not apply, why."""
    rows: list[Cells] = []
    for row in result.predicted_baselines:
        flat = {} if row.serving_config is None else row.serving_config.flat()
        said = row.prediction
        metrics = None if said is None else said.metrics
        rows.append(
            [
                row.name,
                *(value_of(flat, name) for name in FOUR_SETTINGS),
                *(METRICS[number].text(metrics) for number in (1, 4, 5)),
                NONE if said is None else f"{said.memory_gib.headroom:.1f}",
                NONE if said is None else "yes" if said.fits else "no",
                row.why,
            ]
        )
    settings = [SHORT_NAMES[name] for name in FOUR_SETTINGS]
    heads = ["baseline", *settings, "tok/s per GPU", "TTFT p99, ms", "TPOT, ms", "free, GiB", "fits", "what it is"]
    caption = "PREDICTED by the twin, launched or not."
    return Table(caption, heads, rows, words=frozenset((9, 10)))


def price_table(prices: Sequence[Price]) -> Table:
    """What a step of each setting takes and gives at the best."""
    rows = [[price.setting, price.step, *price_cells(price)] for price in prices]
    return Table(f"At the best: {PRICES_NOTE}", PRICE_HEADS, rows, words=frozenset((1,)))


def pareto_table(summary: StudySummary, points: Sequence[ParetoPoint]) -> Table:
    """The whole front of every shape over all its loads."""
    caption = f"Output per GPU against speed for each user, {summary.source}: {WHAT}."
    return Table(caption, PARETO_HEADS, [pareto_cells(point) for point in points], words=frozenset((0, 1, 5)))


def regret_table(choice: RobustChoice) -> Table:
    """What one configuration for all loses."""
    rows = [[workload, f"{100 * regret:.1f} %"] for workload, regret in choice.regret.items()]
    return Table("What it loses against the best of each workload.", ["workload", "loses"], rows)


def fixed_table(card: RunCard) -> Table:
    """The deployment, field by field."""
    rows: list[Cells] = [
        [Shown(name, code=True), value_text(value)]
        for name, value in card.deployment.model_dump().items()
        if value is not None
    ]
    if card.as_asked is not None:
        rows.append([Shown("max_seq_len in effect, tokens", code=True), f"{card.as_asked.max_seq_len:,}"])
    return Table("The deployment.", ["field", "value"], rows, words=frozenset((1,)))


def searched_table(asked: AsAsked) -> Table:
    """The ladders of the space, and why they are so."""
    rows: list[Cells] = [
        [Shown(dimension.name, code=True), " ".join(map(value_text, dimension.values)), dimension.reason]
        for dimension in asked.space.active
    ]
    caption = f"Search space {asked.space.name}."
    return Table(caption, ["setting", "ladder", "why"], rows, words=frozenset((1, 2)))
