"""Containers: what is typed, what survives the client and is ended all the same, and what the engine's errors mean."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import EngineFailed, EngineMissing
from advisor.host.containers import (
    RUN_LABEL,
    Mount,
    container_argv,
    container_pids,
    container_trouble,
    containers_of,
    end_commands,
    find_runtime,
    has_image,
    image_digest,
)
from advisor.host.process import Launch, ServerProcess, end_leftovers
from tests.host.elsewhere import Elsewhere, elsewhere
from tests.host.launches import AWKWARD, an_advisor, ready
from tests.host.waiting import until


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    with elsewhere(tmp_path / "engine") as daemon:
        monkeypatch.setenv("ELSEWHERE", str(daemon.socket))
        yield daemon


def a_launch(engine: Elsewhere, run: Path, *steps: str, runtime: str = "docker", **more: Any) -> Launch:
    program = str(engine.bin / runtime)
    argv = container_argv(
        program,
        "here:1",
        [*AWKWARD, *steps],
        name="advisor-1",
        devices=[0, 1],
        env_names=["HF_TOKEN"],
        labels={RUN_LABEL: str(run)},
    )
    ends = end_commands(program, "advisor-1")
    return Launch(argv, engine.env(HF_TOKEN="hf_secret"), None, str(run), **{"on_end": ends, **more})


# -- the command line ------------------------------------------------------------------------------------------------


def test_the_guides_command_line_with_everything_named() -> None:
    argv = container_argv(
        "/usr/bin/docker",
        "trtllm:1.1.0",
        ["trtllm-serve", "m"],
        name="advisor-7",
        devices=[0, 3],
        env_names=["HF_TOKEN", "HF_HOME"],
        mounts=[Mount("/data/hf"), Mount("/models/llama", read_only=True)],
        port=30001,
        workdir="/work",
        labels={RUN_LABEL: "/runs/a"},
    )
    assert argv == (
        *("/usr/bin/docker", "run", "--rm", "--init", "--pull=never", "--name=advisor-7"),
        *("--label=advisor.run=/runs/a", '--gpus="device=0,3"', "--ipc=host"),
        *("--ulimit=memlock=-1", "--ulimit=stack=67108864"),
        "--mount=type=bind,source=/data/hf,target=/data/hf",
        "--mount=type=bind,source=/models/llama,target=/models/llama,readonly",
        *("--env=HF_TOKEN", "--env=HF_HOME", "--publish=127.0.0.1:30001:30001", "--workdir=/work"),
        *("trtllm:1.1.0", "trtllm-serve", "m"),
    )


def test_podman_names_devices_in_its_own_way_and_shm_can_be_bounded() -> None:
    argv = container_argv("podman", "i", ["x"], name="n", devices=["GPU-ab", 1], shm="16g")
    assert argv[6:11] == (
        *("--device=nvidia.com/gpu=GPU-ab", "--device=nvidia.com/gpu=1", "--security-opt=label=disable"),
        *("--shm-size=16g", "--ulimit=memlock=-1"),
    )
    assert not any("gpu" in word for word in container_argv("podman", "i", ["x"], name="n", devices=[]))


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_any_path_can_be_mounted(path: str) -> None:
    (option,) = (
        word.removeprefix("--mount=")
        for word in container_argv("docker", "i", [], name="n", devices=[], mounts=[Mount(f"/{path}")])
        if word.startswith("--mount=")
    )
    assert next(csv.reader([option])) == ["type=bind", f"source=/{path}", f"target=/{path}"]


def test_a_real_client_understands_every_option() -> None:
    """It gets as far as looking for its daemon."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("there is no docker client here")
    argv = container_argv(
        docker,
        "no-such-image",
        ["true"],
        name="advisor-test",
        devices=[0, 1],
        env_names=["HOME"],
        mounts=[Mount("/tmp,a", read_only=True)],
        port=30001,
        shm="1g",
        workdir="/",
        labels={RUN_LABEL: "/x"},
    )
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///no/such/socket"}
    said = subprocess.run(argv, env=nowhere, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 125
    assert container_trouble(said.stderr) == "The docker daemon is not running: sudo systemctl start docker."


def test_the_engine_is_found_on_the_path_of_the_launch(engine: Elsewhere) -> None:
    env = engine.env()
    assert find_runtime(env) == str(engine.bin / "docker")
    assert find_runtime(env, "podman") == str(engine.bin / "podman")
    (engine.bin / "docker").unlink()
    assert find_runtime({"PATH": str(engine.bin)}) == str(engine.bin / "podman")
    with pytest.raises(EngineMissing, match=r"no docker or podman on PATH.*leave out --container-image"):
        find_runtime({"PATH": "/nowhere"})
    with pytest.raises(EngineMissing, match="no docker on PATH"):
        find_runtime({"PATH": str(engine.bin)}, "docker")


# -- what survives the client ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_a_container_is_heard_asked_and_stopped_through_its_client(
    tmp_path: Path, engine: Elsewhere, runtime: str
) -> None:
    heard: list[bytes] = []
    steps = ("environment=HF_TOKEN", "goodbye=bye", "say=ready", "wait")
    with ServerProcess(a_launch(engine, tmp_path, *steps, runtime=runtime), heard.append) as server:
        ready(heard)
        (inside,) = engine.alive()
        program = str(engine.bin / runtime)
        assert inside.process.pid not in server.pids(), "it is no child of ours"
        assert container_pids(program, "advisor-1") == {inside.process.pid}
        assert containers_of(program, str(tmp_path)) == ("advisor-1",)
        assert containers_of(program, str(tmp_path / "other")) == ()
        assert server.stop(grace_s=60).exit_code == 0
        assert container_pids(program, "advisor-1") == frozenset()
    assert b"".join(heard) == b"hf_secret\nready\nbye"
    assert "hf_secret" not in " ".join(word for call in engine.calls for word in call)


@pytest.mark.parametrize("how", ["deaf", "client", "guardian"])
def test_a_container_that_outlives_its_client_is_removed(tmp_path: Path, engine: Elsewhere, how: str) -> None:
    heard: list[bytes] = []
    with ServerProcess(a_launch(engine, tmp_path, "deaf", "say=ready", "wait"), heard.append) as server:
        ready(heard)
        (inside,) = engine.alive()
        if how == "deaf":
            server.stop(grace_s=0.1)
        else:
            os.kill(server.pid if how == "client" else server.guardian_pid, signal.SIGKILL)
        server.stop(grace_s=60)
        until(lambda: inside.process.poll() is not None)
    assert [call[1] for call in engine.calls] == ["run", "rm"]


def test_a_container_left_by_advisor_and_guardian_is_removed_by_the_next_advisor(
    tmp_path: Path, engine: Elsewhere
) -> None:
    launch = a_launch(engine, tmp_path, "deaf", "say=ready", "wait")
    with an_advisor(launch) as advisor:
        advisor.kill(advisor.guardian)
        (inside,) = engine.alive()
        end_leftovers(str(tmp_path))
    until(lambda: inside.process.poll() is not None)
    assert list(tmp_path.glob(".launch-*")) == []


# -- what the engine says --------------------------------------------------------------------------------------------


def test_asking_an_engine(engine: Elsewhere) -> None:
    docker = str(engine.bin / "docker")
    assert has_image(docker, "here:1")
    assert not has_image(docker, "there:1")
    assert container_pids(docker, "nobody") == frozenset()
    engine.trouble = (
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
    )
    for ask in (
        lambda: has_image(docker, "here:1"),
        lambda: container_pids(docker, "x"),
        lambda: containers_of(docker, "x"),
    ):
        with pytest.raises(EngineFailed, match=r"docker .* failed: The docker daemon is not running"):
            ask()
    engine.trouble = "something new\n"
    with pytest.raises(EngineFailed, match="docker ps failed: something new"):
        containers_of(docker, "x")
    with pytest.raises(EngineFailed, match="does not answer"):
        has_image(str(engine.bin / "gone"), "x")


def test_an_image_has_the_digest_that_its_registry_gave_it(engine: Elsewhere) -> None:
    docker, digest = str(engine.bin / "docker"), f"sha256:{'0a' * 32}"
    assert image_digest(docker, "here:1") is None, "it was built here"
    engine.repo_digests = [f"registry.example/trtllm@{digest}"]
    assert image_digest(docker, "here:1") == digest
    assert image_digest(docker, "there:1") is None
    engine.trouble = "Cannot connect to the Docker daemon at unix:///x.\n"
    with pytest.raises(EngineFailed, match="docker image failed"):
        image_digest(docker, "here:1")


DAEMON = "docker: Error response from daemon: "
SAID = {
    "docker: permission denied while trying to connect to the Docker daemon socket at unix:///x: Post": "group docker",
    "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?": "not running",
    f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].': "nvidia-ctk",
    f"{DAEMON}unknown or invalid runtime name: nvidia.": "nvidia-ctk",
    "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=0": "nvidia-ctk",
    f"{DAEMON}OCI runtime create failed: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0": (
        "update the driver"
    ),
    "docker: Error response from daemon: No such image: trtllm:9": "docker pull",
    "Unable to find image 'trtllm:9' locally\ndocker: Error response from daemon: manifest unknown.": "docker pull",
    "Error: trtllm:9: image not known": "docker pull",
    f"{DAEMON}pull access denied for x, repository does not exist or may require 'docker login'": "docker login",
    f"{DAEMON}unauthorized: authentication required": "docker login",
    f"{DAEMON}Bind for 127.0.0.1:8000 failed: port is already allocated.": "port on the host is taken",
    f'{DAEMON}Conflict. The container name "/a" is already in use by container "b".': "docker rm --force",
    f'{DAEMON}invalid mount config for type "bind": bind source path does not exist: /m.': "does not exist",
    f'{DAEMON}failed to create task: exec: "trtllm-serve": executable file not found in $PATH: unknown.': "program",
    "Error: crun: executable file `trtllm-serve` not found in $PATH: No such file or directory": "program",
    f"{DAEMON}write /var/lib/docker/x: no space left on device": "disk of the container engine",
}


@pytest.mark.parametrize(("text", "expected"), SAID.items())
def test_trouble_is_recognised_with_the_way_out(text: str, expected: str) -> None:
    trouble = container_trouble(f"before\n{text}\n\nRun 'docker run --help' for more information\n")
    assert trouble is not None
    assert expected in trouble


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        "OSError: [Errno 28] No space left on device",
        "[TRT-LLM] [I] prompt: docker: Error response from daemon: manifest unknown",
        "docker: Error response from daemon: something new.",
    ],
)
def test_what_the_server_prints_is_no_trouble_of_the_engine(text: str) -> None:
    assert container_trouble(text) is None
