"""`advisor studies`: what ships, and what each fixes and varies."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat


@guarded
def studies(
    name: Annotated[str | None, typer.Argument(help="Explain one study, by name or file.")] = None,
    output: Output = OutputFormat.text,
) -> None:
    """List the studies, or explain one: what is fixed, what varies, workloads, objective, budget."""
    from advisor.report import console, listings
    from advisor.store import catalog

    if name is None:
        entries = [catalog.study(each) for each in catalog.study_names()]
        if output is OutputFormat.json:
            typer.echo(listings.studies_json(entries))
        else:
            console.show(listings.study_table(entries))
        return
    study = catalog.study(name)
    space = catalog.search_space(study.search_space)
    if output is OutputFormat.json:
        typer.echo(listings.studies_json([study]))
    else:
        console.show(listings.study_details(study, space))
