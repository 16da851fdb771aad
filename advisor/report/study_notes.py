"""What a study says beside its results: the configuration for all workloads, the nearest miss, the next hour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from advisor.app.calibration import NO_CALIBRATION
from advisor.app.results import Counts, StudySummary
from advisor.app.robustness import RobustChoice
from advisor.domain.answers import AnswerCheck
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import MemoryReport, Source
from advisor.engines.spoken import spoken_by
from advisor.report.console import table
from advisor.report.progress import config_text
from advisor.search.misses import MemoryMiss, NearestMiss
from advisor.search.relaxation import help_text

ROBUST = "robust"
"""Folder of the configuration for all workloads, beside those of the workloads."""


def counts_text(counts: Counts) -> str:
    """What became of all trials, in one clause."""
    stopped = f"{counts.hopeless} stopped early, " if counts.hopeless else ""
    probes = f"{counts.probes} memory-only probes, " if counts.probes else ""
    reference = f" and {counts.reference} for verify" if counts.reference else ""
    return (
        f"{counts.trials} trials, {probes}{counts.launches} launches{reference}: {counts.oom} out of memory, {stopped}"
        f"{counts.rejected} rejected before launch, {counts.failed} failed"
    )


def robust_view(summary: StudySummary) -> list[RenderableType]:
    """One configuration for all workloads on the terminal; nothing for a study of one."""
    if len(summary.results) < 2:
        return []
    if summary.robust is None:
        return [Text(), Text(NO_ROBUST, style="bold")]
    grid = table("one for all", "loses")
    for workload, regret in summary.robust.regret.items():
        grid.add_row(workload, f"{100 * regret:.1f} %")
    return [Text(), Text(robust_text(summary.robust, summary.source), style="bold"), grid]


NO_ROBUST = "No configuration that was launched serves all workloads within their limits."


def robust_text(choice: RobustChoice, source: Source) -> str:
    """The choice in one sentence."""
    how = f"{source} again after fresh starts" if choice.kind == "remeasured" else f"{source} once"
    return (
        f"One configuration for all {len(choice.regret)} workloads: {config_text(choice.serving_config)} loses "
        f"{100 * choice.max_regret:.1f} % at most against the best of each ({how})."
    )


def outlook_text(summary: StudySummary) -> str:
    """What one more hour would bring; empty where the sampler does not say."""
    if summary.outlook is None:
        return ""
    pace, gain = summary.outlook.launches_per_hour, 100 * summary.outlook.expected_gain
    hour = "One more hour (simulated)" if summary.source == "simulated" else "One more hour"
    return f"{hour} is about {pace:.0f} launches, of which the sampler expects {gain:.1f} % more at most."


def answer_notes(check: AnswerCheck | None) -> list[str]:
    """Whether the best answers as the baseline does; nothing where no searched dimension can change answers."""
    if check is None:
        return []
    names = " and ".join(check.dimensions)
    if check.floor is None:
        return [f"{names} can change what the model says, and nothing was checked: no launch here answers prompts."]
    notes = []
    if check.best is not None:
        notes.append(
            f"{names} can change what the model says: the answers of the best differ from the baseline's in "
            f"{100 * check.best.differing:.0f} % of {check.best.n_prompts} prompts (equal for "
            f"{100 * check.best.common_prefix:.0f} % of their length), the baseline's from its own in "
            f"{100 * check.floor:.0f} %."
        )
    if check.departed:
        trials = ", ".join(f"#{each.trial} ({100 * each.differing:.0f} %)" for each in check.departed)
        notes.append(
            f"Not considered, because more than {100 * check.limit:.0f} % of the answers differ beyond that: {trials}."
        )
    return notes


def knowledge_text(summary: StudySummary) -> str:
    """What the search knew before its first launch, in sentences; empty where that is nothing."""
    unmodelled = f"There is {unmodelled_text(summary.unmodelled)}." if summary.unmodelled else ""
    deployment = summary.results[0].deployment if summary.results else None
    kernels = f"The twin goes by {kernels_text(summary.kernels, deployment)}." if summary.kernels and deployment else ""
    fitted = "" if summary.twin_calibration == NO_CALIBRATION else calibrated_text(summary.twin_calibration)
    taught = taught_text(summary.taught_by) if summary.taught_by else ""
    return " ".join(filter(None, (unmodelled, kernels, fitted, taught)))


def kernels_text(kernels: str, deployment: Deployment) -> str:
    """Whose kernel times the twin goes by, and that they are another engine's where they are."""
    title = spoken_by(deployment).title
    return f"kernel times of {kernels}" + ("" if kernels.startswith(title) else f", for want of {title}'s")


def calibrated_text(launches: str) -> str:
    """Whose launches the twin's constants were fitted to."""
    return f"The twin is calibrated by {launches}."


def taught_text(taught_by: Sequence[str]) -> str:
    """Which earlier studies taught this one."""
    n = len(taught_by)
    return f"{n} earlier {'study' if n == 1 else 'studies'} taught this one: {'; '.join(taught_by)}."


def unmodelled_text(why: str) -> str:
    """That there is no twin of the deployment, and what follows."""
    return f"no twin of this deployment ({why}): searched by measurement alone, nothing is predicted"


def miss_text(miss: NearestMiss) -> str:
    """Which configuration came nearest, what blocks it, and the smallest change that would help."""
    trials = ", ".join(f"#{number}" for number in miss.trials)
    who = f"trial {trials}: " if miss.trials else "predicted, not launched: "
    return (
        f"The nearest one ({who}{config_text(miss.serving_config)}) {_block_text(miss)} {help_text(miss.relaxations)}"
    )


def _block_text(miss: NearestMiss) -> str:
    if miss.memory is None:
        broken = " and ".join(
            f"{limit.name} {limit.value_ms:,.4g} ms where {limit.limit_ms:,.4g} ms are allowed" for limit in miss.broken
        )
        return f"has {broken}."
    return f"{_memory_text(miss.memory)}{_components_text(miss.memory.memory_gib, miss.memory.memory_source)}"


def _memory_text(memory: MemoryMiss) -> str:
    if memory.phase is None:
        return (
            f"has a KV pool of {memory.kv_tokens or 0:,} tokens per rank; "
            f"the longest request needs {memory.needed_tokens:,}."
        )
    return f"lacks {memory.short_gib:.2f} GiB at {memory.phase} ({memory.component})."


def _components_text(memory_gib: MemoryReport | None, source: Source) -> str:
    """Where the GiB go, empty where nobody knows."""
    if memory_gib is None:
        return ""
    names = ("weights", "activations", "cuda_graphs", "kv_pool", "other")
    sizes = [(name.replace("_", " "), getattr(memory_gib, name)) for name in names]
    parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes if size is not None)
    return f" Of {memory_gib.capacity:.1f} GiB per GPU ({source}): {parts}."
