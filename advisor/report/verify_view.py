"""A verification on the terminal: what is different first, then the verdict, then what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.verification import VERIFIED, TestedMetric, Verdict, Verification
from advisor.report.change_rows import change_table, interval_percent, percent
from advisor.report.console import banner, table
from advisor.report.summary import soak_text

STYLES: dict[Verdict, str] = {"PASS": "bold green", "DRIFT": "bold yellow", "FAIL": "bold red"}
PREDICTION = (
    "One side is simulated: this holds a prediction against what came, which may differ by 20 %. It is no confirmation "
    "of a measurement."
)


def verify_view(found: Verification) -> RenderableType:
    """All of one workload."""
    parts: list[RenderableType] = [banner(found.source, found.label)]
    parts += [Text(f"Different: {each}", "yellow") for each in found.differences]
    if found.comparison == "prediction":
        parts.append(Text(PREDICTION, "yellow"))
    parts += [Text(), Text(f"{found.verdict}  {found.workload_name}: {headline(found)}", STYLES[found.verdict])]
    parts += [Text(f"  {reason}") for reason in found.reasons]
    if found.soak is not None and found.soak.survived:
        parts.append(Text(soak_text(found.soak, found.source)))
    parts += [Text(note, "dim") for note in found.notes]
    if found.tested:
        parts += [Text(), _tested(found.tested), *map(Text, _power(found))]
    if found.changes:
        result = "predicted" if found.comparison == "prediction" else "result"
        parts += [Text(), change_table((*found.changes, *found.memory), result, "now")]
        parts.append(Text("Real: beyond noise with 95 % for all these rows together; for information.", "dim"))
    if found.verdict == "FAIL":
        logs = Path(found.folder) / "verify" / "trials" / f"{len(found.launches):04d}"
        parts += [Text(), Text(f"Evidence: {logs}")]
    return Group(*parts, Text())


def headline(found: Verification) -> str:
    """One clause."""
    launches = f"{len(found.launches)} launch{'es' if len(found.launches) > 1 else ''}, {found.source}"
    what = "the prediction" if found.comparison == "prediction" else "the result"
    said = {
        "PASS": f"within what noise allows of {what}",
        "DRIFT": f"{found.direction} than {what}, beyond noise",
        "FAIL": "it does not do what was found",
    }
    return f"{said[found.verdict]} ({launches})."


def _tested(tested: Sequence[TestedMetric]) -> RenderableType:
    grid = table("decides", "now over result", "drift if 0 is outside", "launches", "of the result")
    for each in tested:
        ratio = each.decision.ratio
        grid.add_row(
            each.metric,
            percent(ratio.estimate),
            interval_percent(ratio),
            str(each.n_launches),
            str(each.n_reference),
        )
    return grid


def _power(found: Verification) -> list[str]:
    """What would have been noticed, and what makes the next verification sharper."""
    lost, told = (
        100 * max(getattr(each.decision, name) for each in found.tested) for name in ("largest_loss", "detectable_loss")
    )
    lines = [f"With 99 % it lost no more than {lost:.1f} %; a loss of {told:.1f} % is called a drift with 99 %."]
    joined = len(found.reference) - found.tested[0].n_reference
    if found.verdict == "PASS" and joined > 0:
        lines.append(
            f"The result now stands on {len(found.reference)} launches: {joined} of these joined it in {VERIFIED}, so "
            "that the next verification notices smaller losses."
        )
    return lines
