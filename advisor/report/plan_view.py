"""Predictions on the terminal: one configuration, a ranked space, and what a study would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field
from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.answers import answer_dimensions
from advisor.app.calibration import NO_CALIBRATION
from advisor.app.context import StudyContext
from advisor.app.decided import acting_defaults
from advisor.app.estimating import Estimate, Plan, PlanRow
from advisor.app.verifiable import expected_launches
from advisor.domain.measurement import MemoryReport
from advisor.domain.outcome import summary
from advisor.domain.strict import StrictModel
from advisor.domain.workload import Workload
from advisor.metrics.verdict import FULL_REFERENCE
from advisor.report.console import banner, short_name, table, value_text
from advisor.report.price_view import PRICES_NOTE, price_table
from advisor.report.spans import span_text
from advisor.report.study_notes import calibrated_text, kernels_text, taught_text, unmodelled_text
from advisor.report.summary import LIMITS
from advisor.search.stopping import MAX_ROUNDS, confirmation_launches
from advisor.store.checkpoints import lacks_text, share_with_text

if TYPE_CHECKING:
    from advisor.app.tuning import Session


class DryRun(StrictModel):
    """`advisor tune --dry-run --output json`: what would be done."""

    study: str
    run_folder: str
    engine_label: str
    workloads: tuple[str, ...]
    searched: dict[str, int]
    n_configs: int
    answers_checked: tuple[str, ...] = Field(description="Dimensions that can change what the model says")
    defaults: tuple[str, ...] = Field(description="Which limit what can be found, in words")
    max_launches: int
    confirmation_launches: int
    reference_launches: int | None = Field(
        description="Of each best, expected beyond `max_launches` with `--verifiable`; null without it"
    )
    baselines: tuple[str, ...]
    starts: int
    expected_hours: float | None = Field(description="Of the server; null where nothing can be predicted")
    expected_gpu_hours: float | None
    predicted_gain: float | None = Field(
        description="Best over baseline as the twin expects it, 1.0 = equal; null where the baseline would not do"
    )
    taught_by: tuple[str, ...] = Field(description="Earlier runs that the search learns from, in words")
    twin_calibration: str = Field(description="Launches that the twin's constants were fitted to")
    unmodelled: str | None = Field(
        description="What the twin does not know of the deployment, so that nothing is predicted"
    )
    share_with_text: float | None = Field(
        description="Of the model's token ids, those that the tokenizer in its folder has an entry for; null: not told"
    )


def json_text(documents: Sequence[BaseModel]) -> str:
    """One document as it is, several as one JSON list."""
    plain = [document.model_dump(mode="json") for document in documents]
    return json.dumps(plain[0] if len(plain) == 1 else plain, indent=2)


def estimate_view(estimate: Estimate) -> RenderableType:
    """One configuration: does it fit, where memory goes, what it would do."""
    deployment = estimate.deployment
    source = kernels_text(estimate.kernels, deployment) if estimate.kernels else "a roofline, tens of percent off"
    parts: list[RenderableType] = [banner("predicted", f"predicted by the twin from {source}"), Text()]
    parts.append(
        Text(
            f"{deployment.model} {deployment.quantization} on {deployment.gpus} x {deployment.gpu}, "
            f"{estimate.workload_name}",
            "bold",
        )
    )
    settings = table("setting", "value")
    for name, value in estimate.serving_config.flat().items():
        settings.add_row(name, value_text(value))
    if estimate.twin_calibration != NO_CALIBRATION:
        parts.append(Text(calibrated_text(estimate.twin_calibration)))
    if estimate.calibration != NO_CALIBRATION:
        parts.append(Text(f"The memory law is calibrated by {estimate.calibration}."))
    parts += [settings, Text(), memory_table(estimate.memory_gib), Text()]
    if estimate.prices:
        parts += [price_table(estimate.prices), Text(PRICES_NOTE, style="dim"), Text()]
    if estimate.failure is not None:
        parts.append(Text(f"Would not serve: {summary(estimate.failure)}.", style="bold red"))
        return Group(*parts)
    assert estimate.metrics is not None and estimate.limited_by is not None
    metrics = estimate.metrics
    numbers = table("predicted", "")
    numbers.add_row("P(fits)", f"{estimate.p_fits:.0%}")
    numbers.add_row("expected shortfall, GiB", f"{estimate.expected_shortfall_gib:.2f}")
    numbers.add_row("KV capacity, tokens per rank", f"{estimate.kv_tokens:,}")
    numbers.add_row("output tok/s", f"{metrics.output_tok_per_s:,.0f}")
    numbers.add_row("output tok/s per GPU", f"{metrics.output_tok_per_s_per_gpu:,.0f}")
    numbers.add_row("TTFT p50 / p99, ms", f"{metrics.ttft_ms.p50:,.0f} / {metrics.ttft_ms.p99:,.0f}")
    if metrics.tpot_ms is not None:
        numbers.add_row("TPOT mean / p99, ms", f"{metrics.tpot_ms.mean:.2f} / {metrics.tpot_ms.p99:.2f}")
    parts += [numbers, Text(), Text(f"Limited by {LIMITS[estimate.limited_by]}.")]
    return Group(*parts)


def memory_table(memory: MemoryReport) -> RenderableType:
    """GiB of one GPU by component, with a bar against its capacity."""
    grid = table("GiB per GPU", "", "")
    grid.columns[2].justify = "left"
    for name in ("weights", "activations", "cuda_graphs", "kv_pool", "other"):
        size = getattr(memory, name) or 0.0
        share = min(1.0, max(0.0, size) / memory.capacity)
        grid.add_row(name.replace("_", " "), f"{size:.2f}", "#" * round(40 * share))
    grid.add_row("left free", f"{memory.headroom:.2f}", f"of {memory.capacity:.1f}")
    if memory.cached:
        grid.add_row("of it cached", f"{memory.cached:.2f}", "kept by PyTorch, given back where it is needed")
    return grid


def plan_ranking(plan: Plan) -> RenderableType:
    """The best of the space, and the baseline under them."""
    names = list(plan.baseline.serving_config.flat())
    short = [short_name(name) for name in names]
    grid = table("rank", *short, "tok/s/GPU", "TTFT p99", "TPOT", "free GiB", "P(fits)", "limited by")
    for place, row in enumerate(plan.rows, start=1):
        grid.add_row(str(place), *_cells(row, names))
    grid.add_row("baseline", *_cells(plan.baseline, names), style="dim")
    searched = ", ".join(f"{name} ({n})" for name, n in plan.searched.items())
    where = f", where {'; '.join(plan.conditions)}" if plan.conditions else ""
    fits = f"{plan.n_fit:,} of {plan.n_configs:,} configurations fit and can serve {plan.workload_name}."
    if plan.twin_calibration != NO_CALIBRATION:
        fits += f" {calibrated_text(plan.twin_calibration)}"
    return Group(
        banner("predicted", "predicted by the twin"),
        Text(),
        Text(fits),
        Text(),
        grid,
        Text(f"Searched: {searched}{where}.", "dim"),
    )


def _cells(row: PlanRow, names: Sequence[str]) -> list[str]:
    flat = row.serving_config.flat()
    settings = [value_text(flat[name]) if name in flat else "-" for name in names]
    prediction = row.prediction
    if prediction.metrics is None:
        why = "" if prediction.failure is None else summary(prediction.failure)
        return [*settings, "-", "-", "-", f"{prediction.memory_gib.headroom:.1f}", f"{prediction.p_fits:.0%}", why]
    tpot = prediction.metrics.tpot_ms
    return [
        *settings,
        f"{prediction.metrics.output_tok_per_s_per_gpu:,.0f}",
        f"{prediction.metrics.ttft_ms.p99:,.0f}",
        "-" if tpot is None else f"{tpot.mean:.2f}",
        f"{prediction.memory_gib.headroom:.1f}",
        f"{prediction.p_fits:.0%}",
        (prediction.limited_by or "") + ("" if row.keeps_slo else " (breaks a limit)"),
    ]


def plan_document(session: Session) -> DryRun:
    """What a study would do."""
    context, measured = session.context, session.context.identity.source == "measured"
    hours = session.expected_hours()
    return DryRun(
        study=context.name,
        run_folder=str(session.run_folder),
        engine_label=context.identity.label,
        workloads=tuple(workload.name for workload in context.workloads),
        searched={dimension.name: len(dimension.values) for dimension in context.space.active},
        n_configs=context.space_size,
        answers_checked=answer_dimensions(context.space),
        defaults=acting_defaults(context),
        max_launches=context.budget.max_launches,
        confirmation_launches=confirmation_launches(context.budget, len(context.workloads)),
        reference_launches=expected_launches(context) - MAX_ROUNDS if context.verifiable else None,
        baselines=context.launched_baselines,
        starts=session.n_starts,
        expected_hours=hours,
        expected_gpu_hours=None if hours is None else hours * context.deployment.gpus,
        predicted_gain=session.predicted_gain(),
        taught_by=session.taught_by,
        twin_calibration=session.twin_calibration,
        unmodelled=context.unmodelled,
        share_with_text=share_with_text(Path(context.deployment.model)) if measured else None,
    )


def plan_text(session: Session) -> RenderableType:
    """What a study would do, for people."""
    document, context = plan_document(session), session.context
    deployment = context.deployment
    facts = table("plan", "")
    facts.columns[1].justify = "left"
    layout = f"tp {deployment.tp} ep {deployment.ep}" + (f" pp {deployment.pp}" if deployment.pp > 1 else "")
    facts.add_row(
        "fixed", f"{deployment.model} {deployment.quantization}, {deployment.gpus} x {deployment.gpu}, {layout}"
    )
    facts.add_row("searched", ", ".join(f"{name} ({n} steps)" for name, n in document.searched.items()))
    facts.add_row("", f"{document.n_configs:,} configurations")
    for condition in context.space.conditions:
        facts.add_row("where", condition.text)
    if document.answers_checked:
        facts.add_row("answers", answers_text(context))
    measured = "simulated on" if context.identity.source == "simulated" else "measured on"
    facts.add_row(measured, "; ".join(map(workload_text, context.workloads)))
    facts.add_row(
        "launches",
        f"at most {document.max_launches}, {document.confirmation_launches} of them kept for the confirmation",
    )
    if document.reference_launches is not None:
        facts.add_row("", reference_text(document.reference_launches, session.expected_launch_hours))
    starts = [f"{document.starts} choices of the twin"] if document.starts else []
    facts.add_row("first", ", ".join([*(f"baseline {name}" for name in document.baselines), *starts]))
    spent = "virtual, simulated in about a minute" if context.identity.source == "simulated" else "of the node"
    facts.add_row("server time", f"{time_text(document)} ({spent})")
    facts.add_row("expected", expected_text(document, context.baseline.name))
    if mute := mute_text(document.share_with_text):
        facts.add_row("tokenizer", mute)
    if document.taught_by:
        facts.add_row("learns from", taught_text(document.taught_by))
    if document.twin_calibration != NO_CALIBRATION:
        facts.add_row("twin", calibrated_text(document.twin_calibration))
    for number, default in enumerate(document.defaults):
        facts.add_row("" if number else "by default", default)
    facts.add_row("results", document.run_folder)
    return Group(banner(context.identity.source, context.identity.label, session.why_twin), Text(), facts)


def workload_text(workload: Workload) -> str:
    """What each launch has to serve."""
    isl, osl = _range_text(workload.isl_min, workload.isl), _range_text(workload.osl_min, workload.osl)
    lengths = f"{workload.name}: {isl} tokens in, {osl} out"
    if workload.request_rate_per_s is not None:
        return f"{lengths}, {workload.request_rate_per_s:g} requests/s"
    return f"{lengths}, {workload.concurrency:,} in flight"


def mute_text(share: float | None) -> str:
    """What a tokenizer of another model in the folder does to a measurement; empty where it is the model's own."""
    if share is None or not lacks_text(share):
        return ""
    return (
        f"It has text for {share:.0%} of the model's token ids, so it is another model's. Output without text is slow "
        "to serve (vLLM decodes the whole prompt again with each token): slower than with the model's own."
    )


def _range_text(least: int | None, most: int) -> str:
    return f"{most:,}" if least in (None, most) else f"{least:,} to {most:,}"


def answers_text(context: StudyContext) -> str:
    """What is searched that can change answers, and what watches over it; empty where nothing is."""
    names = " and ".join(answer_dimensions(context.space))
    if not names:
        return ""
    if context.identity.source == "simulated":
        return f"{names} can change what the model says. The twin has no answers, so nothing is checked."
    return (
        f"{names} can change what the model says: each launch answers fixed prompts, and one that differs from the "
        f"baseline in more than {100 * context.max_answer_drift:.0f} % of them, beyond the noise, is not considered."
    )


def reference_text(n_launches: int, launch_hours: float | None) -> str:
    """What `--verifiable` adds to a study, and what that takes."""
    most = FULL_REFERENCE - MAX_ROUNDS
    time = "" if launch_hours is None else f", {span_text(3600 * launch_hours)} each"
    return f"then about {n_launches} of each best for verify{time}; at most {most} where noise asks for them"


def time_text(plan: DryRun) -> str:
    """Server time of the whole budget."""
    if plan.expected_hours is None:
        return "nobody can say"
    return f"about {plan.expected_hours:.1f} h = {plan.expected_gpu_hours:.0f} GPU-hours"


def expected_text(plan: DryRun, baseline: str) -> str:
    """What the study is expected to win, or why nobody can say."""
    return unmodelled_text(plan.unmodelled) if plan.unmodelled else gain_text(plan.predicted_gain, baseline)


def gain_text(gain: float | None, baseline: str) -> str:
    """What the twin expects a study to win."""
    if gain is None:
        return f"the twin does not expect {baseline} to serve this load, or not within the limits"
    return f"the twin expects {100 * (gain - 1):+.1f} % over {baseline} at most"
