"""`MANIFEST.json` of a bundle: what it was made of and by whom, and the checksum of every file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from advisor.app.results import Result
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.outcome import OutOfMemory
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, explain
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.units import MIB_BYTES
from advisor.store.run_card import Machine
from advisor.store.yaml_files import read_text

MANIFEST = "MANIFEST.json"
RESULT_NAME = "result.json"


class Tried(StrictModel):
    """One trial of the search, in the order of launching."""

    number: int
    role: Role
    origin: str
    source: Source
    seed: int
    settings: dict[str, OptionValue]
    outcome: str = Field(description="`measured`, `simulated`, or the kind of another ending: out_of_memory ...")
    said: str = Field(description="The outcome in one clause")
    short_gib: float | None = Field(default=None, description="GiB missing on the worst GPU, where memory ran out")
    objective: float | None = Field(default=None, description="Under the workload of the bundle; null if not measured")
    output_tok_per_s_per_gpu: float | None = None
    n_attempts: int
    duration_s: float = Field(description="Launch and load; virtual on the twin")


class FileSum(StrictModel):
    """A file of the bundle."""

    name: str = Field(description="Relative to the manifest")
    sha256: str
    size_bytes: int = Field(ge=0)

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name} is outside its folder")
        return name


class Manifest(StrictModel):
    """`MANIFEST.json`: of one workload's folder."""

    schema_version: Literal[1] = 1
    date: str
    source: Source
    label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    study: str
    run: str
    workload: str
    advisor_version: str
    engine: str
    engine_version: str
    gpu: str = Field(description="GPU system that the configuration is for")
    n_gpus: int
    machine: Machine | None = Field(description="Where it was measured; null on the twin and for runs that do not say")
    image: str | None = Field(description="What the container files start; null where there is none")
    seed: int
    sampler: str
    not_covered: tuple[str, ...] = Field(description="What the files leave to their reader")
    history: tuple[Tried, ...]
    files: tuple[FileSum, ...]


def tried(records: Sequence[TrialRecord], result: Result) -> tuple[Tried, ...]:
    """The history of the search, as one workload's bundle tells it."""
    return tuple(_tried(record, result) for record in records)


def _tried(record: TrialRecord, result: Result) -> Tried:
    under = record.workload(result.workload_name)
    metrics = None if under is None else under.metrics
    return Tried(
        number=record.number,
        role=record.role,
        origin=record.origin,
        source=record.source,
        seed=record.seed,
        settings=record.config.flat(),
        outcome=record.source if record.measured else record.outcome.kind,
        said=record.ending,
        short_gib=record.outcome.short_gib if isinstance(record.outcome, OutOfMemory) else None,
        objective=None if metrics is None else result.objective.value(metrics),
        output_tok_per_s_per_gpu=None if metrics is None else metrics.output_tok_per_s_per_gpu,
        n_attempts=record.n_attempts,
        duration_s=record.duration_s,
    )


def sums(texts: Mapping[str, str]) -> tuple[FileSum, ...]:
    """The checksums of files by their names."""
    return tuple(_sum(name, text.encode()) for name, text in sorted(texts.items()))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a bundle; None in folders of an older advisor.

    Raises:
        BadInput: it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(read_text(path, max_bytes=64 * MIB_BYTES))
    except ValidationError as error:
        raise BadInput(f"{path}: {explain(error, Manifest)}") from None


def changed_files(folder: Path, manifest: Manifest) -> dict[str, Literal["missing", "changed"]]:
    """Files that are no longer as the manifest has them."""
    found: dict[str, Literal["missing", "changed"]] = {}
    for each in manifest.files:
        try:
            data = (folder / each.name).read_bytes()
        except OSError:
            found[each.name] = "missing"
            continue
        if _sum(each.name, data) != each:
            found[each.name] = "changed"
    return found


def _sum(name: str, data: bytes) -> FileSum:
    return FileSum(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
