"""Docker and podman as they answer, played by small programs; and what says that MPI already runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from advisor.host.mpi import read_mpi
from advisor.host.runtimes import ContainerRuntime, container_runtimes
from tests.standin.fake_install import SYSTEM_PATH, script

PATIENCE_S = 60.0
INFO = '{"Runtimes":{"io.containerd.runc.v2":{},"nvidia":{"path":"nvidia-container-runtime"}},"ServerVersion":"28.2"}'
PLAIN = '{"Runtimes":{"runc":{}},"Name":"nvidia-dgx-7"}'
OLD_AWAY = '{"ServerErrors":["Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"]}'
AWAY = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DENIED = "permission denied while trying to connect to the Docker daemon socket"


def asked(tmp_path: Path, info: str = "", errors: str = "", code: int = 0, **how: str) -> tuple[ContainerRuntime, ...]:
    """What is found where docker answers so; it has the image `here`."""
    text = (
        "#!/bin/sh\n"
        'if [ "$1" = image ]; then [ "$6" = here ]; exit $?; fi\n'
        f"cat <<'E'\n{info}\nE\ncat >&2 <<'E'\n{errors}\nE\nexit {code}\n"
    )
    script(tmp_path / "bin" / how.get("name", "docker"), text)
    env = {"PATH": f"{tmp_path / 'bin'}:{SYSTEM_PATH}"}
    return container_runtimes(tmp_path, env, PATIENCE_S, how.get("image"))


@pytest.mark.parametrize(
    ("info", "errors", "code", "trouble", "gpus"),
    [
        (INFO, "", 0, None, True),
        (INFO, "WARNING: No swap limit support", 0, None, True),
        (PLAIN, "", 0, None, False),
        ("", AWAY, 1, "away", False),
        (OLD_AWAY, "", 0, "away", False),
        ("", DENIED, 1, "denied", False),
        ("", "flag provided but not defined", 2, "other", False),
        ("not JSON", "", 0, None, False),
    ],
)
def test_how_docker_answers(tmp_path: Path, info: str, errors: str, code: int, trouble: str | None, gpus: bool) -> None:
    (found,) = asked(tmp_path, info, errors, code)
    assert (found.name, found.trouble, found.gpus, found.has_image) == ("docker", trouble, gpus, None)


def test_a_daemon_that_hangs(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "docker", "#!/bin/sh\nexec sleep 600\n")
    (found,) = container_runtimes(tmp_path, {"PATH": f"{tmp_path / 'bin'}:{SYSTEM_PATH}"}, 0.3)
    assert found.trouble == "silent"


@pytest.mark.parametrize(("image", "expected"), [("here", True), ("elsewhere", False)])
def test_an_image_that_is_here_or_not(tmp_path: Path, image: str, expected: bool) -> None:
    (found,) = asked(tmp_path, INFO, image=image)
    assert found.has_image is expected


def test_podman_hands_out_gpus_by_cdi(tmp_path: Path) -> None:
    (found,) = asked(tmp_path, "{}", name="podman")
    assert not found.gpus
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").write_text("cdiVersion: 0.6.0\n")
    (found,) = asked(tmp_path, "{}", name="podman")
    assert found.gpus


def test_none_on_the_path(tmp_path: Path) -> None:
    assert container_runtimes(tmp_path, {"PATH": str(tmp_path)}, PATIENCE_S, "here") == ()


# -- MPI -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "inside", "variables"),
    [
        ({}, None, ()),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}, None, ()),  # a batch script
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "srun", ("SLURM_STEP_ID",)),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967291"}, None, ()),  # the batch step by its number
        ({"SLURM_STEPID": "1", "PMIX_RANK": "0"}, "srun", ("SLURM_STEPID", "PMIX_RANK")),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "mpirun", ("OMPI_COMM_WORLD_SIZE",)),
    ],
)
def test_a_launcher_that_this_process_is_under(
    tmp_path: Path, env: dict[str, str], inside: str | None, variables: tuple[str, ...]
) -> None:
    found = read_mpi(tmp_path, env, None)
    assert (found.inside, found.variables) == (inside, variables)


@pytest.mark.parametrize("place", ["usr/lib/x86_64-linux-gnu", "opt/hpcx/ompi/lib", "usr/lib64/openmpi/lib"])
def test_open_mpi_in_the_usual_places(tmp_path: Path, place: str) -> None:
    assert read_mpi(tmp_path, {}, None).library is None
    library = tmp_path / place / "libmpi.so.40"
    library.parent.mkdir(parents=True)
    library.touch()
    assert read_mpi(tmp_path, {}, None).library == str(library)


def test_open_mpi_of_an_environment_and_on_the_library_path(tmp_path: Path) -> None:
    for folder in ("conda/lib", "own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "libmpi.so.40").touch()
    (tmp_path / "empty").mkdir()
    root = tmp_path / "empty"
    assert read_mpi(root, {}, str(tmp_path / "conda")).library == str(tmp_path / "conda/lib/libmpi.so.40")
    env = {"LD_LIBRARY_PATH": f"{os.sep}nowhere:{tmp_path / 'own'}"}
    assert read_mpi(root, env, str(tmp_path / "conda")).library == str(tmp_path / "own/libmpi.so.40")
