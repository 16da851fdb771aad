"""A bundle as a study leaves it: its manifest holds for every file, says what was tried, and keeps no secret."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from advisor.app.manifest import MANIFEST, Manifest, changed_files, read_manifest
from tests.end_to_end.command import advisor, the_run

pytestmark = pytest.mark.xdist_group("manifest")  # they share the run

WORKLOAD = "1k1k_c64"
SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
TUNE = ("tune", "--study", "llama3.1-8b-h100", "--workload", WORKLOAD, "--max-launches", "6")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    said = advisor(*TUNE, cwd=folder, HF_TOKEN=SECRET)
    assert said.returncode == 0, said.stderr
    return the_run(folder / "results")


@pytest.fixture
def bundle(run: Path, tmp_path: Path) -> Path:
    """A copy, as somebody takes it away."""
    return Path(shutil.copytree(run / WORKLOAD, tmp_path / "taken away"))


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def test_every_file_beside_the_manifest_is_in_it_with_its_checksum(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.iterdir()}
    del there[MANIFEST]
    assert {each.name: each.sha256 for each in manifest.files} == there
    assert {"docker.sh", "compose.yaml", "serve.sbatch", "kubernetes.yaml", "probe.py", "result.json"} <= set(there)
    assert changed_files(bundle, manifest) == {}


def test_an_edited_or_lost_file_is_named_and_export_warns(bundle: Path) -> None:
    with (bundle / "serve.sh").open("a") as script:
        script.write("# mine\n")
    (bundle / "probe.py").unlink()
    assert changed_files(bundle, manifest_of(bundle)) == {"serve.sh": "changed", "probe.py": "missing"}
    said = advisor("export", str(bundle), "--engine-version", "1.2.0", cwd=bundle)
    assert said.returncode == 0
    assert "serve.sh (changed)" in said.stderr
    assert "probe.py (missing)" in said.stderr


def test_a_damaged_manifest_is_refused(bundle: Path) -> None:
    (bundle / MANIFEST).write_text("{}")
    said = advisor("export", str(bundle), "--engine-version", "1.2.0", cwd=bundle)
    assert said.returncode == 2
    assert MANIFEST in said.stderr


def test_the_history_is_the_trials_and_calls_nothing_simulated_measured(run: Path, bundle: Path) -> None:
    manifest = manifest_of(bundle)
    recorded = [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/outcome.json"))]
    assert [each.number for each in manifest.history] == [each["number"] for each in recorded]
    assert [each.seed for each in manifest.history] == [each["seed"] for each in recorded]
    for told, record in zip(manifest.history, recorded, strict=True):
        assert told.settings["max_batch_size"] == record["config"]["max_batch_size"]
    assert manifest.source == "simulated"
    assert manifest.machine is None
    assert "measured" not in {each.outcome for each in manifest.history}
    assert "measured" not in {each.said for each in manifest.history}


def test_the_secret_of_the_environment_is_in_no_file(run: Path) -> None:
    assert [path for path in run.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


def test_no_file_of_a_bundle_names_a_place_of_the_machine_it_was_made_on(run: Path) -> None:
    home = str(run.parents[3])
    assert [path.name for path in (run / WORKLOAD).iterdir() if home in path.read_text()] == []
