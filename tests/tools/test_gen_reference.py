"""The reference pages say what the code says."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from pydantic import BaseModel, Field

from tools.gen_reference import cli_page, json_page, schema_files


class Part(BaseModel):
    """A part of a document."""

    mean: float = Field(description="Mean | of all")


class Document(BaseModel):
    """A document."""

    status: Literal["done", "failed"]
    part: Part | None = None
    by_name: dict[str, list[Part]] = {}


def application() -> typer.Typer:
    """An application with two visible commands and a hidden one."""
    app = typer.Typer(help="Finds settings.", add_completion=False)

    @app.command()
    def tune(isl: Annotated[int, typer.Option(help="Prompt tokens | per request.")], dry_run: bool = False) -> None:
        """Run a study.

        At length.
        """

    @app.command("check-env")
    def check_env(log: str = "x") -> None:
        """Look around."""

    @app.command(hidden=True)
    def secret() -> None:
        """Never shown."""

    return app


def test_cli_page_lists_commands_and_options() -> None:
    page = cli_page(application())
    assert "| [`advisor tune`](#advisor-tune) | Run a study. |" in page
    assert "## advisor check-env" in page
    assert "Prompt tokens \\| per request. [required]" in page
    assert "`--dry-run" in page
    assert "At length." in page
    assert "ecret" not in page


def test_json_page_names_every_field_and_part() -> None:
    page = json_page({"result": Document})
    assert '| `status` | `"done"`, `"failed"` |  |' in page
    assert "| `part` | [Part](#part) or null |  |" in page
    assert "| `by_name` | map of list of [Part](#part) |  |" in page
    assert "| `mean` | number | Mean \\| of all |" in page


def test_schema_of_each_document_is_a_file() -> None:
    ((path, text),) = schema_files({"result": Document}).items()
    assert path.name == "result.schema.json"
    assert '"by_name"' in text
