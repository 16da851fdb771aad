"""One folder of evidence per trial: `trials/0007/` with the command, the configuration, the samples and the outcome.

The rename of `outcome.json` commits a trial. A folder without it belongs to a trial that was interrupted.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from advisor.domain.errors import BadInput
from advisor.domain.strict import explain
from advisor.domain.trial import TrialRecord
from advisor.domain.units import MIB_BYTES
from advisor.store.yaml_files import cannot_write, make_folder, read_text, write_atomic

TRIALS = "trials"
OUTCOME = "outcome.json"
MAX_OUTCOME_BYTES = 64 * MIB_BYTES  # evidence lines included


class TrialFolder:
    """`<run>/trials/<number>/`."""

    def __init__(self, run: Path, number: int) -> None:
        self.number, self.run = number, run
        self.path = run / TRIALS / f"{number:04d}"

    @property
    def is_committed(self) -> bool:
        """True once the outcome is on disk."""
        return (self.path / OUTCOME).exists()

    def begin(self) -> None:
        """Make the folder empty: what an interrupted attempt left is no evidence of the next one.

        Raises:
            BadInput: it cannot be written.
        """
        try:
            if self.path.exists() and not self.is_committed:
                shutil.rmtree(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        make_folder(self.path)

    def write_launch(self, argv: Sequence[str], config_text: str, config_name: str) -> None:
        """Keep the exact command line and configuration file of the launch."""
        write_atomic(self.path / "argv.json", json.dumps(list(argv), indent=1) + "\n")
        write_atomic(self.path / config_name, config_text)

    def write_samples(self, workload: str, samples: Mapping[str, ArrayLike]) -> None:
        """Keep per-request numbers of one workload, one array per quantity (its name ends in its unit)."""
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in samples.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(self.path / f"samples-{workload}.npz", buffer.getvalue())

    def file(self, name: str) -> str:
        """Where a process of the trial may write a file of its own."""
        return str(self.path.absolute() / name)

    def run_folder(self) -> str:
        """Folder of the whole run."""
        return str(self.run.absolute())

    def commit(self, record: TrialRecord) -> None:
        """Write the outcome; from here on the trial is never repeated.

        Raises:
            BadInput: it cannot be written.
        """
        make_folder(self.path)
        write_atomic(self.path / OUTCOME, record.model_dump_json(indent=1) + "\n")

    def read(self) -> TrialRecord | None:
        """The committed record, or None when there is none.

        Raises:
            BadInput: the outcome is damaged, or of another trial.
        """
        if not self.is_committed:
            return None
        path = self.path / OUTCOME
        try:
            record = TrialRecord.model_validate_json(read_text(path, MAX_OUTCOME_BYTES))
        except ValidationError as error:
            raise self._damaged(explain(error, TrialRecord)) from None
        if record.number != self.number:
            raise self._damaged(f"it is the outcome of trial {record.number}.")
        return record

    def _damaged(self, what: str) -> BadInput:
        return BadInput(
            f"{self.path / OUTCOME} is damaged: {what} Restore it from a copy, or remove the folder {self.path}: "
            "then the trial no longer counts."
        )


def committed(run: Path) -> list[TrialRecord]:
    """All committed trials of a run, in number order.

    Raises:
        BadInput: a damaged outcome.
    """
    folders = sorted(int(path.name) for path in (run / TRIALS).glob("[0-9]*") if path.name.isdigit())
    records = (TrialFolder(run, number).read() for number in folders)
    return [record for record in records if record is not None]


def has_trials(run: Path) -> bool:
    """True when at least one trial of this run is finished."""
    return any((run / TRIALS).glob(f"[0-9]*/{OUTCOME}"))
