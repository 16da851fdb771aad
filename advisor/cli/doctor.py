"""`advisor doctor`: what a crashed server's log says, and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.errors import guarded


@guarded
def doctor(
    log: Annotated[str, typer.Argument(help="The server's log: a file, a .gz, or - for standard input.")],
    config: Annotated[
        Path | None, typer.Option(help="The server's YAML file: remedies then say from what to what.")
    ] = None,
    gpu: opt.Gpu = None,
    engine_version: opt.EngineVersion = None,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Explain a crash: what failed and where, the GiB that were missing, and which setting to change by how much."""
    from advisor.app.doctoring import doctor as examine
    from advisor.report import console, doctor_view

    diagnosis = examine(log, config=config, gpu=gpu, engine_version=engine_version)
    if output is opt.OutputFormat.json:
        console.show_document(doctor_view.diagnosis_json(diagnosis))
    else:
        console.show_lines(*doctor_view.diagnosis_lines(diagnosis))
