"""Servers in containers and behind launchers, whose engines and daemons are played by programs of the tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.domain.outcome import Infrastructure, OutOfMemory
from advisor.domain.ports import TrialEvent
from advisor.domain.strict import changed
from advisor.engines.trtllm.engine import TrtllmEngine
from tests.engines.trtllm.rig import CONFIG, LLAMA, MakeRig, Rig
from tests.host.elsewhere import Elsewhere, elsewhere

IMAGE = "here:1"
OF_THE_IMAGE = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "STANDIN_HOME", "FAKE_NVML_HOME")


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


@pytest.fixture
def daemon(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """Docker and Slurm on this machine; the image has TensorRT-LLM, the machine itself has not."""
    with elsewhere(tmp_path / "elsewhere") as running:
        image = rig.standin.env()
        running.image_env = {name: image[name] for name in OF_THE_IMAGE}
        monkeypatch.setenv("PATH", f"{running.bin}:/usr/bin:/bin")
        monkeypatch.setenv("ELSEWHERE", str(running.socket))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        yield running


def test_a_launch_in_a_container_is_measured_like_any_other_and_removed(
    rig: Rig, daemon: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettokenindeed")
    engine = TrtllmEngine(container_image=IMAGE, client_check=False)
    assert engine.missing(LLAMA) is None
    record = rig.trial(engine=engine)
    assert record.measured, record.outcome
    assert IMAGE in record.engine_label
    assert daemon.alive() == []
    (container,) = daemon.started
    call = next(call for call in daemon.calls if call[1] == "run")
    assert container.env["HF_TOKEN"] == "hf_averysecrettokenindeed"
    assert not any("averysecret" in word for word in call), "a value in a command line is seen by everybody"
    port = container.argv[container.argv.index("--port") + 1]
    assert f"--publish=127.0.0.1:{port}:{port}" in call
    assert any(word.startswith(f"--label=advisor.run={rig.folder}") for word in call)
    assert record.memory_measured_gib is not None, "its processes are known as the launch's own"


def test_out_of_memory_in_a_container_is_out_of_memory(rig: Rig, daemon: Elsewhere) -> None:
    engine = TrtllmEngine(container_image=IMAGE, client_check=False)
    record = rig.trial(changed(CONFIG, max_num_tokens=600_000), engine=engine)
    assert isinstance(record.outcome, OutOfMemory)
    assert daemon.alive() == []


def test_trouble_of_the_container_engine_is_no_fault_of_the_configuration(rig: Rig, daemon: Elsewhere) -> None:
    engine = TrtllmEngine(container_image=IMAGE, client_check=False)
    daemon.trouble = "docker: Error response from daemon: could not select device driver with capabilities: [[gpu]].\n"
    record = rig.trial(engine=engine)
    assert isinstance(record.outcome, Infrastructure)
    assert "container toolkit" in record.outcome.reason


def test_an_image_that_is_not_here_and_an_engine_that_is_not_there(
    rig: Rig, daemon: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pull it first" in str(TrtllmEngine(container_image="elsewhere:2").missing(LLAMA))
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no docker or podman on PATH" in str(TrtllmEngine(container_image=IMAGE).missing(LLAMA))


def test_a_job_step_is_measured_and_ended(rig: Rig, daemon: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{daemon.bin}:{rig.standin.env()['PATH']}")
    prefix = f"srun -N 1 --nodelist={socket.gethostname()} env"
    engine = TrtllmEngine(launch_prefix=prefix, client_check=False)
    assert engine.missing(LLAMA) is None
    phases: list[TrialEvent] = []
    record = rig.trial(engine=engine, on_event=phases.append)
    assert record.measured, record.outcome
    assert daemon.alive() == []
    (step,) = daemon.started
    assert step.name.startswith("advisor-")
    assert "srun -N 1" in record.engine_label
    assert record.memory_measured_gib is not None, "the log tells memory where no driver can be asked"


def test_a_prefix_that_cannot_be_meant_is_said_before_any_launch(rig: Rig) -> None:
    assert "missing" not in str(TrtllmEngine(launch_prefix="numactl -N 0").missing(LLAMA))
    assert "no closing quotation" in str(TrtllmEngine(launch_prefix='srun "-N 2').missing(LLAMA))
