"""`advisor engines`: what can be launched here."""

from __future__ import annotations

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat


@guarded
def engines(output: Output = OutputFormat.text) -> None:
    """List the engines that are installed, and whether they simulate or measure."""
    import json

    from advisor.app.engines import available
    from advisor.report import console, listings

    entries = available()
    if output is OutputFormat.json:
        console.show_document(json.dumps([entry.model_dump() for entry in entries], indent=2))
    else:
        console.show(listings.engine_table(entries))
