"""`advisor dashboard`: Optuna's own view of a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.errors import guarded


@guarded
def dashboard(
    place: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, or one above it: then the run that changed last.")
    ] = Path("results"),
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL that the study was run with, instead of a folder.")
    ] = None,
    port: Annotated[
        int, typer.Option(help="On the loopback address; 0 takes any that is free.", min=0, max=65535)
    ] = opt.DASHBOARD_PORT,
) -> None:
    """Open optuna-dashboard on the ledger of a study, running or finished.

    It shows what the dashboard alone does not know: which trials are feasible, their memory, and the reasons. It only
    reads, so that nothing in the browser can change a ledger. Ctrl-C ends it.
    """
    from advisor.app.dashboard import dashboard_server, find_journal
    from advisor.store.ledger_view import view_of

    journal = find_journal(place) if storage is None else None
    with dashboard_server(view_of(journal, storage), port) as server:
        typer.echo(f"Dashboard of {journal or 'the storage'}: http://127.0.0.1:{server.server_port}/", err=True)
        server.serve_forever()
