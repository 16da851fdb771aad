"""Charts over all trials: the trade-off, the course of the study, its timeline, and workloads side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from advisor.app.foresight import Foresight, Place
from advisor.app.results import Result, StudySummary
from advisor.app.run_reading import RunRead
from advisor.domain.measurement import Metrics
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.pareto import non_dominated
from advisor.report.charts_data import (
    Cell,
    Chart,
    chart,
    group_of,
    objective_text,
    objective_title,
    outcome_of,
    short_gib,
)
from advisor.report.progress import config_text
from advisor.report.spans import span_text
from advisor.search.standings import Standing, standings

LOAD_PHASES = ("serve",)


def _identity(results: Sequence[Result], record: TrialRecord) -> dict[str, Cell]:
    """The columns that every chart over trials begins with."""
    return {
        "number": record.number,
        "role": record.role,
        "group": group_of(results, record),
        "outcome": outcome_of(record),
        "ending": record.ending,
        "configuration": config_text(record.config),
        "short_gib": short_gib(record),
    }


def _metrics(record: TrialRecord, workload: Workload) -> Metrics | None:
    """Of a whole benchmark, also one that ended before the server died."""
    outcome = record.workload(workload.name)
    return None if outcome is None else outcome.metrics


def pareto_chart(run: RunRead, result: Result | None, workload: Workload, foresight: Foresight | None) -> Chart:
    """Throughput of a GPU against the speed that each user sees: every trial.

    One without a benchmark stands where the twin expects its configuration, as if memory sufficed, and says so.
    """
    results = [] if result is None else [result]
    absent = [record for record in run.records if _metrics(record, workload) is None]
    places: dict[int, Place | None] = {}
    if foresight is not None:
        expected = foresight.places([record.config for record in absent], workload)
        places = {record.number: place for record, place in zip(absent, expected, strict=True)}
    rows: list[dict[str, Cell]] = []
    for record in run.records:
        metrics = _metrics(record, workload)
        at = places.get(record.number) if metrics is None else metrics
        rows.append(
            {
                **_identity(results, record),
                "place": record.source if metrics is not None else "predicted" if at is not None else "unknown",
                "keeps_limits": metrics is not None and record.served and run.card.slo.met(metrics),
                "output_tok_per_s_per_user": None if at is None else at.output_tok_per_s_per_user,
                "output_tok_per_s_per_gpu": None if at is None else at.output_tok_per_s_per_gpu,
                "ttft_p99_ms": None if metrics is None else metrics.ttft_ms.p99,
            }
        )
    kept = [row for row in rows if row["keeps_limits"]]
    pairs = [(_number(row["output_tok_per_s_per_user"]), _number(row["output_tok_per_s_per_gpu"])) for row in kept]
    front = {kept[place]["number"] for place in non_dominated(pairs)}
    rows = [{**row, "on_front": row["number"] in front} for row in rows]
    n_out = sum(record.out_of_memory for record in run.records)
    guessed = sum(row["place"] == "predicted" for row in rows)
    about = (
        f"{len(kept)} of {len(rows)} trials have a result within the limits, {len(front)} of them on the Pareto front; "
        f"{n_out} ran out of memory. {_leaders(result)}Each mark is one launch: its colour tells the configuration, "
        "its shape the role."
    )
    if guessed:
        about += f" Trials without a result ({guessed}) stand where the twin predicts them, as if memory had sufficed."
    return chart(
        f"pareto-{workload.name}",
        "pareto",
        "Throughput against speed for each user",
        about,
        "predicted" if guessed and guessed == sum(row["place"] != "unknown" for row in rows) else run.card.source,
        rows,
    )


def _number(value: Cell) -> float:
    assert isinstance(value, (int, float))
    return float(value)


def _leaders(result: Result | None) -> str:
    """Where best and baseline stand, means over their launches."""
    if result is None or result.best is None:
        return ""
    best, base = result.best.metrics, result.baseline.compared
    against = "" if base is None else f", the baseline {base.metrics.output_tok_per_s_per_gpu:,.0f}"
    return (
        f"The best reaches {best.output_tok_per_s_per_gpu:,.0f} tok/s per GPU at "
        f"{best.output_tok_per_s_per_user:,.1f} tok/s per user{against}. "
    )


def course_chart(run: RunRead, result: Result | None, workload: Workload) -> Chart:
    """The objective by trial number with the best so far."""
    objective, slo = run.card.objective, run.card.slo
    results, rows, best = ([] if result is None else [result]), [], None
    for record in run.records:
        metrics = _metrics(record, workload) if record.served else None
        value = None if metrics is None else objective.value(metrics)
        kept = metrics is not None and slo.met(metrics)
        searched = kept and value is not None and value > 0 and record.role not in ("confirmation", "reference")
        if searched and value is not None and (best is None or objective.gain(value, best) > 1):
            best = value
        identity = _identity(results, record)
        rows.append({**identity, "keeps_limits": kept, "value": value, "best_so_far": best})
    base = None if result is None or result.baseline.compared is None else result.baseline.compared.metrics
    level = None if base is None else objective.value(base)
    about = (
        f"{sum(row['value'] is not None for row in rows)} trials with a result, "
        f"{sum(record.out_of_memory for record in run.records)} out of memory, "
        f"{sum(not record.launched for record in run.records)} rejected before launch. "
        + ("" if best is None else f"The best single run of the search came to {objective_text(objective, best)}. ")
        + "A best single run flatters whoever leads, so winner and baseline are launched again at the end."
    )
    facts: dict[str, Cell] = {"objective": objective_title(objective), "baseline_value": level}
    return chart(
        f"course-{workload.name}", "course", "The study, trial by trial", about, run.card.source, rows, facts=facts
    )


def timeline_chart(run: RunRead) -> Chart:
    """Where the server time went, phase by phase: start-up, load, and what ended without a result."""
    results = () if run.summary is None else run.summary.results
    rows = list(_phases(results, run.records))
    sums = {kind: sum(_number(row["duration_s"]) for row in rows if row["spent_on"] == kind) for kind in SPENT_ON}
    whole = sum(sums.values())
    shares = ", ".join(
        f"{kind} {span_text(seconds)} ({100 * seconds / whole:.0f} %)" for kind, seconds in sums.items() if seconds
    )
    about = (
        f"{span_text(whole)} of server time{' (virtual)' if run.card.source == 'simulated' else ''}: {shares}. "
        "Lost is what launches cost that ended without a result."
        if rows
        else "No trial has taken any server time."
    )
    facts: dict[str, Cell] = {f"{kind.replace('-', '_')}_s": seconds for kind, seconds in sums.items()}
    return chart("timeline", "timeline", "Where the server time went", about, run.card.source, rows, facts=facts)


SPENT_ON = ("start-up", "load", "lost")


def _phases(results: Sequence[Result], records: Sequence[TrialRecord]) -> Iterator[dict[str, Cell]]:
    """Stretches of phases that are spent on the same, in order."""
    start_s = 0.0
    for record in records:
        lost = record.launched and not record.served and record.outcome.kind != "started"
        for in_load, stretch in itertools.groupby(record.phases, key=lambda phase: phase.name in LOAD_PHASES):
            phases = list(stretch)
            duration_s = sum(phase.duration_s for phase in phases)
            yield {
                **_identity(results, record),
                "phases": ", ".join(f"{phase.name} {phase.duration_s:,.1f} s" for phase in phases),
                "spent_on": "lost" if lost else "load" if in_load else "start-up",
                "start_s": start_s,
                "duration_s": duration_s,
            }
            start_s += duration_s


def workloads_chart(run: RunRead, summary: StudySummary) -> Chart:
    """Each workload's winner, the one configuration for all, and the baseline, as gains on the baseline."""
    rows: list[dict[str, Cell]] = []
    for result in summary.results:
        table = standings(run.records, result.workload_name, run.card.objective, run.card.slo)
        base = result.baseline.compared
        base_value = None if base is None else run.card.objective.value(base.metrics)
        for name, value, trials in _compared(result, table, summary):
            gain = None if not base_value else 100 * (run.card.objective.gain(value, base_value) - 1)
            rows.append(
                {
                    "workload": result.workload_name,
                    "configuration": name,
                    "value": value,
                    "gain_percent": gain,
                    "trials": " ".join(f"#{number}" for number in trials),
                }
            )
    about = f"Gain on the baseline in {objective_title(run.card.objective)}, by workload. " + (
        "No configuration that was launched serves all workloads within their limits."
        if summary.robust is None
        else f"One configuration for all loses {100 * summary.robust.max_regret:.1f} % at most against the best."
    )
    return chart("workloads", "workloads", "Workloads side by side", about, run.card.source, rows)


def _compared(
    result: Result, table: Sequence[Standing], summary: StudySummary
) -> Iterator[tuple[str, float, tuple[int, ...]]]:
    """(name, value of the objective, trials) of the configurations compared on one workload."""
    for name, entry in (("baseline", result.baseline.compared), ("best of the workload", result.best)):
        value = None if entry is None else result.objective.value(entry.metrics)
        if entry is not None and value is not None:
            yield name, value, entry.trials
    robust, best = summary.robust, result.best
    if robust is None or best is None:
        return
    value = result.objective.value(best.metrics)
    numbers = next((each.numbers for each in table if each.config == robust.serving_config), ())
    if value is not None:  # its regret is against the best in the numbers that the result shows
        lost = 1 - robust.regret[result.workload_name]
        shown = value * lost if result.objective.direction == "maximize" else value / lost
        yield "one for all", shown, numbers
