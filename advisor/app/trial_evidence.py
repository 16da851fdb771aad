"""What a trial's folder holds beside its outcome: the command, the file, the end of the log, samples, a diagnosis."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.app.doctoring import Examiner
from advisor.app.log_source import LogSource, opened
from advisor.app.run_reading import RunRead, readable
from advisor.domain.errors import BadInput
from advisor.domain.trial import TrialRecord
from advisor.domain.units import MIB_BYTES
from advisor.engines.spoken import ENGINES_SPOKEN, spoken_by
from advisor.memory.diagnosis import Diagnosis
from advisor.metrics.definitions import tpot, ttft
from advisor.store.trial_folder import TrialFolder
from advisor.store.yaml_files import read_text

LOGS = ("server.log", "server.log.gz")
TAIL_BYTES, TAIL_LINES = 1 << 16, 12
LINE_CHARACTERS = 400
MOST_LOG_BYTES = 256 * MIB_BYTES  # of a compressed log, unpacked, before its end is given up
MOST_SAMPLE_BYTES = 256 * MIB_BYTES
MOST_DIAGNOSES = 20  # logs of failed launches that are read in full

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrialEvidence:
    """Of one trial; empty where the folder does not have it."""

    argv: tuple[str, ...] = ()
    config_name: str = ""
    config_text: str = ""
    log_tail: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None


def read_evidence(run: RunRead) -> dict[int, TrialEvidence]:
    """Evidence of every trial by its number; the newest failed launches are diagnosed from their logs."""
    failed = [record.number for record in run.records if record.launched and not record.served]
    diagnosed = set(failed[-MOST_DIAGNOSES:])
    return {record.number: _evidence(run, record, diagnose=record.number in diagnosed) for record in run.records}


def _evidence(run: RunRead, record: TrialRecord, *, diagnose: bool) -> TrialEvidence:
    folder = TrialFolder(run.folder, record.number).path
    fixed = run.card.deployment
    name = spoken_by(fixed).config_name if fixed.engine in ENGINES_SPOKEN else ""
    log = next((path for path in (folder / each for each in LOGS) if path.is_file()), None)
    return TrialEvidence(
        argv=_argv(folder / "argv.json"),
        config_name=name,
        config_text=(readable(lambda: read_text(folder / name)) or "") if name else "",
        log_tail=() if log is None else _tail(log),
        diagnosis=_diagnosis(log) if diagnose and log is not None else None,
    )


def _argv(path: Path) -> tuple[str, ...]:
    try:
        words = json.loads(readable(lambda: read_text(path)) or "[]")
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, words)) if isinstance(words, list) else ()


def _tail(log: Path) -> tuple[str, ...]:
    """The last lines of a log, each cut to its beginning."""
    end = b""
    try:
        with opened(str(log)) as raw:
            if log.suffix != ".gz":
                raw.seek(max(0, os.fstat(raw.fileno()).st_size - TAIL_BYTES))
            for chunk in _at_most(LogSource(raw, str(log)).chunks(), MOST_LOG_BYTES):
                end = (end + chunk)[-TAIL_BYTES:]
    except BadInput:
        return ()
    lines = end.decode("utf-8", "replace").rstrip().splitlines()
    return tuple(line[:LINE_CHARACTERS] for line in lines[-TAIL_LINES:])


def _at_most(chunks: Iterator[bytes], n_bytes: int) -> Iterator[bytes]:
    seen = 0
    for chunk in chunks:
        yield chunk
        seen += len(chunk)
        if seen > n_bytes:
            return


def _diagnosis(log: Path) -> Diagnosis | None:
    try:
        return Examiner(log=str(log)).examine(str(log))
    except BadInput:
        return None


def request_latencies_ms(run: RunRead, trials: Sequence[int], workload: str) -> dict[str, Array]:
    """TTFT and TPOT of every request that some trials served of a workload, and the spread of ITL, ascending.

    What was not kept is left out; of ITL, runs of earlier versions kept nothing.

    Args:
        run: The run.
        trials: Their numbers.
        workload: Short name, at the load that was served.
    """
    found: dict[str, list[Array]] = {"ttft": [], "tpot": [], "itl": []}
    for number in trials:
        for samples in _samples(TrialFolder(run.folder, number).path, workload):
            for name, values in _latencies(samples).items():
                found[name].append(values)
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items() if parts}


def _samples(folder: Path, workload: str) -> Iterator[Mapping[str, Array]]:
    """Arrays of every benchmark of a workload in a trial's folder."""
    stem = f"samples-{workload}"
    for path in sorted(folder.glob("samples-*.npz")):
        if path.stem == stem or path.stem.startswith(f"{stem}-run"):
            try:
                yield _arrays(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue


def _arrays(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_SAMPLE_BYTES:
            raise ValueError(f"{path} is too large to be the samples of a benchmark.")
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: np.asarray(archive[name], np.float64).ravel() for name in archive.files}


def _latencies(samples: Mapping[str, Array]) -> dict[str, Array]:
    """Of the requests that were answered, and of all gaps."""
    sent, first, done, n_output = (samples[name] for name in ("sent_ms", "first_token_ms", "done_ms", "n_output"))
    n_tokens = np.nan_to_num(n_output).astype(np.int64)
    found = {"ttft": ttft(sent, first), "tpot": tpot(first, done, n_tokens)}
    if "itl_ms" in samples:
        found["itl"] = samples["itl_ms"]
    return {name: values[np.isfinite(values)] for name, values in found.items()}
