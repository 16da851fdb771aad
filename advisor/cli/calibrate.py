"""`advisor calibrate`: the twin's constants fitted to what studies measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat


@guarded
def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished or running studies, results/STUDY/RUN, or results/STUDY for all of its runs; "
            "of one engine, release and GPU."
        ),
    ],
    save: Annotated[
        Path | None,
        typer.Option(
            help="File for the constants. [default: calibration/ENGINE-RELEASE-GPU.json below the results folder]"
        ),
    ] = None,
    output: Output = OutputFormat.text,
) -> None:
    """Fit the twin's constants to the launches of studies, and keep them for this engine, release and GPU.

    Later `tune`, `plan` and `estimate` of the same engine, release and GPU go by them and say so. What was simulated
    calibrates only the same world of the twin.
    """
    from rich.text import Text

    from advisor.app.calibrate import calibrate as fitted_to
    from advisor.report import console
    from advisor.report.calibration_view import calibration_view
    from advisor.store.calibrations import calibration_path, write_calibration

    found = fitted_to(runs)
    path = save or calibration_path(
        Path(found.runs[0]).absolute().parent.parent, found.deployments[0], found.source, found.engine_label
    )
    write_calibration(path, found)
    if output is OutputFormat.json:
        console.show_document(found.model_dump_json(indent=2))
    else:
        console.show(calibration_view(found), "")
        console.show_lines(Text(f"Saved as {path}."))
