"""A calibration on the terminal: each constant before and after, and what the fit leaves of every benchmark."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from advisor.domain.calibration import Calibration, FitError
from advisor.report.console import banner, table

TITLES = {"output_tok_per_s": "tok/s", "ttft:mean": "TTFT", "tpot:mean": "TPOT"}
LEAST_PINNED = 0.01  # a constant of which less became known is as it was
NOTES = (
    "Pinned: the share of the variance assumed before that the launches removed. Errors are predicted over measured "
    "- 1 in %, with the nominal constants > with the fitted ones."
)


def calibration_view(found: Calibration) -> RenderableType:
    """Constants, then errors, then their medians."""
    what = f"{found.engine} {found.engine_version} on {found.gpu}, fitted to {found.label}"
    unmoved = [each.name for each in found.constants if each.pinned < LEAST_PINNED]
    parts: list[RenderableType] = [banner(found.source, found.engine_label), Text(), Text(what, "bold"), Text()]
    parts += [_constants(found), Text()]
    if unmoved:
        parts += [Text(f"Not told by these launches: {', '.join(unmoved)}.", "dim"), Text()]
    return Group(*parts, _errors(found), Text(NOTES, "dim"))


def _constants(found: Calibration) -> Table:
    grid = table("constant", "of", "nominal", "fitted", "+-", "pinned")
    for each in found.constants:
        if each.pinned >= LEAST_PINNED:
            numbers = (f"{value:.4g}" for value in (each.nominal, each.fitted, each.sd))
            grid.add_row(each.name, each.part, *numbers, f"{each.pinned:.0%}")
    return grid


def _errors(found: Calibration) -> Table:
    grid = table("trial", "workload", *TITLES.values())
    for each in found.errors:
        trial = f"#{each.trial}" if len(found.runs) == 1 else f"{each.run} #{each.trial}"
        grid.add_row(trial, each.workload, *(_change(each, name) for name in TITLES))
    medians = {each.output: f"{100 * each.before:.1f} > {100 * each.after:.1f}" for each in found.median_errors}
    grid.add_row("median", "of sizes", *(medians.get(name, "-") for name in TITLES), style="bold")
    return grid


def _change(error: FitError, output: str) -> str:
    if output not in error.before or output not in error.after:
        return "-"
    return f"{100 * error.before[output]:+.1f} > {100 * error.after[output]:+.1f}"
