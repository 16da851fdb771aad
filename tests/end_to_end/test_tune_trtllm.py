"""`advisor tune --engine trtllm` as a person types it: real processes and sockets, the stand-in for the server."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from advisor.domain.units import GIB_BYTES
from tests.end_to_end.machine import Machine
from tests.end_to_end.soak import FAULTS, check, play
from tests.host.waiting import until
from tests.standin.equipment import MODEL
from tests.store.checkpoint_folders import checkpoint

pytestmark = pytest.mark.system


def test_whatever_is_killed_the_study_ends_with_the_right_winner_and_leaves_nothing(tmp_path: Path) -> None:
    """The short form of `make soak`."""
    story = play(tmp_path, random.Random(20), n_kills=3)
    assert len(story) == 3


def test_a_study_undisturbed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, crashing=True, faults=FAULTS)
    machine.standin.gpus.set(0, "power_w", 700)
    process = machine.started("--max-launches", "9")
    said, heard = process.communicate()
    assert process.returncode == 0, heard
    check(machine, heard)
    assert "Traceback" not in heard
    records = machine.records()

    crashed = records[4]
    assert crashed["n_attempts"] == 2, "a crash is tried once more"
    assert (machine.run() / "trials" / "0004" / "server-2.log").exists()
    assert sum(record["n_attempts"] for record in records) == machine.summary()["counts"]["launches"]
    assert machine.summary()["counts"]["oom"] == 3

    measured = [record for record in records if record["outcome"]["kind"] == "measured"]
    for record in measured:
        profiled, memory = record["profiled_gib"], record["memory_measured_gib"]
        budget = (profiled["total"] - profiled["peak"] + profiled["temporary_kv"]) * profiled["fraction"]
        assert abs(budget - profiled["available_kv"]) < 0.02
        assert profiled["driver_peak"] <= memory["capacity"]
        assert record["effective"]["max_batch_size"] == record["config"]["max_batch_size"]
        (outcome,) = record["workloads"]
        assert outcome["warm_up"]["output_tok_per_s"]
        assert outcome["kv_cache_hit_rate"] == 0
        metrics = outcome["metrics"]
        (served,) = (phase["duration_s"] for phase in record["phases"] if phase["name"] == "serve")
        assert metrics["duration_s"] - 0.01 <= metrics["energy_j"] / 700 <= served, "of the measurement, at 700 W"
    (result,) = machine.summary()["results"]
    referees = result["referee"]
    assert referees == {} or all(report["problems"] == [] for report in referees.values()), referees
    assert "measured" in said.lower()
    bundle = machine.run() / "64-32_c16"
    for name in ("extra-llm-api-config.yml", "docker.sh", "compose.yaml", "serve.sbatch", "kubernetes.yaml"):
        assert "simulated" not in (bundle / name).read_text(), name
    manifest = json.loads((bundle / "MANIFEST.json").read_text())
    assert manifest["image"].endswith("release:1.1.0")
    assert manifest["machine"]["gpus"] == ["NVIDIA H100 80GB HBM3"]
    assert manifest["machine"]["driver"]
    assert manifest["machine"]["cuda"]
    told = [(each["outcome"], each["short_gib"]) for each in manifest["history"]]
    assert ("measured", None) in told
    assert sum(kind == "out_of_memory" and short_gib > 0 for kind, short_gib in told) == 3


def test_a_file_that_crashes_is_rescued_in_few_launches(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    crash = tmp_path / "capture.yml"
    process = machine.started("--rescue", str(crash), "--max-launches", "6", "--output", "json")
    said, heard = process.communicate()
    assert process.returncode == 0, heard
    machine.assert_nothing_is_left()
    rescue = json.loads(said)["rescue"]
    assert "out of memory at warm_up" in rescue["outcome"]
    assert rescue["rescued"] is not None
    assert rescue["n_launches"] <= 3
    changed = {change["setting"] for change in rescue["changes"]}
    assert changed <= {"kv_cache_free_gpu_memory_fraction", "cuda_graph_max_batch_size"}, "what costs nothing here"
    kept = {name: value for name, value in rescue["asked"].items() if name not in changed and name != "options"}
    assert kept.items() <= rescue["rescued"].items()
    assert all(change["frees_gib"] > 0 for change in rescue["changes"])
    assert "measured" in (machine.run() / "64-32_c16" / "extra-llm-api-config.yml").read_text()


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 3)])
def test_interrupted_it_leaves_no_server_and_can_go_on(tmp_path: Path, number: signal.Signals, times: int) -> None:
    """Once: this measurement is finished. Three times: everything ends at once."""
    machine = Machine(tmp_path)
    process = machine.started()
    until(lambda: any("ready" in launch["times"] for launch in machine.standin.launches()))
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)  # signals of one kind do not queue
    _, heard = process.communicate()
    assert process.returncode == 130, heard
    assert "Traceback" not in heard
    machine.assert_nothing_is_left()
    assert len(machine.records()) == (1 if times == 1 else 0)

    again = machine.started("--resume", "--max-launches", "2")
    _, heard = again.communicate()
    assert again.returncode == 0, heard
    machine.assert_nothing_is_left()


def test_the_least_energy_is_found_by_the_counters_of_the_gpus(tmp_path: Path) -> None:
    """At a constant 700 W it is the most output that costs least."""
    machine = Machine(tmp_path)
    asked = ("--objective", "energy_j_per_million_tok", "--max-launches", "5", "--output", "json")
    refused = machine.started(*asked)
    assert "needs the energy counters (NVML) of all 1 GPUs" in refused.communicate()[1]
    assert (refused.returncode, machine.standin.launches()) == (2, [])

    machine.standin.gpus.set(0, "power_w", 700)
    said, heard = machine.started(*asked).communicate()
    machine.assert_nothing_is_left()
    measured = [record for record in machine.records() if record["outcome"]["kind"] == "measured"]
    assert len(measured) >= 3, heard
    for outcome in (record["workloads"][0] for record in measured):
        for metrics in outcome["repeats"] or [outcome["metrics"]]:
            per_tok_j = metrics["energy_j"] / (metrics["output_tok_per_s"] * metrics["duration_s"])
            assert metrics["energy_j_per_million_tok"] == pytest.approx(per_tok_j * 1e6)
    (result,) = json.loads(said)["results"]
    assert result["best"]["metrics"]["energy_j_per_million_tok"] > 0
    assert result["objective"]["metric"] == "energy_j_per_million_tok"


def test_a_model_and_a_gpu_that_nobody_described_are_searched_by_measurement_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, plays=MODEL)
    config, size_bytes = {"architectures": ["MysteryForCausalLM"]}, round(15 * GIB_BYTES)
    model = str(checkpoint(tmp_path / "mystery", config=config, total_bytes=size_bytes))
    machine.standin.gpus.set(0, "name", "NVIDIA L99")
    process = machine.started("--model", model, "--gpu", "l99", "--max-launches", "3")
    said, heard = process.communicate()
    assert process.returncode == 0, heard
    machine.assert_nothing_is_left()
    for text in (said, heard):
        assert "searched by measurement alone, nothing is predicted" in " ".join(text.split())
    records = machine.records()
    assert [record["role"] for record in records].count("search") >= 1
    assert all(record["memory_predicted_gib"] is None for record in records)
    (result,) = machine.summary()["results"]
    assert result["best"]["metrics"]["output_tok_per_s"] > 0
    assert all(row["prediction"] is None for row in result["predicted_baselines"])
