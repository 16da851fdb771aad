"""The tables of the report: best against baseline, predictions, every trial."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.results import Result, ResultEntry
from advisor.domain.objective import latency_ms
from advisor.domain.outcome import OutOfMemory, summary
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue
from advisor.domain.trial import TrialRecord
from advisor.report.charts import baseline_title, group_of, short_text
from advisor.report.console import SHORT_NAMES, short_name, value_text
from advisor.report.markup import Html, join, table, tag
from advisor.report.metric_rows import METRICS, NONE
from advisor.report.summary import setting_title

EVIDENCE_CHARACTERS = 400


def change(ours: float | None, theirs: float | None, sign: int) -> Html:
    """`+12.8 % better`; by the numbers that are shown when both round to the same it is `same`."""
    if ours is None or not theirs:
        return join(NONE)
    percent = f"{100 * (ours / theirs - 1):+.1f} %"
    if percent in ("+0.0 %", "-0.0 %"):
        return tag("span", "same", class_="aside")
    if not sign:
        return join(percent)
    better = (ours > theirs) == (sign > 0)
    return tag("span", percent, " better" if better else " worse", class_="better" if better else "worse")


def comparison_table(result: Result, best: ResultEntry) -> Html:
    """Settings and metrics of best and baseline side by side."""
    base = result.baseline.compared
    against = result.baseline.settings
    theirs = {} if against is None else against.flat()
    ours = best.serving_config.flat()
    rows: list[list[str]] = []
    classes: list[str | None] = []
    for key in dict.fromkeys([*ours, *theirs]):
        left, right = _value(ours, key), _value(theirs, key)
        differs = against is not None and left != right
        setting = breakable(setting_title(result.deployment.engine, key))
        rows.append([tag("code", setting), left, right, "changed" if differs else ""])
        classes.append("differs" if differs else None)
    for number, row in enumerate(METRICS):
        if row.read(best.metrics) is None:
            continue
        other = None if base is None else base.metrics
        shown = change(row.read(best.metrics), None if other is None else row.read(other), row.sign)
        rows.append([f"{row.title}, {row.unit}", row.text(best.metrics), row.text(other), shown])
        classes.append("first-metric" if number == 0 else None)
    memory = [None if entry is None else entry.memory_gib for entry in (best, base)]
    for key, title in (("kv_pool", "KV pool, GiB per GPU"), ("headroom", "Left free, GiB per GPU")):
        values = [None if report is None else float(getattr(report, key)) for report in memory]
        if values[0] is not None:
            cells = [NONE if value is None else f"{value:,.2f}" for value in values]
            rows.append([title, *cells, change(values[0], values[1], 0)])
            classes.append(None)
    for limit in result.slo.limits:
        name = f"{limit.latency.upper()} {limit.statistic}, ms (limit {limit.limit_ms:,g} ms)"
        pair = [None if e is None else latency_ms(e.metrics, limit.latency, limit.statistic) for e in (best, base)]
        cells = [NONE if value is None else f"{value:,.1f}" for value in pair]
        rows.append([name, *cells, "kept" if limit.excess(best.metrics) <= 0 else "broken"])
        classes.append(None)
    caption = f"Best against {baseline_title(result)}, {result.source}; means over the trials behind each."
    return table(caption, ["", "best", baseline_title(result), "change"], rows, row_classes=classes)


def breakable(name: str) -> Html:
    """A dotted name that may be broken after its dots only."""
    *heads, last = name.split(".")
    return join(*(join(head, ".", tag("wbr")) for head in heads), last)


def _value(flat: dict[str, OptionValue], key: str) -> str:
    return value_text(flat[key]) if key in flat else NONE


def predicted_table(result: Result) -> Html:
    """Every named baseline as the nominal twin predicts it; where one does not apply, why."""
    rows = []
    for row in result.predicted_baselines:
        flat = {} if row.serving_config is None else row.serving_config.flat()
        said = row.prediction
        metrics = None if said is None else said.metrics
        rows.append(
            [
                row.name,
                *(_value(flat, name) for name in FOUR_SETTINGS),
                *(METRICS[number].text(metrics) for number in (1, 4, 5)),
                NONE if said is None else f"{said.memory_gib.headroom:.1f}",
                NONE if said is None else "yes" if said.fits else "no",
                row.why,
            ]
        )
    heads = [
        "baseline",
        *(SHORT_NAMES[name] for name in FOUR_SETTINGS),
        "tok/s per GPU",
        "TTFT p99, ms",
        "TPOT, ms",
        "free, GiB",
        "fits",
        "what it is",
    ]
    caption = "PREDICTED by the twin with its nominal constants, launched or not."
    return table(caption, heads, rows, words=(9, 10))


def _names(flats: Sequence[dict[str, OptionValue]]) -> list[str]:
    return list(dict.fromkeys(name for flat in flats for name in flat))


def trials_table(results: Sequence[Result], records: Sequence[TrialRecord]) -> Html:
    """Every trial in order; a group of columns a workload."""
    names = _names([record.config.flat() for record in records])
    heads = ["trial", "role", "proposed by", *(short_name(name) for name in names), "outcome", "free, GiB"]
    words = {1, 2, len(heads) - 2}
    groups = [("", len(heads))]
    for result in results:
        words.add(len(heads) + 3)
        heads += ["tok/s", "TTFT p99, ms", "TPOT, ms", "limited by"]
        groups.append((f"{result.workload_name}, {result.source}", 4))
    rows, classes = [], []
    for record in records:
        flat = record.config.flat()
        memory = record.memory_measured_gib
        group = _group(results, record)
        badge = tag("span", group, class_=f"badge {group}") if group != "other" else None
        rows.append(
            [
                tag("span", f"#{record.number} ", badge, class_="nowrap"),
                record.role,
                record.origin,
                *(_value(flat, name) for name in names),
                _outcome(record),
                NONE if memory is None or not record.served else f"{memory.headroom:.1f}",
                *(cell for result in results for cell in _measured(record, result.workload_name)),
            ]
        )
        classes.append(group if group != "other" else None if record.served else "lost")
    return table("Every trial of the study, in order.", heads, rows, words=words, row_classes=classes, groups=groups)


def _group(results: Sequence[Result], record: TrialRecord) -> str:
    groups = {group_of(result, record) for result in results}
    return "best" if "best" in groups else "baseline" if "baseline" in groups else "other"


def _measured(record: TrialRecord, workload: str) -> list[str]:
    outcome = record.workload(workload)
    if outcome is None or outcome.metrics is None:
        return [NONE, NONE, NONE, NONE if outcome is None else outcome.note or NONE]
    limited = (outcome.limited_by or NONE).replace("_", " ")
    return [*(METRICS[number].text(outcome.metrics) for number in (0, 4, 5)), limited]


def _outcome(record: TrialRecord) -> Html:
    """How it ended, with the lines that prove it."""
    outcome = record.outcome
    said = summary(outcome)
    if isinstance(outcome, OutOfMemory):
        said = f"out of memory at {outcome.phase} ({outcome.component}), {short_text(outcome.short_gib)} short"
    if record.measured:  # so is the outcome called; whether it was a measurement, the source says
        return join(record.source)
    if not outcome.evidence:
        return tag("div", said, class_="outcome")
    lines = [
        tag("li", f"line {proof.line}: " if proof.line else "", tag("code", proof.text[:EVIDENCE_CHARACTERS]))
        for proof in outcome.evidence
    ]
    return tag("details", tag("summary", said), tag("ul", *lines), class_="outcome")
