"""`advisor verify`: the winner of a result launched again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.errors import guarded

VERDICT_CODES = {"PASS": 0, "FAIL": 6, "DRIFT": 7}


@guarded
def verify(
    folder: Annotated[
        Path, typer.Argument(help="results/STUDY/RUN for all of its workloads, or one workload's folder in it.")
    ],
    engine: Annotated[
        str,
        typer.Option(
            help="auto: the engine that found the result; or one of `advisor engines`.", rich_help_panel=opt.DEPLOYMENT
        ),
    ] = "auto",
    container_image: opt.ContainerImage = None,
    launch_prefix: opt.LaunchPrefix = None,
    client_check: opt.ClientCheck = True,
    twin_world: Annotated[
        int | None,
        typer.Option(
            help="World that the twin plays; 0 is the nominal one. [default: the result's]",
            min=0,
            rich_help_panel=opt.STUDY,
        ),
    ] = None,
    max_launches: Annotated[
        int,
        typer.Option(
            help="Launches of each winner at most; fewer where they decide it, from 3 on.",
            min=1,
            rich_help_panel=opt.BUDGET,
        ),
    ] = 16,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Launch the winner again, measure as before, and say PASS, DRIFT or FAIL.

    Exit code 0: it does what was measured. 6, FAIL: it does not start, runs out of memory, answers short, uses other
    settings or breaks a limit. 7, DRIFT: it serves, and is slower or faster beyond noise. What is found is kept in
    `verify.json` beside the result.
    """
    from advisor.app import verify as use_case
    from advisor.cli.present import Cancel
    from advisor.report import console
    from advisor.report.verify_view import verify_view

    cancel = Cancel(speaks=True)
    cancel.install()
    how = use_case.How(
        engine=engine,
        twin_world=twin_world,
        container_image=container_image,
        launch_prefix=launch_prefix,
        client_check=client_check,
        max_launches=max_launches,
    )
    screen = console.stderr()
    report = use_case.verify(folder, how, lambda text: screen.print(text, markup=False), cancel)
    if output is opt.OutputFormat.json:
        console.show_document(report.model_dump_json(indent=2))
    else:
        for verification in report.workloads:
            console.show(verify_view(verification))
    raise typer.Exit(VERDICT_CODES[report.verdict])
