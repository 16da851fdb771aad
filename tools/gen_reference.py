"""Write docs/reference/ from the code: the command line, the JSON documents with their schemas, the failures; and the
out-of-memory handbook beside it.

``python -m tools.gen_reference`` writes the pages; with ``--check`` it writes nothing and exits 1 if one differs.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("docs/reference")
GENERATED = "<!-- Written by `make reference` from the code; edits here are lost. -->\n"


def cli_page(app: Any) -> str:
    """The command line as Markdown, one section a command, from a Typer application."""
    import typer

    group: Any = typer.main.get_command(app)
    context = group.make_context("advisor", [], resilient_parsing=True)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    commands = {name: command for name, command in found.items() if not command.hidden}
    lines = [GENERATED, "# Command line", "", _text(group.help), "", *_parameter_table(group, context), ""]
    lines += ["| command | what it does |", "|---|---|"]
    for name, command in commands.items():
        lines.append(f"| [`advisor {name}`](#advisor-{name}) | {_cell(_first_paragraph(command.help))} |")
    for name, command in commands.items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        usage = " ".join(["advisor", name, *command.collect_usage_pieces(inner)])
        lines += ["", f"## advisor {name}", "", "```text", usage, "```", "", _text(command.help), ""]
        lines += _parameter_table(command, inner)
    return "\n".join(lines).rstrip() + "\n"


def _parameter_table(command: Any, context: Any) -> list[str]:
    records = [param.get_help_record(context) for param in command.get_params(context) if param.name != "help"]
    rows = [f"| `{_cell(record[0])}` | {_cell(record[1])} |" for record in records if record is not None]
    return ["| option | meaning |", "|---|---|", *rows] if rows else []


def _text(doc: str | None) -> str:
    return inspect.cleandoc(doc or "").replace("\f", "").replace("\b\n", "")


def _first_paragraph(doc: str | None) -> str:
    return _text(doc).split("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def json_page(documents: Mapping[str, type[BaseModel]]) -> str:
    """The JSON documents as Markdown: one table a document, and one for each part that it is built of."""
    lines = [GENERATED, "# JSON documents", ""]
    lines += ["Fields may be added within a `schema_version`; names and meanings stay. The complete schemas lie in"]
    lines += ["`schemas/`, one file a document."]
    parts: dict[str, dict[str, Any]] = {}
    for name, model in documents.items():
        schema = model.model_json_schema(mode="serialization")
        parts.update(schema.get("$defs", {}))
        lines += ["", f"## {name}", "", f"{_cell(_first_paragraph(schema.get('description')))}", ""]
        lines += [f"Schema: [schemas/{name}.schema.json](schemas/{name}.schema.json)", "", *_field_table(schema)]
    if parts:
        lines += ["", "## Parts"]
    for name in sorted(parts):
        fields = _field_table(parts[name]) if "properties" in parts[name] else [f"{_type(parts[name])}"]
        described = _cell(_first_paragraph(parts[name].get("description")))
        lines += ["", f"### {name}", *([""] if described else []), *([described] if described else []), "", *fields]
    return "\n".join(lines).rstrip() + "\n"


def _field_table(schema: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{name}` | {_type(field)} | {_cell(field.get('description', ''))} |"
        for name, field in schema.get("properties", {}).items()
    ]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def _type(field: dict[str, Any]) -> str:
    """JSON type of a field in words; parts are linked by name."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(choice) for choice in field[key]))
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if field.get("type") == "array":
        inner = field.get("items") or {}
        return f"list of {_type(inner)}" if inner else "list"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    return str(field.get("type", "any"))


def schema_files(documents: Mapping[str, type[BaseModel]]) -> dict[Path, str]:
    """Path and text of each document's JSON schema."""
    return {
        FOLDER / "schemas" / f"{name}.schema.json": json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                **model.model_json_schema(mode="serialization"),
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
        for name, model in documents.items()
    }


def pages() -> dict[Path, str]:
    """Every generated file of this checkout, by path relative to its root."""
    from advisor.cli.app import app
    from advisor.report.schemas import DOCUMENTS
    from tools.handbook import cases, failures, handbook

    return {
        FOLDER / "cli.md": cli_page(app),
        FOLDER / "json.md": json_page(DOCUMENTS),
        FOLDER / "failures.md": failures(),
        FOLDER.parent / "out-of-memory.md": handbook(cases(ROOT / "tests" / "data")),
        **schema_files(DOCUMENTS),
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` compare them."""
    wanted = pages()
    stale = sorted(path for path, text in wanted.items() if not _is(ROOT / path, text))
    left = sorted(
        path.relative_to(ROOT)
        for path in (ROOT / FOLDER / "schemas").glob("*.json")
        if path.relative_to(ROOT) not in wanted
    )
    if "--check" in arguments:
        for path in [*stale, *left]:
            print(f"{path} is not what the code says: run `make reference`", file=sys.stderr)
        print(f"reference: {len(wanted)} files, {len(stale) + len(left)} out of date")
        return 1 if stale or left else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(wanted[path], encoding="utf-8")
    for path in left:
        (ROOT / path).unlink()
    print(f"reference: {len(stale)} of {len(wanted)} files written, {len(left)} removed")
    return 0


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
