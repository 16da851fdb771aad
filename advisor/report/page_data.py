"""What the report says, as values: a pure function from what was read of a run to everything the page lays out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from advisor.app.report_sources import Sources, baseline_title
from advisor.app.results import Result, ResultEntry, StudySummary
from advisor.app.run_reading import SCRIPTS, RunRead
from advisor.domain.measurement import Source
from advisor.domain.workload import Workload
from advisor.report.charts_data import Chart, ChartsDocument, objective_title
from advisor.report.charts_latency import latency_chart
from advisor.report.charts_memory import frontier_charts, memory_chart, worth_chart
from advisor.report.charts_trials import course_chart, pareto_chart, timeline_chart, workloads_chart
from advisor.report.console import banner
from advisor.report.figures import figures
from advisor.report.goal_view import goal_notes
from advisor.report.metric_rows import METRICS
from advisor.report.page_tables import (
    Table,
    comparison_table,
    fixed_table,
    pareto_table,
    predicted_table,
    price_table,
    regret_table,
    searched_table,
)
from advisor.report.plotly_parts import Figure
from advisor.report.shell import command
from advisor.report.study_notes import NO_ROBUST, ROBUST, answer_notes, knowledge_text, robust_text
from advisor.report.summary import (
    LIMITS,
    baseline_text,
    interval_text,
    measured_notes,
    spent_text,
    sure_notes,
    verdict,
)
from advisor.report.trials_view import TrialsTable, trials_table

_FILE_TITLES = {"serve.sh": "Serve it", "benchmark.sh": "Benchmark it", "verify.sh": "Verify it"}


@dataclass(frozen=True)
class Tile:
    """One of the few numbers that a person remembers."""

    title: str
    value: str
    aside: str = ""
    lead: bool = False


@dataclass(frozen=True)
class TakenAway:
    """A file of the recommendation."""

    title: str
    name: str
    text: str
    open: bool


@dataclass(frozen=True)
class WorkloadView:
    """One workload: the verdict, what it rests on, and what to take away."""

    name: str
    heading: str
    verdict: str
    nothing: bool
    tiles: Sequence[Tile] = ()
    files: Sequence[TakenAway] = ()
    comparison: Table | None = None
    limited: str = ""
    notes: Sequence[str] = ()
    prices: Table | None = None
    predicted: Table | None = None


@dataclass(frozen=True)
class RobustView:
    """One configuration for all workloads, or that there is none."""

    text: str
    table: Table | None = None


@dataclass(frozen=True)
class Reproduce:
    """The environment, and the command that asks the same again."""

    says: str
    command: str
    facts: Sequence[tuple[str, str]]
    fixed: Table
    searched_title: str = ""
    searched: Table | None = None


@dataclass(frozen=True)
class ReportData:
    """The whole page; `charts` is `charts.json`, and `figures` are drawn from it alone."""

    title: str
    source: Source
    said: str
    heading: str
    meta: Sequence[str]
    places: Sequence[tuple[str, str]]
    notices: Sequence[str]
    workloads: Sequence[WorkloadView]
    robust: RobustView | None
    pareto: Table | None
    spent: str
    trials: TrialsTable
    reproduce: Reproduce
    charts: ChartsDocument
    figures: Mapping[str, Figure]


def report_data(sources: Sources) -> ReportData:
    """Everything on the page."""
    run, summary = sources.run, sources.run.summary
    card = run.card
    document = charts_document(sources)
    return ReportData(
        title=f"{card.source.upper()}: {card.study}, {run.folder.name}",
        source=card.source,
        said=_said(card.source, card.engine_label),
        heading=card.study if card.as_asked is None else card.as_asked.title,
        meta=_meta(run),
        places=_places(run),
        notices=_notices(sources),
        workloads=[_workload(sources, workload) for workload in card.workloads],
        robust=_robust(summary),
        pareto=pareto_table(summary, summary.pareto) if summary is not None and len(summary.pareto) > 1 else None,
        spent="" if summary is None else f"{spent_text(summary)} {knowledge_text(summary)}".rstrip(),
        trials=trials_table(sources),
        reproduce=_reproduce(run),
        charts=document,
        figures={figure.name: figure for figure in figures(document.charts)},
    )


def charts_document(sources: Sources) -> ChartsDocument:
    """The numbers of every chart."""
    run = sources.run
    found: list[Chart | None] = []
    for workload in run.card.workloads:
        result = _result(run.summary, workload)
        found += [pareto_chart(run, result, workload, sources.foresight), course_chart(run, result, workload)]
        if result is not None:
            if sources.foresight is not None:
                found.append(worth_chart(run, result, sources.foresight))
            own = {name: kept for (of, name), kept in sources.latencies.items() if of == workload.name}
            found.append(latency_chart(result, own))
    if run.summary is not None and len(run.card.workloads) > 1:
        found.append(workloads_chart(run, run.summary))
    found.append(memory_chart(run))
    if sources.foresight is not None:
        found += frontier_charts(run, sources.foresight)
    found.append(timeline_chart(run))
    return ChartsDocument(
        study=run.card.study,
        run=run.folder.name,
        source=run.card.source,
        label=run.card.engine_label,
        charts=tuple(chart for chart in found if chart is not None and chart.rows),
    )


def _result(summary: StudySummary | None, workload: Workload) -> Result | None:
    results = () if summary is None else summary.results
    return next((result for result in results if result.workload_name == workload.name), None)


def _said(source: Source, label: str) -> str:
    """What the numbers are, in the console's words, without the word that stands before it."""
    said = label if source == "measured" else banner(source, label).plain.strip().rstrip(".")
    return said[len(source) :].strip() if said.lower().startswith(source) else said


def _meta(run: RunRead) -> list[str]:
    fixed, asked = run.card.deployment, run.card.as_asked
    gpu = fixed.gpu if asked is None else asked.gpu_title
    parts = [f"TP {fixed.tp}"] + [f"{n} {v}" for n, v in (("PP", fixed.pp), ("EP", fixed.ep)) if v > 1]
    return [
        f"{fixed.model} ({fixed.quantization}) on {fixed.gpus} × {gpu}, {', '.join(parts)}",
        f"Study {run.card.study}, {fixed.engine} {fixed.engine_version}, run {run.folder.name}",
    ]


def _places(run: RunRead) -> list[tuple[str, str]]:
    several = len(run.card.workloads) > 1
    places = [(workload.name, workload.name) for workload in run.card.workloads if several]
    if several and run.summary is not None:
        places.append(("One for all", ROBUST))
    places.append(("Memory", "memory-part"))
    if run.summary is not None and len(run.summary.pareto) > 1:
        places.append(("Pareto front", "pareto"))
    return [*places, ("Every trial", "trials"), ("How to reproduce", "reproduce")]


def _notices(sources: Sources) -> list[str]:
    notices = list(sources.run.notices)
    if sources.foresight is None:
        notices.append("There is no twin of this deployment, so nothing is predicted here: no map of what fits.")
    return notices


def load_text(workload: Workload) -> str:
    """`ISL 1,024 / OSL 8,192 tokens, 1,024 requests in flight`."""
    isl, osl = (
        f"{low:,} to {high:,}" if low is not None and low != high else f"{high:,}"
        for low, high in ((workload.isl_min, workload.isl), (workload.osl_min, workload.osl))
    )
    rate = workload.request_rate_per_s
    load = f"{rate:g} requests/s" if rate else f"{workload.concurrency:,} requests in flight"
    return f"ISL {isl} / OSL {osl} tokens, {load}"


def _workload(sources: Sources, workload: Workload) -> WorkloadView:
    run, heading = sources.run, f"{workload.name}: {load_text(workload)}"
    result = _result(run.summary, workload)
    if result is None:
        said = f"No verdict: {len(run.records)} trials so far."
        return WorkloadView(workload.name, heading, said, nothing=True)
    best = result.best
    predicted = predicted_table(result) if result.predicted_baselines else None
    if best is None:
        return WorkloadView(workload.name, heading, verdict(result), nothing=True, predicted=predicted)
    return WorkloadView(
        workload.name,
        heading,
        verdict(result),
        nothing=False,
        tiles=_tiles(result, best),
        files=_taken_away(run.files.get(workload.name, {})),
        comparison=comparison_table(result, best),
        limited=LIMITS[best.limited_by] if best.limited_by else "",
        notes=_comparison_notes(result, best),
        prices=price_table(result.prices) if result.prices else None,
        predicted=predicted,
    )


def _tiles(result: Result, best: ResultEntry) -> list[Tile]:
    base, gain, name = result.baseline.compared, result.confidence.gain, baseline_title(result)
    tiles = []
    if gain is not None and result.status != "baseline_within_noise":
        unit = objective_title(result.objective).split(",")[0]
        interval = result.confidence.interval
        sure = "from a single run" if interval is None else interval_text(interval)
        tiles.append(Tile(f"Gain on {name}", f"{100 * (gain - 1):+.1f} %", f"{unit}; {sure}", lead=True))
    for number in (1, 4, 5):
        row = METRICS[number]
        if row.read(best.metrics) is not None:
            apart = base is not None and base.serving_config != best.serving_config
            other = f"{name}: {row.text(base.metrics)} {row.unit}" if base is not None and apart else ""
            tiles.append(Tile(row.title, f"{row.text(best.metrics)} {row.unit}", other))
    if best.memory_gib is not None:
        of = f"of {best.memory_gib.capacity:.1f} GiB per GPU"
        tiles.append(Tile("Memory left free", f"{best.memory_gib.headroom:.1f} GiB", of))
    return tiles


def _comparison_notes(result: Result, best: ResultEntry) -> list[str]:
    said = [baseline_text(result.baseline)]
    if best.ci95 is not None:
        low, high = best.ci95
        of = f"95 % interval of the best's {objective_title(result.objective)}"
        said.insert(0, f"{of}: {low:,.1f} to {high:,.1f}, from {len(best.trials)} runs.")
    return [*said, *sure_notes(result), *measured_notes(result), *answer_notes(result.answers), *goal_notes(result)]


def _taken_away(texts: Mapping[str, str]) -> list[TakenAway]:
    """The YAML in sight, the scripts folded."""
    return [
        TakenAway(_FILE_TITLES.get(name, "The four settings and all that is fixed"), name, text, name not in SCRIPTS)
        for name, text in texts.items()
    ]


def _robust(summary: StudySummary | None) -> RobustView | None:
    if summary is None or len(summary.results) < 2:
        return None
    choice = summary.robust
    if choice is None:
        return RobustView(NO_ROBUST)
    return RobustView(robust_text(choice, summary.source), regret_table(choice))


def _reproduce(run: RunRead) -> Reproduce:
    card, asked = run.card, run.card.as_asked
    said = "The same command with the same version and seed asks the same question again"
    facts = [
        ("Engine", card.engine_label),
        ("Objective", f"{card.objective.direction} {card.objective.metric}"),
        ("Limits", card.slo.text or "none"),
        ("Run", f"{card.study}/{run.folder.name}"),
    ]
    if asked is None:
        return Reproduce("", "", facts, fixed_table(card))
    hours = "" if asked.budget.max_hours is None else f", {asked.budget.max_hours:g} h"
    gpu_hours = "" if asked.budget.gpu_hours is None else f", {asked.budget.gpu_hours:g} GPU-hours"
    facts += [
        ("advisor", asked.advisor_version),
        ("Sampler", f"{asked.sampler}, seed {asked.seed}"),
        ("Budget", f"{asked.budget.max_launches} launches{hours}{gpu_hours}"),
    ]
    line = shlex.join(asked.command)
    return Reproduce(
        says=f"{said}." if card.source == "measured" else f"{said} and gives the same numbers.",
        command=command(asked.command, {}) if len(line) > 100 else line,
        facts=facts,
        fixed=fixed_table(card),
        searched_title=f"What was searched: {asked.n_configs:,} configurations",
        searched=searched_table(asked),
    )
