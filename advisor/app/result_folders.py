"""Results as they lie on disk: which folders hold one, and whether they still say what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.app.exporting import read_json
from advisor.app.manifest import MANIFEST, RESULT_NAME, changed_files, read_manifest
from advisor.app.results import Result
from advisor.domain.errors import BadInput
from advisor.engines.dialect import EngineDialect
from advisor.engines.spoken import spoken_by
from advisor.engines.trtllm.documents import flatten
from advisor.engines.words import as_mapping
from advisor.store.run_card import CARD, read_card
from advisor.store.yaml_files import load_yaml, read_text

RESTORE = "Restore it from a copy, or run the study again with --resume, which writes it anew."


def result_folders(path: Path) -> list[Path]:
    """Folders with a `result.json`: the one that is named, or those of the workloads of a run.

    Raises:
        BadInput: there is none.
    """
    folder = path.parent if path.name == RESULT_NAME else path
    if (folder / RESULT_NAME).is_file():
        return [folder]
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.")
    found = sorted(each.parent for each in folder.glob(f"*/{RESULT_NAME}"))
    if not found:
        raise BadInput(
            f"{folder} holds no {RESULT_NAME}: name results/STUDY/RUN or one workload's folder in it. A study that was "
            "interrupted writes its results with --resume."
        )
    return found


def read_result(folder: Path) -> Result:
    """The result of one workload, its files checked against the manifest where there is one.

    Raises:
        BadInput: it is damaged, of another schema, or a file of the folder was changed.
    """
    check_manifest(folder)
    return read_json(Result, folder / RESULT_NAME)


def check_manifest(folder: Path) -> None:
    """Hold the files of a folder against the checksums of its `MANIFEST.json`; nothing where it has none.

    Raises:
        BadInput: the manifest is damaged, or a file is missing or was changed.
    """
    manifest = read_manifest(folder)
    changed = changed_files(folder, manifest) if manifest else {}
    if changed:
        said = ", ".join(f"{name} {'is' if how == 'missing' else 'was'} {how}" for name, how in changed.items())
        raise BadInput(f"{folder} is not as {MANIFEST} lists it: {said}. {RESTORE}")


def sha256(path: Path) -> str:
    """Of a file, hexadecimal.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from None


def max_seq_len_of(folder: Path, result: Result) -> int:
    """What every launch of the study could serve, tokens; results of an older advisor leave it to `study.json`."""
    if result.max_seq_len is not None:
        return result.max_seq_len
    alone = not (folder.parent / CARD).is_file()
    return result.deployment.seq_len([result.workload] if alone else read_card(folder.parent).workloads)


def spelled(result: Result, max_seq_len: int, spoken: EngineDialect | None = None) -> Mapping[str, Any]:
    """Key to value of the configuration file of the best, as its release spells it; dots join the keys of a path."""
    assert result.best is not None
    dialect = spoken or spoken_by(result.deployment)
    return flatten(as_mapping(dialect.entries(result.deployment, result.best.serving_config, max_seq_len)))


def check_config(folder: Path, result: Result, max_seq_len: int) -> None:
    """Hold the configuration file against the result: what is verified is what is served.

    Raises:
        BadInput: the file is missing, no YAML, or says something else.
    """
    path = folder / spoken_by(result.deployment).config_name
    said, meant = flatten(load_yaml(read_text(path), str(path))), spelled(result, max_seq_len)
    different = [
        f"{key} is {said.get(key, 'not there')}, {RESULT_NAME} means {meant.get(key, 'none')}"
        for key in sorted(said.keys() | meant.keys())
        if said.get(key) != meant.get(key)
    ]
    if different:
        raise BadInput(f"{path} is not the configuration of this result: {'; '.join(different)}. {RESTORE}")
