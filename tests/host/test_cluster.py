"""A launch prefix: how srun is named, what reaches a step that it left, and where its server listens."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.host.cluster import Address, address, end_commands, first_node, prefixed
from advisor.host.process import Launch, ServerProcess, end_leftovers
from tests.host.elsewhere import Elsewhere, elsewhere
from tests.host.launches import AWKWARD, an_advisor, ready
from tests.host.waiting import until

SRUN = "srun -N 2 --mpi=pmix trtllm-llmapi-launch"
HERE = Address("127.0.0.1", "127.0.0.1")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Elsewhere]:
    with elsewhere(tmp_path / "slurm") as daemon:
        yield daemon


def a_launch(slurm: Elsewhere, run: Path, *steps: str) -> Launch:
    argv = prefixed("srun -N 2 --mpi=pmix", [*AWKWARD, *steps], "advisor-1")
    return Launch(argv, slurm.env(), None, str(run), on_end=end_commands(SRUN, "advisor-1"))


# -- words -----------------------------------------------------------------------------------------------------------


def test_srun_gets_the_name_of_the_launch_and_others_none() -> None:
    assert prefixed(SRUN, ["trtllm-serve", "m"], "advisor-1") == (
        *("srun", "--job-name=advisor-1", "-N", "2", "--mpi=pmix", "trtllm-llmapi-launch", "trtllm-serve", "m"),
    )
    assert prefixed("env 'A=b c' /usr/bin/srun x", ["m"], "n")[:4] == ("env", "A=b c", "/usr/bin/srun", "--job-name=n")
    assert prefixed("mpirun -n 8", ["m"], "n") == ("mpirun", "-n", "8", "m")
    assert end_commands("mpirun -n 8", "n") == ()


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "is empty: leave it out"),
        ("   ", "is empty"),
        ("srun 'a", "no closing quotation"),
        ("srun --job-name=mine", "leave out --job-name=mine"),
        ("srun -J mine x", "leave out -J"),
    ],
)
def test_a_prefix_that_cannot_be_meant(prefix: str, expected: str) -> None:
    with pytest.raises(BadInput, match=f"^--launch-prefix.*{expected}"):
        prefixed(prefix, ["m"], "n")


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.text()))
def test_words_survive_quoting(words: list[str], argv: list[str]) -> None:
    words = [word for word in words if Path(word).name != "srun"] or ["x"]
    assert prefixed(shlex.join(words), argv, "n") == (*words, *argv)


# -- where it listens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[003-005,9]", "gpu003"),
        ("gpu-[07]", "gpu-07"),
        ("r[1-2]n[01-16],login", "r1n01"),
        ("a-b.example.com,c", "a-b.example.com"),
    ],
)
def test_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@pytest.mark.parametrize("nodes", ["", ",", "[", "./hosts", "a b"])
def test_what_is_no_list_of_nodes(nodes: str) -> None:
    with pytest.raises(BadInput, match="not a list of Slurm nodes"):
        first_node(nodes)


@pytest.mark.parametrize(
    ("prefix", "env", "expected"),
    [
        ("numactl -N 0", {"SLURM_JOB_NODELIST": "far[1-2]"}, HERE),
        (SRUN, {"SLURM_JOB_NODELIST": "here,far"}, HERE),
        (SRUN, {"SLURM_JOB_NODELIST": "here.example.com"}, HERE),
        (SRUN, {"SLURM_JOB_NODELIST": "alias[1-2]", "SLURMD_NODENAME": "alias1"}, HERE),
        (SRUN, {"SLURM_JOB_NODELIST": "far[1-2]"}, Address("far1", "0.0.0.0")),
        ("srun --nodelist=far7 x", {"SLURM_JOB_NODELIST": "here,far7"}, Address("far7", "0.0.0.0")),
        ("srun -w far7 x", {}, Address("far7", "0.0.0.0")),
        ("srun --nodelist here x", {}, HERE),
    ],
)
def test_loopback_unless_the_first_node_is_another_machine(prefix: str, env: dict[str, str], expected: Address) -> None:
    assert address(prefix, env, here="here") == expected


def test_a_node_that_nobody_knows_yet_is_refused() -> None:
    with pytest.raises(BadInput, match="inside an allocation"):
        address(SRUN, {})


# -- steps -----------------------------------------------------------------------------------------------------------


def test_a_step_is_heard_and_stopped_through_srun(tmp_path: Path, slurm: Elsewhere) -> None:
    heard: list[bytes] = []
    with ServerProcess(a_launch(slurm, tmp_path, "goodbye=bye", "say=ready", "wait"), heard.append) as server:
        ready(heard)
        assert server.stop(grace_s=60).exit_code == 0
    assert b"".join(heard) == b"ready\nbye"
    assert [each.name for each in slurm.started] == ["advisor-1"]


@pytest.mark.parametrize("killed", ["srun", "guardian"])
def test_a_step_that_outlives_srun_is_killed(tmp_path: Path, slurm: Elsewhere, killed: str) -> None:
    heard: list[bytes] = []
    with ServerProcess(a_launch(slurm, tmp_path, "deaf", "say=ready", "wait"), heard.append) as server:
        ready(heard)
        os.kill(server.pid if killed == "srun" else server.guardian_pid, signal.SIGKILL)
        assert server.stop().exit_code == -signal.SIGKILL
        until(lambda: slurm.alive() == [])
    assert slurm.calls[1:] == [
        ["scancel", "--name=advisor-1"],
        ["squeue", "--steps", "--noheader", "--name=advisor-1", "--format=%i"],
        ["scancel", "--signal=KILL", "7.0"],
    ]


def test_a_step_left_by_advisor_and_guardian_is_killed_by_the_next_advisor(
    tmp_path: Path, slurm: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = a_launch(slurm, tmp_path, "deaf", "say=ready", "wait")
    for name in ("PATH", "ELSEWHERE"):
        monkeypatch.setenv(name, slurm.env()[name])
    with an_advisor(launch) as advisor:
        advisor.kill(advisor.guardian)
        assert len(slurm.alive()) == 1
        end_leftovers(str(tmp_path))
    until(lambda: slurm.alive() == [])
