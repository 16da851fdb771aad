"""A comparison on the terminal: whether it is like with like, what was set, and which differences are real."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from advisor.app.compare import Compared, Comparison, Difference, WorkloadComparison
from advisor.report.change_rows import change_table
from advisor.report.console import banner, table

NOTE = (
    "Change: B against A. Real: beyond noise with 95 % for all metrics of a workload together, from launch to launch. "
    "Memory is real beyond 0.1 GiB, KV tokens beyond 1 %."
)


def compare_view(found: Comparison) -> RenderableType:
    """All workloads, then what only one side has."""
    parts = [_workload(each) for each in found.workloads]
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            parts.append(Text(f"Only in {side}: {', '.join(names)}."))
    return Group(*parts)


def _workload(found: WorkloadComparison) -> RenderableType:
    name = found.a.workload_name
    if found.b.workload_name != name:
        name = f"{name} against {found.b.workload_name}"
    parts: list[RenderableType] = [Text(name, "bold"), *_sides(found.a, found.b)]
    parts += [Text(f"Not like with like: {each}", "yellow") for each in found.caveats]
    for title, differences in (
        ("setting", found.settings),
        ("key of the file", found.keys),
        ("environment", found.environment),
    ):
        if differences:
            parts += [Text(), _differences(title, differences)]
    if not found.settings and found.changes:
        parts += [Text(), Text("Both have the same settings.")]
    if found.changes:
        parts += [Text(), Text(headline(found), "bold"), change_table((*found.changes, *found.memory), "A", "B")]
        parts.append(Text(NOTE, "dim"))
    return Group(*parts, Text())


def headline(found: WorkloadComparison) -> str:
    """One sentence on how much is real."""
    if not found.n_real:
        return f"All {len(found.changes)} metrics are within noise."
    return f"{found.n_real} of {len(found.changes)} metrics differ beyond noise."


def _sides(a: Compared, b: Compared) -> list[RenderableType]:
    found: list[RenderableType] = []
    for name, side in (("A", a), ("B", b)):
        launches = f"{side.n_launches} launch{'' if side.n_launches == 1 else 'es'}"
        found.append(Text(f"{name}: {side.folder}, {side.label}, {side.status.replace('_', ' ')}, {launches}"))
    return [*([] if a.source == b.source == "measured" else [banner("simulated", _simulated(a, b))]), *found]


def _simulated(a: Compared, b: Compared) -> str:
    return "in part" if a.source != b.source else "on both sides"


def _differences(title: str, differences: Sequence[Difference]) -> Table:
    grid = table(title, "A", "B")
    for each in differences:
        grid.add_row(each.name, *(value if value is not None else "-" for value in (each.a, each.b)))
    return grid
