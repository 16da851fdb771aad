"""`advisor verify` and `compare` as a person types them, against the stand-in for `trtllm-serve`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.command import ADVISOR
from tests.end_to_end.machine import SPEED, WORKLOAD, Machine

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("verify trtllm")]  # they share the study
VERIFY = ("verify", "--no-client-check", "--max-launches", "3", "--output", "json")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(tmp_path_factory.mktemp("studied"))
    process = machine.started("--max-launches", "5")
    _, heard = process.communicate()
    assert process.returncode == 0, heard
    return machine


@pytest.fixture
def machine(studied: Machine) -> Iterator[Machine]:
    """As it was while tuning; whatever was turned is turned back, and nothing is left."""
    yield studied
    studied.standin.turn(speed=SPEED, faults=())
    studied.assert_nothing_is_left()
    for name in ("verify.json", "verify"):
        path = studied.run() / WORKLOAD / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def advisor(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ADVISOR, *argv],
        cwd=machine.folder,
        env=machine.env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def verdict(machine: Machine, *argv: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the only workload of the report."""
    done = advisor(machine, *VERIFY, str(machine.run()), *argv)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    (found,) = report["workloads"]
    assert report["verdict"] == found["verdict"]
    return done.returncode, found


def test_an_unchanged_server_passes(machine: Machine) -> None:
    code, found = verdict(machine)
    assert (code, found["verdict"]) == (0, "PASS"), found["reasons"]
    assert found["source"] == "measured" and "+standin" in found["label"]
    assert found["differences"] == []
    folder = machine.run() / WORKLOAD
    assert json.loads((folder / "verify.json").read_text()) == found
    assert (folder / "verify" / "trials" / "0003" / "server.log").is_file()
    (first, *_) = json.loads((folder / "result.json").read_text())["best"]["trials"]
    argvs = [
        json.loads((path / "argv.json").read_text())
        for path in (machine.run() / "trials" / f"{first:04}", folder / "verify" / "trials" / "0001")
    ]
    before, after = (argv[: argv.index("--port")] for argv in argvs)
    assert [word for word in before if "/" not in word] == [word for word in after if "/" not in word]


def test_a_server_at_half_its_speed_drifts(machine: Machine) -> None:
    machine.standin.turn(speed=SPEED / 2)
    code, found = verdict(machine)
    assert (code, found["verdict"], found["direction"]) == (7, "DRIFT", "slower")
    assert found["tested"][0]["decision"]["ratio"]["high"] < 1


def test_answers_one_token_short_fail(machine: Machine) -> None:
    machine.standin.turn(faults=[{"kind": "clamp", "tokens": 31}])
    code, found = verdict(machine)
    assert (code, found["verdict"], len(found["launches"])) == (6, "FAIL", 1)


def test_a_server_that_runs_out_of_memory_at_start_fails(machine: Machine) -> None:
    machine.standin.turn(faults=[{"kind": "oom", "stage": "model", "short_gib": 1.0}])
    code, found = verdict(machine)
    assert (code, found["verdict"]) == (6, "FAIL")
    assert "out of memory at load" in found["reasons"][0]


def test_in_words_with_the_evidence_of_a_failure(machine: Machine) -> None:
    machine.standin.turn(faults=[{"kind": "oom", "stage": "model", "short_gib": 1.0}])
    done = advisor(machine, "verify", str(machine.run() / WORKLOAD))
    assert done.returncode == 6
    assert f"FAIL  {WORKLOAD}" in done.stdout
    assert "verify/trials/0001" in done.stdout.replace("\n", "")


def test_a_study_compared_with_itself_differs_in_nothing(machine: Machine) -> None:
    done = advisor(machine, "compare", str(machine.run()), str(machine.run()), "--output", "json")
    assert done.returncode == 0
    (found,) = json.loads(done.stdout)["workloads"]
    assert {each["kind"] for each in found["changes"]} == {"noise"}
    text = advisor(machine, "compare", str(machine.run()), str(machine.run())).stdout
    assert "Both have the same settings." in text and "are within noise" in text
    assert "SIMULATED" not in text
