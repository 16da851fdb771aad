"""Calibrations on disk: `results/calibration/<engine>-<release>-<gpu>.json`."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from advisor.domain.calibration import Calibration
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.strict import explain
from advisor.store.yaml_files import make_folder, read_text, write_atomic

FOLDER = "calibration"


def calibration_path(root: Path, deployment: Deployment, source: Source, engine_label: str) -> Path:
    """Where the calibration of an engine, release and GPU lies below a results folder; each world has its own."""
    parts = [deployment.engine, deployment.engine_version, deployment.gpu]
    parts += [] if source == "measured" else [engine_label]
    return root / FOLDER / f"{'-'.join(re.sub(r'[^A-Za-z0-9._]+', '-', part).strip('-') for part in parts)}.json"


def write_calibration(path: Path, found: Calibration) -> None:
    """Write it, in one step.

    Raises:
        BadInput: it cannot be written.
    """
    make_folder(path.parent)
    write_atomic(path, found.model_dump_json(indent=1) + "\n")


def read_calibration(path: Path) -> Calibration:
    """Read it.

    Raises:
        BadInput: there is none, or it is not one of this version.
    """
    try:
        return Calibration.model_validate_json(read_text(path))
    except ValidationError as error:
        raise BadInput(
            f"{path} is no calibration of this version: {explain(error, Calibration)} Fit it again with "
            "`advisor calibrate`, or remove it."
        ) from None


def calibration_below(root: Path, deployment: Deployment, source: Source, engine_label: str) -> Calibration | None:
    """The calibration of an engine, release and GPU below a results folder, None where there is none.

    Raises:
        BadInput: it is damaged, or about something else.
    """
    path = calibration_path(root, deployment, source, engine_label)
    if not path.exists():
        return None
    found = read_calibration(path)
    if not (found.is_about(deployment) and found.is_of(source, engine_label)):
        raise BadInput(
            f"{path} is about {found.engine} {found.engine_version} on {found.gpu}, {found.engine_label}: not what its "
            "name says. Move it away, or leave it out with --no-calibration."
        )
    return found
