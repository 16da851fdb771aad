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
