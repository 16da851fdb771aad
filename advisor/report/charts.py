"""The charts over all trials of a report: the trade-off, and the course of the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.app.results import Result
from advisor.domain.measurement import Metrics
from advisor.domain.objective import COST, ENERGY
from advisor.domain.outcome import Hopeless, OutOfMemory, Rejected
from advisor.domain.trial import TrialRecord
from advisor.metrics.pareto import non_dominated
from advisor.report import svg
from advisor.report.markup import Html, join
from advisor.report.progress import config_text
from advisor.report.svg import Frame, Shape, Symbol

SQUARE = Frame(width=560, height=400, left=52, right=16, top=28, bottom=42)
WIDE = Frame(width=1130, height=300, left=52, right=16, top=28, bottom=42)
ROOM = 1.08  # free space beyond the outermost mark
LABEL_ROOM = 1.22  # and with a label in it

OBJECTIVE_TITLES = {
    "output_tok_per_s_per_gpu": "output tok/s per GPU",
    "output_tok_per_s": "output tok/s",
    "output_tok_per_s_per_user": "output tok/s per user",
    "request_per_s": "requests/s",
    "goodput": "requests/s within the limits",
    COST: "USD per million tokens",
    ENERGY: "J per million tokens",
}


@dataclass(frozen=True)
class Mark:
    """A measured trial on one workload, and how it is drawn: colour by configuration, shape by role."""

    record: TrialRecord
    metrics: Metrics
    group: str
    shape: Shape
    feasible: bool

    @property
    def class_(self) -> str:
        """CSS classes."""
        return f"mark {self.group}" if self.feasible else f"mark {self.group} hollow"

    @property
    def tooltip(self) -> str:
        """Everything about it in a line."""
        metrics, record = self.metrics, self.record
        broken = "" if self.feasible else "; breaks a limit"
        return (
            f"#{record.number} {record.role}: {metrics.output_tok_per_s_per_gpu:,.0f} tok/s per GPU, "
            f"{metrics.output_tok_per_s_per_user:,.1f} tok/s per user, TTFT p99 {metrics.ttft_ms.p99:,.0f} ms; "
            f"{config_text(record.config)}{broken}"
        )


def objective_title(result: Result) -> str:
    """The objective with its unit: `output tok/s per GPU`, `TTFT p95, ms`."""
    metric = result.objective.metric
    latency, _, statistic = metric.partition(":")
    return f"{latency.upper()} {statistic}, ms" if statistic else OBJECTIVE_TITLES[metric]


def objective_text(result: Result, value: float) -> str:
    """A value of the objective with its unit: `4,788 output tok/s per GPU`, `812 ms TTFT p95`."""
    name, _, unit = objective_title(result).partition(", ")
    return " ".join(filter(None, (f"{value:,.0f}" if value >= 100 else f"{value:,.2f}", unit, name)))


def group_of(result: Result, record: TrialRecord) -> str:
    """`best`, `baseline` or `other`, by the configuration of a trial."""
    if result.best is not None and record.config == result.best.serving_config:
        return "best"
    base = result.baseline.compared
    return "baseline" if base is not None and record.config == base.serving_config else "other"


def marks(result: Result, records: Sequence[TrialRecord]) -> list[Mark]:
    """Every trial with a whole benchmark of the workload of a result, in order."""
    found = []
    for record in records:
        outcome = record.workload(result.workload_name)
        if record.served and outcome is not None and outcome.metrics is not None:
            shape: Shape = {"confirmation": "diamond", "baseline": "square"}.get(record.role, "circle")  # type: ignore[assignment]
            kept = result.slo.met(outcome.metrics)
            found.append(Mark(record, outcome.metrics, group_of(result, record), shape, kept))
    return found


def baseline_title(result: Result) -> str:
    """What the configuration compared with is called."""
    return f"nearest to {result.baseline.name}" if result.baseline.is_substitute else result.baseline.name


def _named(result: Result) -> list[tuple[str, str, Metrics]]:
    """(class, name, metrics) of the configurations that carry a label."""
    base = result.baseline.compared
    name = baseline_title(result)
    same = base is not None and result.best is not None and base.serving_config == result.best.serving_config
    found = [("best", f"best = {name}" if same else "best", result.best.metrics)] if result.best else []
    return found if base is None or same else [*found, ("baseline", name, base.metrics)]


def tradeoff_chart(result: Result, records: Sequence[TrialRecord]) -> Html | None:
    """Throughput of a GPU against the speed that each user sees; None without a measurement."""
    drawn = marks(result, records)
    if not drawn:
        return None
    points = [(mark.metrics.output_tok_per_s_per_user, mark.metrics.output_tok_per_s_per_gpu) for mark in drawn]
    x = SQUARE.x(0, ROOM * max(1e-9, *(point[0] for point in points)))
    y = SQUARE.y(0, LABEL_ROOM * max(1e-9, *(point[1] for point in points)))
    kept = [point for point, mark in zip(points, drawn, strict=True) if mark.feasible]
    edge = sorted({kept[place] for place in non_dominated(kept)})
    stair: list[tuple[float, float]] = []
    for number, (right, height) in enumerate(edge):
        stair += [(x(edge[number - 1][0]) if number else x.start, y(height)), (x(right), y(height))]
    if edge:
        stair.append((x(edge[-1][0]), y.start))
    named = _named(result)
    places = [(x(each.output_tok_per_s_per_user), y(each.output_tok_per_s_per_gpu)) for _, _, each in named]
    top = min((place[1] for place in places), default=0.0)
    labels = [
        svg.called_out(
            *place,
            place[1] - 30 if place[1] == top else place[1] + 44,
            f"{name}: {each.output_tok_per_s_per_gpu:,.0f} tok/s per GPU",
            class_,
            x.end,
        )
        for (class_, name, each), place in zip(named, places, strict=True)
    ]
    said = "; ".join(
        f"{name} reaches {each.output_tok_per_s_per_gpu:,.0f} tok/s per GPU at "
        f"{each.output_tok_per_s_per_user:,.1f} tok/s per user"
        for _, name, each in named
    )
    order = sorted(zip(points, drawn, strict=True), key=lambda pair: pair[1].group != "other")
    return svg.picture(
        f"tradeoff-{result.workload_name}",
        SQUARE.width,
        SQUARE.height,
        f"Output tok/s per GPU against tok/s per user, {result.source}",
        f"{len(drawn)} trials with a result, {len(edge)} of them on the Pareto front. {said}.",
        svg.axes(SQUARE, x, y, "output tok/s per user", "output tok/s per GPU"),
        svg.stamp(SQUARE, result.source),
        svg.path(stair, "front") if stair else "",
        *(svg.mark(mark.shape, x(right), y(up), mark.class_, mark.tooltip) for (right, up), mark in order),
        *labels,
    )


def course_chart(result: Result, records: Sequence[TrialRecord]) -> Html | None:
    """The objective by trial number with the best so far; what did not serve stands on the axis."""
    if not records:
        return None
    valued = [
        (mark, value) for mark in marks(result, records) if (value := result.objective.value(mark.metrics)) is not None
    ]
    last = max(record.number for record in records)
    x = WIDE.x(-0.7, last + 0.7)
    y = WIDE.y(0, ROOM * (max([value for _, value in valued], default=0.0) or 1.0))  # goodput may be zero everywhere
    leading = _leading(result, valued)
    stair: list[tuple[float, float]] = []
    for number, best in leading:
        stair += [(x(number), stair[-1][1]), (x(number), y(best))] if stair else [(x(number), y(best))]
    if stair:
        stair.append((x.end, stair[-1][1]))
    base = result.baseline.compared
    level = None if base is None else result.objective.value(base.metrics)
    n_oom = sum(record.out_of_memory for record in records)
    n_rejected = sum(not record.launched for record in records)
    return svg.picture(
        f"course-{result.workload_name}",
        WIDE.width,
        WIDE.height,
        f"Trials in order: {objective_title(result)}, {result.source}",
        f"{len(valued)} trials with a result, {n_oom} out of memory, {n_rejected} rejected before launch. "
        + (
            f"The best single run of the search is trial #{leading[-1][0]}, {objective_text(result, leading[-1][1])}."
            if leading
            else ""
        ),
        svg.axes(WIDE, x, y, "trial number", objective_title(result), whole_x=True, y_numbers=bool(valued)),
        svg.stamp(WIDE, result.source),
        "" if level is None else svg.line(x.start, y(level), x.end, y(level), "level"),
        svg.path(stair, "front") if len(stair) > 1 else "",
        *(svg.mark(mark.shape, x(mark.record.number), y(value), mark.class_, mark.tooltip) for mark, value in valued),
        *(_fallen(record, x(record.number), y.start) for record in records if not record.measured),
    )


def _leading(result: Result, valued: Sequence[tuple[Mark, float]]) -> list[tuple[int, float]]:
    """(trial number, value) each time the search found something better that keeps the limits."""
    steps: list[tuple[int, float]] = []
    for mark, value in valued:
        searched = mark.feasible and value > 0 and mark.record.role != "confirmation"
        if searched and (not steps or result.objective.gain(value, steps[-1][1]) > 1):
            steps.append((mark.record.number, value))
    return steps


def short_text(short_gib: float) -> str:
    """GiB that were missing."""
    return f"{short_gib:.2f} GiB" if short_gib >= 0.01 else "< 0.01 GiB"


def _fallen(record: TrialRecord, x: float, floor: float) -> Html:
    """A trial without a measurement, on the axis."""
    said = f"#{record.number} {record.ending}; {config_text(record.config)}"
    if isinstance(record.outcome, (Rejected, Hopeless)):
        return svg.mark("tick", x, floor, record.outcome.kind, said)
    if isinstance(record.outcome, OutOfMemory):
        short = svg.text(x + 4, floor - 9, f"{short_text(record.outcome.short_gib)} short", "label oom", None, -90)
        return join(svg.mark("cross", x, floor, "oom", said), short)
    return svg.mark("triangle", x, floor, "failed", said)


def tradeoff_legend(drawn: Sequence[Mark]) -> Html:
    """Symbols of the trade-off chart."""
    edge: list[Symbol] = [("line", "front", "Pareto front of single runs")]
    return svg.legend([*_symbols(drawn), *(edge if any(mark.feasible for mark in drawn) else [])])


def course_legend(result: Result, drawn: Sequence[Mark], records: Sequence[TrialRecord]) -> Html:
    """Symbols of the course chart, those that occur."""
    base = result.baseline.compared
    level = None if base is None else result.objective.value(base.metrics)
    entries = _symbols(drawn)
    if drawn:
        entries.insert(0, ("line", "front", "best single run so far"))
    if level is not None:
        entries.insert(1, ("dashes", "level", f"{_named(result)[-1][1]}, mean: {objective_text(result, level)}"))
    if any(record.out_of_memory for record in records):
        entries.append(("cross", "oom", "out of memory, GiB short"))
    if any(isinstance(record.outcome, Rejected) for record in records):
        entries.append(("tick", "rejected", "rejected before launch"))
    if any(isinstance(record.outcome, Hopeless) for record in records):
        entries.append(("tick", "hopeless", "stopped early, could not become the best"))
    if any(record.launched and not record.served and not record.out_of_memory for record in records):
        entries.append(("triangle", "failed", "failed otherwise"))
    return svg.legend(entries)


def _symbols(drawn: Sequence[Mark]) -> list[Symbol]:
    """Of the marks that occur."""
    entries: list[Symbol] = [
        ("circle", f"mark {group}", words)
        for group, words in (("best", "best"), ("baseline", "baseline"), ("other", "other trials"))
        if any(mark.group == group for mark in drawn)
    ]
    roles: tuple[tuple[Shape, str], ...] = (("square", "launched as baseline"), ("diamond", "confirmation"))
    entries += [(shape, "mark other", words) for shape, words in roles if any(mark.shape == shape for mark in drawn)]
    return (
        [*entries, ("circle", "mark other hollow", "breaks a limit")] if any(not m.feasible for m in drawn) else entries
    )
