"""Tables of what ships: studies and engines."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from advisor.app.engines import EngineEntry
from advisor.domain.study import SearchSpace, Study
from advisor.report.console import table, value_text


def study_table(studies: Sequence[Study]) -> RenderableType:
    """One row a study."""
    grid = table("study", "what", "workloads", "baseline", "launches")
    grid.columns[1].justify = grid.columns[2].justify = grid.columns[3].justify = "left"
    for study in studies:
        grid.add_row(
            study.name, study.title, ", ".join(study.workload_names), study.baseline, str(study.budget.max_launches)
        )
    hint = Text(
        "\nExplain one: advisor studies NAME.  Run one: advisor tune --study NAME --isl 4096 --osl 1024", style="dim"
    )
    return Group(grid, hint)


def study_details(study: Study, space: SearchSpace) -> RenderableType:
    """What is fixed, what varies and why, workloads, objective, budget."""
    fixed = table("fixed", "")
    fixed.columns[1].justify = "left"
    for name, value in study.deployment.model_dump().items():
        if value is not None:
            fixed.add_row(name, value_text(value))
    varied = table("varies", "ladder", "why")
    varied.columns[1].justify = varied.columns[2].justify = "left"
    more = []
    for dimension in space.dimensions:
        name = dimension.name + (" (can change answers)" if dimension.changes_answers else "")
        if dimension.enabled or dimension.name in study.vary:
            varied.add_row(name, " ".join(map(value_text, dimension.values)), dimension.reason)
        else:
            more.append(f"{name}: {' '.join(map(value_text, dimension.values))}")
    facts = table("", "")
    facts.columns[1].justify = "left"
    facts.add_row("workloads", ", ".join(study.workload_names))
    facts.add_row("objective", f"{study.objective.direction} {study.objective.metric}")
    facts.add_row("limits", study.slo.text or "none")
    facts.add_row("baseline", study.baseline)
    facts.add_row("budget", f"{study.budget.max_launches} launches")
    for condition in space.conditions:
        facts.add_row("condition", f"{condition.text}: {condition.reason}")
    for option in more:
        facts.add_row("with --vary", option)
    for source in study.sources:
        facts.add_row("source", source)
    return Group(Text(study.title, style="bold"), Text(study.description), Text(), fixed, Text(), varied, Text(), facts)


def studies_json(studies: Sequence[Study]) -> str:
    """The studies as a JSON list."""
    return json.dumps([study.model_dump(mode="json") for study in studies], indent=2)


def engine_table(entries: Sequence[EngineEntry]) -> RenderableType:
    """One row an engine; what cannot run here says why instead of what it is."""
    grid = table("engine", "numbers are", "version", "here")
    for column in grid.columns:
        column.justify = "left"
    grid.columns[3].overflow = "fold"
    for entry in entries:
        here = entry.identity.label if entry.missing is None else f"cannot run here: {entry.missing}"
        grid.add_row(entry.name, entry.identity.source, entry.identity.version, here)
    return grid
