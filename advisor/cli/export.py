"""`advisor export`: a YAML or a finished study's winner, for another release of its engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advisor.cli.errors import guarded
from advisor.cli.options import Output, OutputFormat

if TYPE_CHECKING:
    from advisor.app.exporting import Export

RESULTS = Path("results")  # where `advisor tune` writes


@guarded
def export(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="An extra-llm-api-options YAML, or a folder with result.json; with --closest a folder of results.",
        ),
    ] = None,
    engine_version: Annotated[
        str | None,
        typer.Option(help="Release of the engine to write for, such as 1.2.0. [default with --closest: the result's]"),
    ] = None,
    from_version: Annotated[
        str | None, typer.Option(help="Release that the YAML was written for. [default: told by its keys]")
    ] = None,
    closest: Annotated[
        str | None, typer.Option(help="Export the tuned shape nearest to this ISL/OSL, such as 3000/700.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="With --closest: requests in flight. [default: any]", min=1)
    ] = None,
    output: Output = OutputFormat.text,
) -> None:
    """Name the dialect of a YAML, migrate it to a release, and list every key that does not stay as it was.

    With --closest: of all workloads that were tuned, write the YAML of the one nearest in ISL, OSL and concurrency.
    """
    from advisor.report import console

    exported = _exported(file, engine_version, from_version, closest, concurrency)
    if output is OutputFormat.json:
        console.show_document(exported.model_dump_json(indent=2))
        return
    for line in _notes(exported):
        typer.echo(line, err=True)
    console.show_document(exported.yaml.removesuffix("\n"))


def _exported(
    file: Path | None,
    engine_version: str | None,
    from_version: str | None,
    closest: str | None,
    concurrency: int | None,
) -> Export:
    from advisor.app import exporting
    from advisor.app.closest import export_closest
    from advisor.domain.errors import BadInput
    from advisor.search.shapes import parse_shape

    if closest is not None:
        if from_version is not None:
            raise BadInput("--from-version is for YAML files; a result says itself which release it was found for.")
        return export_closest(file or RESULTS, parse_shape(closest, concurrency), engine_version)
    if concurrency is not None:
        raise BadInput("--concurrency belongs to --closest: without it there is nothing to choose from.")
    if file is None or engine_version is None:
        raise BadInput(
            "Say what to export and for which release, as in `advisor export FILE --engine-version 1.2.0`, or which "
            "shape, as in `advisor export --closest 3000/700`."
        )
    return exporting.export(file, engine_version, from_version)


def _notes(exported: Export) -> list[str]:
    """What happened, for a person; the YAML alone is on stdout."""
    from advisor.app.exporting import shell_line

    lines = []
    found = exported.closest
    if found is not None:
        lines.append(
            f"Closest of {found.n_shapes} tuned shapes: {found.workload_name}, {found.octaves:.2f} octaves away, "
            f"in {found.folder}."
        )
    lines += exported.warnings
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
