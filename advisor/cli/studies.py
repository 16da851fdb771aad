"""`advisor studies`: what ships, and what each fixes and varies."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat


@guarded
def studies(
    name: Annotated[str | None, typer.Argument(help="Explain one study, by name or file.")] = None,
    models: Annotated[bool, typer.Option("--models", help="List the models whose architecture is known.")] = False,
    output: Output = OutputFormat.text,
) -> None:
    """List the studies, or explain one: what is fixed, what varies, workloads, objective, budget."""
    import json

    from advisor.report import console, listings
    from advisor.store import catalog

    if models:
        known = sorted(catalog.models())
        console.show_document(json.dumps(known, indent=2) if output is OutputFormat.json else "\n".join(known))
        return
    if name is None:
        entries = [catalog.study(each) for each in catalog.study_names()]
        if output is OutputFormat.json:
            console.show_document(listings.studies_json(entries))
        else:
            console.show(listings.study_table(entries))
        return
    study = catalog.study(name)
    space = catalog.search_space(study.search_space)
    if output is OutputFormat.json:
        console.show_document(listings.studies_json([study]))
    else:
        console.show(listings.study_details(study, space))
