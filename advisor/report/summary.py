"""The end of a study on the terminal: best against baseline, what limits it, the files, what to type next."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.calibration import NO_CALIBRATION
from advisor.app.changes import reference_of
from advisor.app.rescue import RescueReport
from advisor.app.results import BaselineEntry, PredictedRow, Result, ResultEntry, StudySummary
from advisor.domain.measurement import Source
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.trial import Soak
from advisor.metrics.confidence import Interval
from advisor.report.console import short_name, table, value_text
from advisor.report.goal_view import goal_notes, pareto_view
from advisor.report.metric_rows import METRICS, NONE
from advisor.report.price_view import PRICES_NOTE, price_table
from advisor.report.spans import span_text
from advisor.report.study_notes import (
    answer_notes,
    counts_text,
    knowledge_text,
    miss_text,
    outlook_text,
    robust_view,
)

LIMITS = {
    "gpu": "the GPUs: kernels are busy all the time",
    "kv_capacity": "KV-cache capacity: requests wait for free blocks",
    "max_batch_size": "max_batch_size: requests wait for a slot",
    "max_num_tokens": "max_num_tokens: prompts wait for room in a step",
    "concurrency": "the workload's concurrency: no request waits",
    "request_rate": "the request rate: the server keeps up",
    "host": "the host: GPUs wait for the CPU between steps",
    "streaming": "the server's streaming path: its thread is full, and a longer stream_interval sends fewer chunks",
    "client": "the load client",
}

_SETTING_TITLES = {
    "trtllm": {
        "cuda_graph_max_batch_size": "cuda_graph_config.max_batch_size",
        "kv_cache_free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction",
    },
    "vllm": {
        "max_batch_size": "max_num_seqs",
        "max_num_tokens": "max_num_batched_tokens",
        "cuda_graph_max_batch_size": "max_cudagraph_capture_size",
        "kv_cache_free_gpu_memory_fraction": "gpu_memory_utilization",
    },
}

TOP_NOTE = (
    "Below the best stand single runs, which are higher partly by luck. The best is picked by all launches and the "
    "twin together; where values tie within 0.5 %, the one with more memory left, then with fewer settings changed."
)

REFEREE_TITLES = {"output_tok_per_s": "output", "ttft_ms_mean": "mean TTFT", "tpot_ms_mean": "mean TPOT"}

STOPPED = {
    "budget": "the budget of launches was used up",
    "hours": "the budget of hours was used up",
    "gpu_hours": "the budget of GPU-hours was used up",
    "no_gain_expected": "the sampler expected less than the noise of two proposals in a row",
    "exhausted": "nothing is left to try in this space",
    "cancelled": "it was interrupted",
    "infrastructure": "the machine failed three times in a row",
    "rescued": "a configuration serves the workload",
    "no_remedy": "the failure is not one of memory, so no setting mends it",
}


def setting_title(engine: str, name: str) -> str:
    """A setting as the engine calls it."""
    return _SETTING_TITLES.get(engine, {}).get(name, name)


def study_view(summary: StudySummary) -> RenderableType:
    """Everything a person reads at the end."""
    parts: list[RenderableType] = []
    if summary.rescue is not None:
        parts += [Text(), *rescue_view(summary.rescue, summary.source, summary.results[0].deployment.engine)]
    for result in summary.results:
        parts += [Text(), *result_view(result)]
    parts += robust_view(summary)
    if summary.calibration != NO_CALIBRATION:
        parts += [Text(), Text(f"The memory law began with {summary.calibration}.")]
    front = pareto_view(summary)
    parts += [] if front is None else [Text(), front]
    parts += [Text(), Text(spent_text(summary))]
    if knowledge := knowledge_text(summary):
        parts.append(Text(knowledge))
    return Group(*parts)


def spent_text(summary: StudySummary) -> str:
    """What the study cost, why it ended, and what more would bring."""
    simulated = " (simulated)" if summary.source == "simulated" else ""
    return (
        f"{counts_text(summary.counts)}; {span_text(summary.duration_s)} of server time{simulated}. "
        f"Ended because {STOPPED.get(summary.stopped_by, summary.stopped_by)}. {outlook_text(summary)}"
    ).rstrip()


def rescue_view(rescue: RescueReport, source: Source, engine: str) -> list[RenderableType]:
    """What was wrong with the file, what was changed, and what each change costs."""
    parts: list[RenderableType] = [Text(f"As it is the file ends so: {rescue.outcome}.", style="bold")]
    if rescue.rescued is None:
        return [*parts, Text("Nothing that was tried serves the workload.", style="bold red")]
    if not rescue.changes:
        return [*parts, Text("It serves the workload, so nothing was changed.", style="bold green")]
    launches = "1 launch" if rescue.n_launches == 1 else f"{rescue.n_launches} launches"
    parts.append(Text(f"Rescued after {launches}; what was changed, cheapest first:", style="bold green"))
    changes = table("setting", "file", "now", "frees, GiB per GPU", "costs (predicted)")
    for change in rescue.changes:
        cost = "unknown" if change.predicted_cost is None else f"{100 * max(0.0, change.predicted_cost):.1f} %"
        title = setting_title(engine, change.setting)
        changes.add_row(title, value_text(change.before), value_text(change.after), f"{change.frees_gib:+.2f}", cost)
    note = (
        "Costs are shares of the objective as the twin predicts them: the file itself never ran. The numbers below are "
        f"{source}."
    )
    return [*parts, changes, Text(note, style="dim")]


def result_view(result: Result) -> list[RenderableType]:
    """One workload: verdict, comparison, top table, predicted rows."""
    parts: list[RenderableType] = [Text(headline(result), style="bold")]
    if result.best is not None:
        parts += [Text(verdict(result)), *map(Text, sure_notes(result)), Text(), comparison_table(result), Text()]
        if result.best.limited_by:
            parts.append(Text(f"Limited by {LIMITS[result.best.limited_by]}."))
        parts += map(Text, (*measured_notes(result), *goal_notes(result)))
    else:
        parts.append(Text(verdict(result), style="bold red"))
    parts += map(Text, answer_notes(result.answers))
    if result.top:
        parts += [Text(), top_table(result)]
        parts += [Text(TOP_NOTE, style="dim")] if len(result.top) > 1 else []
    parts += [Text(), predicted_table(result.predicted_baselines)]
    parts += [Text(), price_table(result.prices), Text(PRICES_NOTE, style="dim")] if result.prices else []
    return parts


def sure_notes(result: Result) -> list[str]:
    """How sure it is that nothing launched is better, what the rest of the space may hold, drift, and the soak."""
    sure, notes = result.confidence, []
    among = f"nothing that was launched is truly more than {100 * sure.margin:.0f} % better"
    if sure.is_best:
        notes.append(f"Best with 95 % confidence: {among}.")
    elif sure.tied_with:
        rivals = ", ".join(f"#{number}" for number in sure.tied_with)
        who = f"trial {rivals}: it" if len(sure.tied_with) == 1 else f"trials {rivals}: one of them"
        notes.append(f"Tied with {who} may be more than {100 * sure.margin:.0f} % better.")
    elif sure.p_best is not None:
        notes.append(f"Not launched again, so not announced as best: {among} with probability {sure.p_best:.2f}.")
    if sure.expected_distance is not None:
        distance = f"{100 * sure.expected_distance:.1f} %"
        notes.append(f"The best of the whole space is expected to be {distance} better: a prediction.")
    if sure.drift is not None:
        notes.append(f"The server's pace drifted by {100 * sure.drift:+.1f} % over the study; this is corrected for.")
    if result.soak is not None:
        notes.append(soak_text(result.soak, result.source))
    if result.reference and result.noticeable_loss is not None:
        notes.append(reference_text(result, result.noticeable_loss))
    return notes


def reference_text(result: Result, noticeable_loss: float) -> str:
    """How much `advisor verify` will be able to tell of the best, in one sentence."""
    simulated = " (simulated)" if result.source == "simulated" else ""
    return (
        f"{len(reference_of(result))} launches stand behind it{simulated}: with 99 % `advisor verify` notices a loss "
        f"of {100 * noticeable_loss:.1f} %."
    )


def soak_text(soak: Soak, source: Source) -> str:
    """What the best survived, in one sentence."""
    load = "" if soak.concurrency is None else f", {soak.concurrency:,} in flight"
    free = "" if soak.free_gib is None else f"; lowest free memory {soak.free_gib:.1f} GiB per GPU"
    what = "Soaked" if source == "measured" else "Soaked (simulated)"
    return f"{what}: {soak.n_requests:,} requests of {soak.tokens_per_request:,} tokens{load}{free}."


def measured_notes(result: Result) -> list[str]:
    """What only a measurement has: surprises, the memory law's error, and the engine's own benchmark beside ours."""
    assert result.best is not None
    notes = [f"The best server is not quite as asked: {said}" for said in result.best.surprises]
    if result.best.memory_residuals_gib:
        off = ", ".join(
            f"{name.replace('_', ' ')} {gib:+.2f}" for name, gib in result.best.memory_residuals_gib.items()
        )
        notes.append(f"Memory of the best, measured minus predicted, GiB per GPU: {off}.")
    for name, report in result.referee.items():
        if report.problems:
            notes.append(f"The engine's own benchmark of the {name} does not count: {'; '.join(report.problems)}.")
        else:
            off = ", ".join(f"{REFEREE_TITLES[key]} {100 * share:+.1f} %" for key, share in report.difference.items())
            notes.append(f"The engine's own benchmark of the {name}, against these numbers: {off}.")
    return notes


def headline(result: Result) -> str:
    """Model, GPUs, workload."""
    deployment, workload = result.deployment, result.workload
    load = (
        f"{workload.request_rate_per_s:g} requests/s"
        if workload.request_rate_per_s
        else f"{workload.concurrency:,} in flight"
    )
    return (
        f"{deployment.model} {deployment.quantization} on {deployment.gpus} x {deployment.gpu}, "
        f"ISL {workload.isl:,} / OSL {workload.osl:,}, {load}"
    )


def verdict(result: Result) -> str:
    """The answer in one or two sentences, with how sure it is."""
    name, gain = result.baseline.name, result.confidence.gain
    against = f"the {name} configuration" if not result.baseline.is_substitute else f"the nearest to {name} that runs"
    if result.status == "nothing_feasible":
        reason = (
            "no configuration that was launched kept every limit"
            if result.slo.limits
            else "no configuration could serve it"
        )
        nearest = f" {miss_text(result.nearest_miss)}" if result.nearest_miss is not None else ""
        return f"Nothing feasible: {reason}.{nearest}"
    if result.status == "baseline_within_noise":
        interval = result.confidence.interval
        if interval is None:
            return f"Keep {against}: nothing found is clearly better."
        rival = f"{100 * (interval.estimate - 1):+.1f} % ({interval_text(interval)})"
        return f"Keep {against}: nothing found is clearly better; the best rival came to {rival}."
    if gain is None:
        return f"A candidate: nothing to compare it with, as {name} ended so: {result.baseline.outcome}."
    percent = 100 * (gain - 1)
    if result.status == "confirmed" and result.confidence.interval is not None:
        return (
            f"{percent:+.1f} % on {against} ({interval_text(result.confidence.interval)}), "
            f"both {result.source} again alternately after fresh starts."
        )
    return f"A candidate: {percent:+.1f} % on {against}, not measured again."


def interval_text(gain: Interval) -> str:
    """`95 % interval +10.2 to +15.6 %` of a gain over the baseline."""
    return f"{100 * gain.level:.0f} % interval {100 * (gain.low - 1):+.1f} to {100 * (gain.high - 1):+.1f} %"


def _settings(config: ServingConfig | None, names: list[str]) -> list[str]:
    flat: dict[str, OptionValue] = {} if config is None else config.flat()
    return [value_text(flat[name]) if name in flat else NONE for name in names]


def comparison_table(result: Result) -> RenderableType:
    """Settings and metrics of best and baseline side by side."""
    best, base = result.best, result.baseline.compared
    assert best is not None
    name = f"nearest to {result.baseline.name}" if result.baseline.is_substitute else result.baseline.name
    grid = table("", "best", name, "change")
    against = result.baseline.settings
    keys = list(dict.fromkeys([*best.serving_config.flat(), *(against.flat() if against else {})]))
    ours, theirs = _settings(best.serving_config, keys), _settings(against, keys)
    for key, left, right in zip(keys, ours, theirs, strict=True):
        grid.add_row(setting_title(result.deployment.engine, key), left, right, "" if left == right else "*")
    for title, left_value, right_value, digits in _metric_rows(best, base):
        change = "" if right_value is None or not right_value else f"{100 * (left_value / right_value - 1):+.1f} %"
        right = NONE if right_value is None else f"{right_value:,.{digits}f}"
        grid.add_row(title, f"{left_value:,.{digits}f}", right, change)
    return grid


def _metric_rows(best: ResultEntry, base: ResultEntry | None) -> list[tuple[str, float, float | None, int]]:
    """(title with unit, best, baseline, digits) of everything that best has."""
    theirs = None if base is None else base.metrics
    rows = [(row, row.read(best.metrics), None if theirs is None else row.read(theirs)) for row in METRICS]
    kept = [(f"{row.title}, {row.unit}", left, right, row.digits) for row, left, right in rows if left is not None]
    if best.memory_gib is not None:
        memory = None if base is None else base.memory_gib
        for title, name in (("KV pool, GiB per GPU", "kv_pool"), ("Left free, GiB per GPU", "headroom")):
            right = None if memory is None else getattr(memory, name)
            kept.append((title, getattr(best.memory_gib, name), right, 2))
    return kept


def top_table(result: Result) -> RenderableType:
    """The best configurations that were launched."""
    names = list(dict.fromkeys(name for entry in result.top for name in entry.serving_config.flat()))
    short = [short_name(name) for name in names]
    grid = table("top", *short, "tok/s/GPU", "TTFT p99", "TPOT", "free GiB", "trials")
    for place, entry in enumerate(result.top, start=1):
        grid.add_row(
            "best" if place == 1 else f"{place}",
            *_settings(entry.serving_config, names),
            *_metric_cells(entry),
            _numbers(entry),
        )
    return grid


def _metric_cells(entry: ResultEntry) -> list[str]:
    tpot = entry.metrics.tpot_ms
    return [
        f"{entry.metrics.output_tok_per_s_per_gpu:,.0f}",
        f"{entry.metrics.ttft_ms.p99:,.0f}",
        NONE if tpot is None else f"{tpot.mean:.2f}",
        NONE if entry.memory_gib is None else f"{entry.memory_gib.headroom:.1f}",
    ]


def _numbers(entry: ResultEntry) -> str:
    """`#17,#18 +2`: the first two trials of a configuration, and how many more there are."""
    first, more = entry.trials[:2], len(entry.trials) - 2
    return ",".join(f"#{number}" for number in first) + (f" +{more}" if more > 0 else "")


def predicted_table(rows: Sequence[PredictedRow]) -> RenderableType:
    """Every named baseline as the nominal twin predicts it; where one does not apply, why."""
    grid = table("predicted", "batch", "tokens", "graphs", "kv frac", "tok/s/GPU", "fits")
    absent = [Text(f"{row.name}: {row.why}", style="dim") for row in rows if row.prediction is None]
    for row in rows:
        if row.prediction is not None:
            metrics = row.prediction.metrics
            four = _settings(row.serving_config, list(FOUR_SETTINGS))
            rate = NONE if metrics is None else f"{metrics.output_tok_per_s_per_gpu:,.0f}"
            grid.add_row(row.name, *four, rate, "yes" if row.prediction.fits else "no")
    return Group(grid, *absent)


def baseline_text(baseline: BaselineEntry) -> str:
    """One sentence on how the baseline fared."""
    if baseline.is_substitute:
        return f"The {baseline.name} configuration does not run here: {baseline.outcome}."
    return f"Baseline {baseline.name}: {baseline.why}."
