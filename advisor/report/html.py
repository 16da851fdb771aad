"""`report.html`: a run on one page that needs nothing but itself and says on top what its numbers are."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from advisor.app.context import StudyContext
from advisor.app.results import Result, ResultEntry, StudySummary
from advisor.domain.trial import TrialRecord
from advisor.report import charts, html_tables, memory_view
from advisor.report.console import banner
from advisor.report.goal_view import goal_notes, pareto_section
from advisor.report.markup import Html, copyable, join, tag
from advisor.report.metric_rows import METRICS
from advisor.report.page_style import CSS, SCRIPT
from advisor.report.price_view import PRICES_NOTE, price_section
from advisor.report.reproduce import reproduce
from advisor.report.study_notes import ROBUST, answer_notes, knowledge_text, robust_section
from advisor.report.summary import (
    LIMITS,
    baseline_text,
    interval_text,
    measured_notes,
    spent_text,
    sure_notes,
    verdict,
)

Files = Mapping[str, Mapping[str, str]]


def report_html(
    context: StudyContext,
    summary: StudySummary,
    records: Sequence[TrialRecord],
    files: Files,
    *,
    argv: Sequence[str],
    version: str,
) -> str:
    """The whole page.

    Args:
        context: What the study was about.
        summary: What came out.
        records: Every trial, in order.
        files: Texts by file name of each workload with a winner, by workload name.
        argv: The command that asks the same again, from `tune_argv`.
        version: Of advisor.
    """
    body = tag(
        "body",
        source_banner(summary),
        _header(context, summary),
        tag(
            "main",
            *(_workload(result, records, files.get(result.workload_name, {})) for result in summary.results),
            robust_section(summary),
            pareto_section(summary),
            _all_trials(summary, records),
            reproduce(context, summary, argv, version),
        ),
        tag("footer", tag("p", _said(summary), ". Everything that a chart shows is in trials.csv beside this page.")),
        tag("div", id="spoken", role="status", class_="aside"),
        tag("script", Html(SCRIPT)),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{_head(summary)}\n{body}\n</html>\n'


def _head(summary: StudySummary) -> Html:
    """Scripts other than ours, and anything from elsewhere, are refused by the page itself."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{summary.source.upper()}: {summary.study}, {summary.run}"),
        tag("style", Html(CSS)),
    )


def _said(summary: StudySummary) -> str:
    if summary.source == "measured":
        return summary.label
    return banner(summary.source, summary.label).plain.strip().rstrip(".")


def source_banner(summary: StudySummary) -> Html:
    """What the numbers are, in the console's words."""
    source = summary.source
    said = _said(summary)
    rest = said[len(source) :].strip() if said.lower().startswith(source) else said
    return tag("p", tag("strong", source.upper()), f" {rest}.", class_=f"banner {source}", role="note")


def _header(context: StudyContext, summary: StudySummary) -> Html:
    fixed = context.deployment
    layout = (
        f"TP {fixed.tp}" + (f", PP {fixed.pp}" if fixed.pp > 1 else "") + (f", EP {fixed.ep}" if fixed.ep > 1 else "")
    )
    what = f"{fixed.model} ({fixed.quantization}) on {fixed.gpus} × {context.gpu.title}, {layout}"
    places = {result.workload_name: result.workload_name for result in summary.results if len(summary.results) > 1}
    places |= {"One for all": ROBUST} if len(summary.results) > 1 else {}
    places |= {"Pareto front": "pareto"} if len(summary.pareto) > 1 else {}
    places |= {"Every trial": "trials", "How to reproduce": "reproduce"}
    links = [tag("a", title, href=f"#{place}") for title, place in places.items()]
    return tag(
        "header",
        tag("h1", context.title),
        tag("p", what, class_="meta"),
        tag("p", f"Study {summary.study}, {fixed.engine} {fixed.engine_version}, run {summary.run}", class_="meta"),
        tag("nav", *links, aria_label="On this page"),
    )


def load_text(result: Result) -> str:
    """`ISL 1,024 / OSL 8,192 tokens, 1,024 requests in flight`."""
    workload = result.workload
    isl, osl = (
        f"{low:,} to {high:,}" if low is not None and low != high else f"{high:,}"
        for low, high in ((workload.isl_min, workload.isl), (workload.osl_min, workload.osl))
    )
    rate = workload.request_rate_per_s
    load = f"{rate:g} requests/s" if rate else f"{workload.concurrency:,} requests in flight"
    return f"ISL {isl} / OSL {osl} tokens, {load}"


def _workload(result: Result, records: Sequence[TrialRecord], texts: Mapping[str, str]) -> Html:
    best = result.best
    entries = _contenders(result)
    return tag(
        "section",
        tag("h2", f"{result.workload_name}: {load_text(result)}"),
        tag("p", verdict(result), class_="verdict" if best else "verdict nothing"),
        _tiles(result, best) if best else None,
        tag("div", _comparison(result, best) if best else None, _tradeoff(result, records), class_="two"),
        _take_away(result, texts),
        _course(result, records),
        _memory(result, entries),
        _predicted(result),
        class_="workload",
        id=result.workload_name,
    )


def _contenders(result: Result) -> list[tuple[str, ResultEntry]]:
    """(name, entry) of best and baseline, once where they are the same."""
    base, best = result.baseline.compared, result.best
    name = charts.baseline_title(result)
    if best is not None and base is not None and base.serving_config == best.serving_config:
        return [(f"best = {name}", best)]
    return [(title, entry) for title, entry in (("best", best), (name, base)) if entry is not None]


def _tiles(result: Result, best: ResultEntry) -> Html:
    """The few numbers that a person remembers."""
    base, gain = result.baseline.compared, result.confidence.gain
    name = charts.baseline_title(result)
    tiles = []
    if gain is not None and result.status != "baseline_within_noise":
        unit = charts.objective_title(result).split(",")[0]
        interval = result.confidence.interval
        sure = "from a single run" if interval is None else interval_text(interval)
        tiles.append(("lead", f"Gain on {name}", f"{100 * (gain - 1):+.1f} %", f"{unit}; {sure}"))
    for number in (1, 4, 5):
        row = METRICS[number]
        if row.read(best.metrics) is not None:
            other = (
                f"{name}: {row.text(base.metrics)} {row.unit}"
                if base and base.serving_config != best.serving_config
                else ""
            )
            tiles.append(("", row.title, f"{row.text(best.metrics)} {row.unit}", other))
    if best.memory_gib is not None:
        of = f"of {best.memory_gib.capacity:.1f} GiB per GPU"
        tiles.append(("", "Memory left free", f"{best.memory_gib.headroom:.1f} GiB", of))
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", title),
                tag("dd", value, class_="value"),
                tag("dd", aside, class_="aside"),
                class_=class_ or None,
            )
            for class_, title, value, aside in tiles
        ),
        class_="tiles",
    )


def _comparison(result: Result, best: ResultEntry) -> Html:
    limited = tag("p", tag("strong", "Limited by "), LIMITS[best.limited_by], ".") if best.limited_by else None
    said = [baseline_text(result.baseline)]
    if best.ci95 is not None:
        low, high = best.ci95
        of = f"95 % interval of the best's {charts.objective_title(result)}"
        said.insert(0, f"{of}: {low:,.1f} to {high:,.1f}, from {len(best.trials)} runs.")
    said += [*sure_notes(result), *measured_notes(result), *answer_notes(result.answers), *goal_notes(result)]
    notes = tag("p", " ".join(said), class_="aside")
    return tag("div", tag("h3", "Best against baseline"), html_tables.comparison_table(result, best), limited, notes)


def _take_away(result: Result, texts: Mapping[str, str]) -> Html | None:
    """The YAML in sight, the scripts folded."""
    if not texts:
        return None
    parts: list[Html] = []
    for name, text in texts.items():
        block = copyable(text, name, f"{result.workload_name}-{name}")
        title = join(
            f"{_SCRIPTS.get(name, _CONFIG)}: ",
            tag("code", f"{result.workload_name}/{name}"),
        )
        parts.append(tag("details", tag("summary", title), block, open=name not in _SCRIPTS))
    return tag("section", tag("h3", "The configuration and its commands"), *parts, class_="part")


_CONFIG = "The four settings and all that is fixed"
_SCRIPTS = {
    "serve.sh": "Serve it",
    "benchmark.sh": "Benchmark it",
    "verify.sh": "Verify it",
}


def _figure(title: str, drawn: str | None, *below: str, wide: bool = True) -> Html:
    shown = drawn or tag("p", "No trial has a result.")
    return tag("figure", tag("h3", title), shown, *below, class_="wide" if wide else None)


def _tradeoff(result: Result, records: Sequence[TrialRecord]) -> Html | None:
    drawn = charts.tradeoff_chart(result, records)
    if drawn is None:
        return None
    said = (
        "Each point is one launch; a label gives the mean over the trials behind a configuration. "
        "Colour tells the configuration, shape the role; point at a mark for its settings."
    )
    return _figure(
        "Throughput against speed for each user",
        drawn,
        charts.tradeoff_legend(charts.marks(result, records)),
        tag("figcaption", said),
        wide=False,
    )


def _course(result: Result, records: Sequence[TrialRecord]) -> Html:
    said = "A best single run flatters whoever leads, so winner and baseline are launched again at the end."
    legend = charts.course_legend(result, charts.marks(result, records), records)
    drawn = charts.course_chart(result, records)
    figure = _figure("The study, trial by trial", drawn, legend, tag("figcaption", said))
    return tag("section", figure, class_="part")


def _memory(result: Result, entries: Sequence[tuple[str, ResultEntry]]) -> Html | None:
    known = [(name, entry) for name, entry in entries if entry.memory_gib is not None]
    bars = [(name, entry.memory_gib) for name, entry in known if entry.memory_gib is not None]
    if not bars:
        return None
    return tag(
        "section",
        _figure("Where the memory goes", memory_view.memory_chart(result, bars)),
        memory_view.memory_table(result, known),
        price_section(result.prices, f"At the best: {PRICES_NOTE}") if result.prices else None,
        class_="part memory",
    )


def _predicted(result: Result) -> Html:
    heading = tag("h3", "Named baselines as the twin predicts them")
    return tag("section", heading, html_tables.predicted_table(result), class_="part")


def _all_trials(summary: StudySummary, records: Sequence[TrialRecord]) -> Html:
    return tag(
        "section",
        tag("h2", "Every trial"),
        tag("p", f"{spent_text(summary)} {knowledge_text(summary)}".rstrip()),
        html_tables.trials_table(summary.results, records),
        class_="part trials",
        id="trials",
    )
