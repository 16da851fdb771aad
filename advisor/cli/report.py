"""`advisor report`: the page and the pictures of a run, from its folder alone."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.errors import guarded


class ReportFormat(str, enum.Enum):
    """What is written."""

    html = "html"
    png = "png"
    svg = "svg"


@guarded
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder that `advisor tune` wrote, finished or not.")],
    format_: Annotated[
        ReportFormat,
        typer.Option("--format", help="html: the page. png, svg: its main charts, for documents.", show_default=True),
    ] = ReportFormat.html,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. [default: the run folder]", show_default=False)
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page on this machine instead, anew as trials end; writes nothing.")
    ] = False,
    port: opt.Port = None,
) -> None:
    """Write the report of a run again, from its folder alone: nothing is launched or measured.

    The page is one file that needs no network; charts.json beside it holds the numbers of every chart. Pictures need
    kaleido (pip install 'trtllm-advisor[images]') and a Chrome or Chromium.
    """
    from advisor.app.live import serve_run
    from advisor.report.visible import visible
    from advisor.report.write_report import page_of, write_report, write_run_pictures

    if serve:
        serve_run(folder, lambda: page_of(folder), opt.LIVE_PORT if port is None else port, _say)
    where = out or folder
    if format_ is ReportFormat.html:
        written = write_report(folder, where)
        notices, paths = written.data.notices, [written.page, written.charts]
    else:
        notices, paths = write_run_pictures(folder, where, format_.value)
    for notice in notices:
        typer.echo(f"advisor: {visible(notice)}", err=True)
    for path in paths:
        typer.echo(path)


def _say(text: str) -> None:
    typer.echo(text, err=True)
