"""`--hold-next`: a launch by a process that was started beforehand is what it would have been afresh."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.app.trial_runner import run_trial
from advisor.domain.errors import BadInput
from advisor.domain.outcome import Measured
from advisor.domain.ports import EngineRef, LaunchSpec, TrialEvent, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.engines.vllm.engine import VllmEngine
from advisor.host.guardian import proc_file
from advisor.store.trial_folder import TrialFolder
from tests.contracts.test_vllm_engine import LLAMA_8B
from tests.standin.equipment import StandIn
from tests.standin.fixtures import inhabit

CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=32, kv_cache_free_gpu_memory_fraction=0.9
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in's, with a package `vllm` to import; nothing may be left of it."""
    standin = StandIn(tmp_path / "machine")
    package(standin, "")
    inhabit(standin, monkeypatch)
    yield standin
    assert standin.leftovers(patience_s=5.0) == []


@pytest.fixture
def engine() -> Iterator[VllmEngine]:
    """One that holds; closed in the end, as a study does."""
    engine = VllmEngine(client_check=False, hold_next=True)
    yield engine
    engine.close()


def package(standin: StandIn, text: str) -> None:
    """What the held process imports."""
    folder = standin.site / "vllm" / "entrypoints" / "cli"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(text, encoding="utf-8")


def trial(run: Path, number: int, engine: VllmEngine, config: ServingConfig = CONFIG) -> tuple[TrialRecord, str]:
    """One committed trial of a run, and what was said about how it was launched."""
    folder, said = TrialFolder(run, number), []

    def hear(event: TrialEvent) -> None:
        if event.phase == "launch" and event.detail:
            said.append(event.detail)

    folder.begin()
    workload = changed(parse_workload("64-16_c2"), n_requests=8)
    spec = LaunchSpec(deployment=LLAMA_8B, config=config, workloads=(workload,), seed=number)
    request = TrialRequest(number=number, role="search", origin="test", engine=EngineRef(name="vllm"), spec=spec)
    record = run_trial(request, engine, hear, folder)
    folder.commit(record)
    return record, " ".join(said)


def was_held(record: TrialRecord) -> bool:
    return any(phase.held for phase in record.phases)


def waiting(standin: StandIn) -> int:
    """The held process."""
    (pid,) = (pid for pid in standin.leftovers() if b"held.py" in proc_file(pid, "cmdline"))
    return pid


def told(folder: Path) -> dict[str, object]:
    """Every file of a trial, without its numbers: they differ between any two launches.

    The log as it is until the first request, then what kinds of lines came: in which order is chance, and so is whether
    the server or its worker hears of the end first.
    """
    read: dict[str, object] = {
        path.name: re.sub(r"[\d.]+", "N", path.read_text(encoding="utf-8")) if path.suffix != ".npz" else ""
        for path in sorted(folder.iterdir())
        if path.name not in ("outcome.json", "download.log")  # the checkpoint is fetched once
    }
    start, _, served = str(read["server.log"]).partition('"GET ')
    return {**read, "server.log": (start, {line for line in served.splitlines() if line.endswith("OK")})}


def test_a_held_launch_leaves_the_files_of_a_fresh_one(machine: StandIn, engine: VllmEngine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, _ = trial(run, 0, engine)
    second, _ = trial(run, 1, engine)
    fresh, held = run / "trials" / "0000", run / "trials" / "0001"
    assert [was_held(first), was_held(second)] == [False, True]
    assert isinstance(first.outcome, Measured), first.outcome
    assert isinstance(second.outcome, Measured), second.outcome
    assert second.effective == first.effective
    assert second.memory_measured_gib == first.memory_measured_gib
    assert told(held) == told(fresh)
    launched = machine.launches()
    options = [[word for word in each["argv"] if not re.search(r"\d", word)] for each in launched]
    assert options[0] == options[1]
    assert json.loads((held / "outcome.json").read_text())["phases"][0]["held"] is True


def test_one_that_is_killed_is_replaced_by_a_fresh_launch(machine: StandIn, engine: VllmEngine, tmp_path: Path) -> None:
    trial(tmp_path / "run", 0, engine)
    os.kill(waiting(machine), signal.SIGKILL)
    record, said = trial(tmp_path / "run", 1, engine)
    assert isinstance(record.outcome, Measured), record.outcome
    assert record.n_attempts == 1
    assert not was_held(record)
    assert "ended with exit code -9" in said


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("raise ImportError('broken')", "ImportError: broken"),
        ("import torch", "importing vllm.entrypoints.cli.main made a CUDA context"),
    ],
)
def test_an_import_that_fails_or_touches_a_gpu_is_told_and_not_tried_again(
    machine: StandIn, engine: VllmEngine, tmp_path: Path, what: str, why: str
) -> None:
    (machine.site / "torch.py").write_text(
        "class cuda:\n    is_initialized = staticmethod(lambda: True)\n", encoding="utf-8"
    )
    package(machine, what)
    trial(tmp_path / "run", 0, engine)
    record, said = trial(tmp_path / "run", 1, engine)
    assert isinstance(record.outcome, Measured), record.outcome
    assert why in said
    assert not was_held(record)
    assert machine.leftovers() == []


def test_a_launch_with_another_environment_is_made_afresh(
    machine: StandIn, engine: VllmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial(tmp_path / "run", 0, engine)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    record, said = trial(tmp_path / "run", 1, engine)
    assert isinstance(record.outcome, Measured), record.outcome
    assert "environment" in said
    assert not was_held(record)
    assert waiting(machine)


def test_a_start_that_fails_leaves_the_next_one_held(machine: StandIn, engine: VllmEngine, tmp_path: Path) -> None:
    record, _ = trial(tmp_path / "run", 0, engine, changed(CONFIG, max_num_tokens=800_000))
    assert record.out_of_memory
    record, _ = trial(tmp_path / "run", 1, engine)
    assert isinstance(record.outcome, Measured), record.outcome
    assert was_held(record)


def test_one_that_is_never_launched_ends_with_the_engine(machine: StandIn, engine: VllmEngine, tmp_path: Path) -> None:
    trial(tmp_path / "run", 0, engine)
    assert waiting(machine)
    engine.close()
    assert machine.leftovers() == []


@pytest.mark.parametrize(("image", "prefix"), [("vllm/vllm-openai", ""), ("", "numactl -N 0")])
def test_it_is_refused_where_the_process_is_not_ours_to_start(image: str, prefix: str) -> None:
    with pytest.raises(BadInput, match="leave it out"):
        VllmEngine(image, prefix, hold_next=True)
