"""`advisor export`: a YAML of TensorRT-LLM, or the winner of a finished study, as another release wants it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from advisor.app.manifest import MANIFEST, RESULT_NAME, changed_files, read_manifest
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import ModelT, StrictModel, changed, parse
from advisor.domain.units import MIB_BYTES
from advisor.domain.workload import Workload
from advisor.engines.dialect import EngineDialect
from advisor.engines.spoken import engine_of, spoken, spoken_by
from advisor.engines.trtllm.dialects import Dialect, dialect, dialects
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.identify import Identity, identify, remarks, written_for
from advisor.engines.trtllm.migrate import Change, migrate
from advisor.engines.trtllm.precedence import switched
from advisor.engines.trtllm.upstream import UpstreamJudge, UpstreamVerdict
from advisor.engines.trtllm.yaml_text import yaml_text
from advisor.engines.words import as_mapping, flag_words
from advisor.search.shapes import Shape
from advisor.store.yaml_files import load_yaml, read_text


class Closest(StrictModel):
    """Which tuned shape stands in for the one asked for."""

    asked: Shape
    workload_name: str
    folder: str
    octaves: float = Field(ge=0, description="Distance in factors of two of ISL, OSL and, if asked, concurrency")
    n_shapes: int = Field(ge=1, description="Tuned shapes that were looked at")


class Export(StrictModel):
    """`advisor export --output json`."""

    schema_version: Literal[1] = 1
    source: str = Field(description="File or results folder that was read")
    engine_version: str = Field(description="As asked for")
    release: str = Field(description="The known release whose words are used")
    from_release: str = Field(description="The known release whose words were read")
    warnings: tuple[str, ...] = Field(description="What is not known about either release")
    identity: Identity | None = Field(description="The dialect of the file; null for a results folder")
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    document: dict[str, Any] = Field(description="The new YAML as data")
    yaml: str = Field(description="The new YAML as text, with comments")
    flags: tuple[str, ...] = Field(description="Words that the command line needs besides the YAML")
    command_line: tuple[str, ...] = Field(description="All of it where the deployment is known, else empty")
    max_seq_len: int | None = Field(default=None, description="That it serves, tokens; null for a file")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables without which the result is another one"
    )
    upstream: UpstreamVerdict | None = Field(
        description="What the installed tensorrt_llm says, if it is of that release"
    )
    closest: Closest | None = Field(default=None, description="Of `--closest` only")


class _Winner(StrictModel):
    model_config = ConfigDict(extra="ignore")
    serving_config: ServingConfig


class Found(StrictModel):
    """What is needed of a `result.json`, whichever version of advisor wrote it."""

    model_config = ConfigDict(extra="ignore")
    source: Source
    label: str
    study: str
    engine_version: str
    deployment: Deployment
    workload: Workload
    workload_name: str
    best: _Winner | None


class _Workload(StrictModel):
    model_config = ConfigDict(extra="ignore")
    workload: Workload


class _Summary(StrictModel):
    model_config = ConfigDict(extra="ignore")
    results: tuple[_Workload, ...]


def export(path: Path, engine_version: str, from_version: str | None = None) -> Export:
    """Spell a YAML file of TensorRT-LLM, or the winner in a results folder, for a release of its engine.

    Raises:
        BadInput: no such file, not plain YAML, a release that is too old, or a winner that it cannot express.
    """
    if path.is_dir() or path.name == RESULT_NAME:
        if from_version is not None:
            raise BadInput("--from-version is for YAML files; a result says itself which release it was found for.")
        folder = path if path.is_dir() else path.parent
        result = read_found(folder)
        exported = _result(folder, result, spoken(result.deployment.engine, engine_version), engine_version)
        if result.deployment.engine != "trtllm":
            return exported
        row = dialect(engine_version)
        exported = changed(exported, notes=(*exported.notes, *remarks(row, flatten(exported.document))))
    else:
        row = dialect(engine_version)
        exported = _file(path, engine_version, row, from_version)
    return changed(exported, upstream=_judged(exported, row))


def shell_line(environment: Mapping[str, str], argv: Sequence[str]) -> str:
    """A command with its variables, as a shell wants it."""
    assigned = [f"{name}={value}" for name, value in environment.items()]
    return shlex.join([*(("env", *assigned) if assigned else ()), *argv])


def _file(path: Path, engine_version: str, spoken: Dialect, from_version: str | None) -> Export:
    document = load_yaml(read_text(path), str(path))
    if engine_of(document) == "vllm":
        raise BadInput(
            f"{path} is a configuration file of vLLM; only those of TensorRT-LLM are moved between releases. Give the "
            f"folder with its result.json, or see what its keys do: advisor explain {path}"
        )
    leaves = flatten(document)
    identity = identify(leaves)
    old = dialect(from_version) if from_version is not None else written_for(identity, spoken)
    migration = migrate(leaves, old, spoken)
    notes = list(migration.notes)
    if from_version is None:
        notes += _doubts(identity, leaves, old)
    notes += remarks(spoken, flatten(migration.document))
    flags = flag_words(migration.flags)
    head = [f"Spelled by advisor for TensorRT-LLM {engine_version}, from {path.name} ({old.release})."]
    if flags:
        head.append(f"Not in this file, type it: {shlex.join(flags)}")
    head += [
        f"Left out, {change.kind}: {change.path}: {_short(change.old_value)}. {change.why}"
        for change in migration.changes
        if change.to is None
    ]
    comments = {change.to: _comment(change) for change in migration.changes if change.to is not None}
    return Export(
        source=str(path),
        engine_version=engine_version,
        release=spoken.release,
        from_release=old.release,
        warnings=tuple(each for each in (spoken.warning, from_version and old.warning) if each),
        identity=identity,
        changes=migration.changes,
        notes=tuple(notes),
        document=migration.document,
        yaml=yaml_text(migration.document, comments, head),
        flags=flags,
        command_line=(),
        upstream=None,
    )


def _doubts(identity: Identity, leaves: Mapping[str, Any], old: Dialect) -> list[str]:
    """What would be different, had the file been written for another release that fits as well."""
    fitting = [row for row in dialects() if row.release in identity.nearest]
    others = [row.release for row in fitting if row.graphs_by_default != old.graphs_by_default]
    if not others or switched("cuda_graph_config", leaves) is not None:
        return []
    return [
        f"The file does not mention CUDA graphs, which are {'on' if old.graphs_by_default else 'off'} by default in "
        f"{old.release}, for which it was taken, and the other way round in {', '.join(others)}: name the release it "
        "was written for with --from-version."
    ]


def _comment(change: Change) -> str:
    where = "" if change.kind in ("added", "unchecked", "obeyed") else f" from {change.path}"
    if change.kind == "changed":
        where = f" from {_short(change.old_value)}"
    return f"{change.kind}{where}: {change.why}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _result(folder: Path, result: Found, known: EngineDialect, engine_version: str) -> Export:
    """The winner of one workload, for another release.

    Raises:
        BadInput: no winner, or one that the release cannot express.
    """
    if result.best is None:
        raise BadInput(f"{folder / RESULT_NAME}: this study found no configuration that serves {result.workload_name}.")
    summary = folder.parent / "summary.json"
    workloads = {result.workload}
    if summary.exists():
        workloads |= {each.workload for each in read_json(_Summary, summary).results}
    old, config = spoken_by(result.deployment), result.best.serving_config
    deployment = changed(result.deployment, engine_version=engine_version)
    known.check_deployment(deployment)
    max_seq_len = deployment.seq_len(workloads)
    found = known.violations(deployment, config, [result.workload], max_seq_len)
    errors = [each.message for each in found if each.severity == "error"]
    if errors:
        raise BadInput(f"The winner of {folder} cannot be served by {known.release}. {' '.join(errors)}")
    entries = known.entries(deployment, config, max_seq_len)
    argv = known.argv(
        deployment, config, max_seq_len, host="127.0.0.1", port=8000, config_path=Path(known.config_name).name
    )
    notes = [each.message for each in found] + list(known.adjustments(deployment, config))
    notes += known.notes(config, max_seq_len)
    if known.release != old.release:
        notes.append(
            f"Found for {known.title} {old.release}: measure it again on {engine_version} before you rely on it."
        )
    environment = known.environment(deployment, config)
    head = [
        f"Tuned by advisor: {result.label}.",
        *(["No GPU was used: measure it before you rely on it."] if result.source != "measured" else []),
        f"Study {result.study}, workload {result.workload_name}, model {deployment.model}, found for {known.title} "
        f"{result.engine_version}, spelled for {engine_version}.",
        f"Serve with: {shell_line(environment, argv)}",
    ]
    document = as_mapping(entries)
    return Export(
        source=str(folder),
        engine_version=engine_version,
        release=known.release,
        from_release=old.release,
        warnings=tuple(each for each in (known.warning, _edited(folder)) if each),
        identity=None,
        changes=(),
        notes=tuple(notes),
        document=document,
        yaml=yaml_text(document, {".".join(entry.path): entry.note for entry in entries if entry.note}, head),
        flags=argv[2:],
        command_line=argv,
        max_seq_len=max_seq_len,
        environment=environment,
        upstream=None,
    )


def _edited(folder: Path) -> str | None:
    """What is no longer as its manifest has it, in a sentence."""
    manifest = read_manifest(folder)
    found = changed_files(folder, manifest) if manifest is not None else {}
    if not found:
        return None
    said = ", ".join(f"{name} ({how})" for name, how in found.items())
    return f"Not as {folder / MANIFEST} has it: {said}."


def read_found(folder: Path) -> Found:
    """The result in a workload's folder.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    return read_json(Found, folder / RESULT_NAME)


def read_json(model: type[ModelT], path: Path) -> ModelT:
    """A document that advisor wrote.

    Raises:
        BadInput: there is none, it is damaged, or of another schema than this version reads.
    """
    try:
        data = json.loads(read_text(path, max_bytes=64 * MIB_BYTES))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds no result.")
    _check_schema(model, data, path)
    return parse(model, data, str(path))


def _check_schema(model: type[StrictModel], data: Mapping[str, Any], path: Path) -> None:
    known = model.model_fields.get("schema_version")
    if known is not None and data.get("schema_version", known.default) != known.default:
        raise BadInput(
            f"{path} has schema_version {data['schema_version']!r}; this advisor reads {known.default}. Read it "
            "with the advisor that wrote it, or run the study again."
        )


def _judged(exported: Export, spoken: Dialect) -> UpstreamVerdict | None:
    """The verdict of the installed tensorrt_llm, if it is of the release that was asked for."""
    with UpstreamJudge() as judge:
        verdict = judge.verdict(exported.command_line, exported.document)
    try:
        same = verdict.version is not None and dialect(verdict.version).release == spoken.release
    except BadInput:
        return None
    return verdict if same else None
