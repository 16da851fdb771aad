"""`advisor export`: a YAML or a finished study's winner, for another TensorRT-LLM release."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat

if TYPE_CHECKING:
    from advisor.app.exporting import Export


@guarded
def export(
    file: Annotated[Path, typer.Argument(help="An extra-llm-api-options YAML, or a results folder with result.json.")],
    engine_version: Annotated[str, typer.Option(help="TensorRT-LLM release to write for, such as 1.2.0.")],
    from_version: Annotated[
        str | None, typer.Option(help="Release that the YAML was written for. [default: told by its keys]")
    ] = None,
    output: Output = OutputFormat.text,
) -> None:
    """Name the dialect of a YAML, migrate it to a release, and list every key that does not stay as it was."""
    from advisor.app import exporting
    from advisor.report import console

    exported = exporting.export(file, engine_version, from_version)
    if output is OutputFormat.json:
        console.show_document(exported.model_dump_json(indent=2))
        return
    for line in _notes(exported):
        typer.echo(line, err=True)
    console.show_document(exported.yaml.removesuffix("\n"))


def _notes(exported: Export) -> list[str]:
    """What happened, for a person; the YAML alone is on stdout."""
    from advisor.app.exporting import shell_line

    lines = [*exported.warnings]
    identity = exported.identity
    if identity is not None:
        accepting, ignoring = ", ".join(identity.accepted_as_is), ", ".join(identity.starts_with)
        lines.append(f"{exported.source}: obeyed as it is by {accepting or 'no known release'}.")
        if ignoring:
            lines.append(f"  silently obeyed in part by {ignoring}")
        lines += [f"  {key.path}: known to {', '.join(key.known_to) or 'no release'}" for key in identity.telling]
        lines.append(f"Read as written for {exported.from_release}, spelled for {exported.engine_version}:")
        lines += [
            f"  {change.kind:<9} {change.path}{f' -> {change.to}' if change.to not in (None, change.path) else ''}: "
            f"{change.why}"
            for change in exported.changes
        ]
        if not exported.changes:
            lines.append("  every key stays as it is")
    lines += [f"Note: {note}" for note in exported.notes]
    if exported.upstream is not None:
        verdict = "; ".join(exported.upstream.errors) or exported.upstream.reason or "accepts it"
        lines.append(f"The installed tensorrt_llm {exported.upstream.version}: {verdict}.")
    if exported.command_line:
        lines.append(f"Serve with: {shell_line(exported.environment, exported.command_line)}")
    elif exported.flags:
        lines.append(f"Add to the command line: {shlex.join(exported.flags)}")
    return lines
