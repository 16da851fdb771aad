"""`advisor export --closest`: the nearest of all tuned shapes, how far it is, and what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from tests.cli.test_export import document, run
from tests.engines.trtllm.builders import GUIDE, MAVERICK

SHAPES = {"1k1k_c64": 64, "4k1k_c64": 128, "4k1k_c1024": 1024, "8k8k_c64": 256}
"""Tuned workloads, each with a batch size of its own to be known by."""


def tuned(folder: Path, name: str, batch: int, source: str = "simulated", **deployment: Any) -> Path:
    workload = parse_workload(name)
    result = {
        "source": source,
        "label": f"{source} by a test",
        "study": "maverick",
        "engine_version": "1.2.0",
        "deployment": changed(MAVERICK, **deployment).model_dump(mode="json"),
        "workload": workload.model_dump(mode="json"),
        "workload_name": name,
        "best": {"serving_config": changed(GUIDE, max_batch_size=batch).model_dump(mode="json")},
    }
    place = folder / name
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result))
    return place


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, batch in SHAPES.items():
        tuned(tmp_path / "results" / "maverick" / "run", name, batch)
    (tmp_path / "results" / "maverick" / "run" / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "results" / "maverick" / "run" / "trials" / "0000" / "result.json").write_text("no result of ours")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("3000/700",), "4k1k_c1024"),  # both 4k1k are as near; the first by name
        (("3000/700", "--concurrency", "64"), "4k1k_c64"),
        (("3000/700", "--concurrency", "900"), "4k1k_c1024"),
        (("1000/1000", "--concurrency", "100"), "1k1k_c64"),
        (("8k/8k",), "8k8k_c64"),
    ],
)
def test_the_nearest_in_octaves_is_exported(argv: tuple[str, ...], name: str, results: Path) -> None:
    found = document(str(results), "--closest", *argv)
    assert found["closest"]["workload_name"] == name
    assert found["closest"]["n_shapes"] == len(SHAPES)
    assert found["document"]["max_batch_size"] == SHAPES[name]
    assert (found["engine_version"], yaml.safe_load(found["yaml"])) == ("1.2.0", found["document"])


def test_how_far_it_is_stands_beside_the_yaml_and_far_is_warned_of(results: Path) -> None:
    code, out, err = run(str(results), "--closest", "4096/1024")
    assert (code, yaml.safe_load(out)["max_batch_size"]) == (0, SHAPES["4k1k_c1024"])
    assert "Closest of 4 tuned shapes: 4k1k_c1024, 0.00 octaves away" in err
    assert "tune that shape" not in err
    code, out, err = run(str(results), "--closest", "100000/100")
    assert code == 0
    assert "octaves away from what was asked: tune that shape" in err
    assert "Its max_seq_len of 5,120 is too short for requests of 100,100 tokens: raise it." in err


def test_a_measured_shape_is_preferred_to_a_simulated_one(results: Path) -> None:
    tuned(results / "maverick" / "z-other-run", "4k1k_c64", 999, source="measured")
    found = document(str(results), "--closest", "4k/1k", "--concurrency", "64")
    assert found["document"]["max_batch_size"] == 999


def test_another_release_is_spelled_in_its_own_words(results: Path) -> None:
    found = document(str(results), "--closest", "4k/1k", "--engine-version", "1.1.0")
    assert (found["release"], found["from_release"]) == ("1.1.0", "1.2.0")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--closest", "3000"), "'3000' is not a shape: write ISL/OSL"),
        (("--closest", "3000/x"), "'x' is not a token count"),
        (("--closest", "3000/700", "--from-version", "1.0.0"), "--from-version is for YAML files"),
        (("--closest", "3000/700", "--engine-version", "latest"), "is not a version"),
        (("--concurrency", "64", "--engine-version", "1.2.0"), "--concurrency belongs to --closest"),
        ((), "advisor export --closest 3000/700"),
    ],
)
def test_bad_questions_are_refused_clearly(argv: tuple[str, ...], words: str, results: Path) -> None:
    code, out, err = run(str(results), *argv)
    assert (code, out) == (2, "")
    assert words in err


def test_folders_without_an_answer_are_refused_clearly(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "empty", "No tuned shape lies below"), (tmp_path / "no", "There is no folder")):
        assert words in run(str(folder), "--closest", "3000/700")[2]
    tuned(results / "other" / "run", "4k1k_c64", 7, quantization="bf16")
    code, _, err = run(str(results), "--closest", "3000/700")
    assert code == 2
    assert "results of 2 deployments" in err
    assert "name the folder of one study" in err
