"""What a run is about, beside its trials: `study.json`.

It is written before the first launch, so that later studies can learn from a run that was interrupted too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.objective import Objective, Slo
from advisor.domain.strict import StrictModel, explain
from advisor.domain.study import Budget, SearchSpace
from advisor.domain.workload import Workload
from advisor.store.trial_folder import has_trials
from advisor.store.yaml_files import read_text, write_atomic

CARD = "study.json"


class Machine(StrictModel):
    """Where the launches of a run took place; null where it is not known."""

    gpus: tuple[str, ...] = Field(default=(), description="Names of the GPUs, as the driver has them")
    driver: str | None = Field(default=None, description="Version of the NVIDIA driver")
    cuda: str | None = Field(default=None, description="The newest CUDA that the driver runs")
    image: str | None = Field(default=None, description="Of the container, where there was one")
    image_digest: str | None = Field(default=None, description="`sha256:...`, as its registry has it")


class AsAsked(StrictModel):
    """How a run was asked for: what a report says of it, and what repeats it."""

    title: str
    gpu_title: str
    command: tuple[str, ...] = Field(description="`advisor tune ...` that asks the same again")
    advisor_version: str
    space: SearchSpace
    n_configs: int = Field(description="Distinct configurations of the space")
    max_seq_len: int = Field(description="Tokens of the longest request that every launch must be able to serve")
    budget: Budget
    sampler: str
    seed: int


class RunCard(StrictModel):
    """`results/<study>/<run>/study.json`."""

    schema_version: Literal[1] = 1
    study: str
    source: Source
    engine_label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    deployment: Deployment
    workloads: tuple[Workload, ...] = Field(min_length=1)
    objective: Objective
    slo: Slo
    machine: Machine | None = Field(default=None, description="Null on the twin, which needs none")
    as_asked: AsAsked | None = Field(default=None, description="Null in runs of an older advisor")


def write_card(run: Path, card: RunCard) -> None:
    """Keep the card of a run, unless it has one already.

    Raises:
        BadInput: it cannot be written.
    """
    if not (run / CARD).exists():
        write_atomic(run / CARD, card.model_dump_json(indent=1) + "\n")


def read_card(run: Path) -> RunCard:
    """The card of a run.

    Raises:
        BadInput: there is none, as in runs of an older advisor, or it is not one of this version.
    """
    try:
        return RunCard.model_validate_json(read_text(run / CARD))
    except ValidationError as error:
        raise BadInput(f"{run / CARD}: {explain(error, RunCard)}") from None


def newest_runs(root: Path, most: int) -> list[Path]:
    """Runs with finished trials below `results/`, those that changed last first, and no more than `most`."""
    begun = sorted(_runs(root), key=lambda run: (-_changed_ns(run), str(run)))[:most]
    return [run for run in begun if has_trials(run)]


def _runs(root: Path) -> Iterator[Path]:
    """`<study>/<run>` folders that have trials; what cannot be read is not there."""
    for study in _folders(root):
        yield from (run for run in _folders(study) if (run / "trials").is_dir())


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _changed_ns(run: Path) -> int:
    try:
        return (run / "trials").stat().st_mtime_ns
    except OSError:
        return 0
