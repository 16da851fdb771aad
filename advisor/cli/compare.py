"""`advisor compare`: two results, and which of their differences are real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat


@guarded
def compare(
    a: Annotated[Path, typer.Argument(help="results/STUDY/RUN, one workload's folder in it, or a result.json.")],
    b: Annotated[Path, typer.Argument(help="The same of another study, release or engine.")],
    output: Output = OutputFormat.text,
) -> None:
    """Say which differences between two results are real and which are noise.

    Per workload that both have: settings, keys of the configuration file and environment that differ, then every metric
    with the interval of its change. Measured against simulated is shown, and never as like with like.
    """
    from advisor.app.compare import compare as compared
    from advisor.report import console
    from advisor.report.compare_view import compare_view

    found = compared(a, b)
    if output is OutputFormat.json:
        console.show_document(found.model_dump_json(indent=2))
    else:
        console.show(compare_view(found))
