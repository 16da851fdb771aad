"""Real servers that misbehave: whatever they do, and whoever is killed, no process of a launch is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.domain.errors import EngineFailed, EngineMissing
from advisor.host.marks import LAUNCH, RUN, Mark
from advisor.host.process import Ended, Launch, ServerProcess, end_leftovers
from tests.host.launches import AWKWARD, an_advisor, awkward, lives, nothing_left, ready
from tests.host.waiting import until


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    until(lambda: nothing_left(tmp_path))
    assert set(threading.enumerate()) <= threads, "a thread outlived its launch"
    assert open_descriptors() <= descriptors, "a descriptor outlived its launch"
    assert list(tmp_path.glob(".launch-*")) == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def ran(launch: Launch) -> tuple[bytes, Ended]:
    """What a launch that ends by itself printed, and how it ended."""
    heard: list[bytes] = []
    with ServerProcess(launch, heard.append) as server:
        assert server.wait(60) is not None
    return b"".join(heard), server.stop()


# -- in normal life --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "code"), [("exit=0", 0), ("exit=3", 3), ("die=11", -11), ("die=9", -9)])
def test_exit_codes_and_all_output(tmp_path: Path, last: str, code: int) -> None:
    heard, ended = ran(awkward(tmp_path, "say=one", "flood=300000", "say=two", last))
    assert heard == b"one\n" + b"x" * 300_000 + b"two\n"
    assert ended == Ended(exit_code=code, killed=(), left=())


def test_a_running_server_is_asked_and_stopped_once(tmp_path: Path) -> None:
    heard: list[bytes] = []
    server = ServerProcess(awkward(tmp_path, "worker", "goodbye=bye", "say=ready", "wait"), heard.append)
    ready(heard)
    assert server.poll() is None
    assert server.wait(0.01) is None
    pids = server.pids()
    assert len(pids) == 2
    assert server.pid in pids
    assert os.getsid(server.pid) == server.pid, "Ctrl-C in advisor's terminal must not reach it"
    ended = server.stop(grace_s=60)
    assert ended == Ended(exit_code=0, killed=(), left=())
    assert (server.stop(), server.poll(), server.wait(0), server.pids()) == (ended, 0, 0, frozenset())
    assert b"".join(heard) == b"ready\nbye"


def test_processes_of_a_launch_carry_its_mark_and_the_environment_that_was_given(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "X": "größer", "Y": os.fsdecode(b"\xff")}
    heard, _ = ran(awkward(tmp_path, *(f"environment={name}" for name in (RUN, LAUNCH, "X", "Y")), "exit=0", env=env))
    run, mark, *rest = heard.splitlines()
    assert Path(os.fsdecode(run)) == tmp_path.resolve()
    assert rest == ["größer".encode(), b"\xff"]
    launch = Mark.parse(mark.decode())
    assert launch is not None
    assert launch.advisor == os.getpid()
    assert not launch.is_left


def test_a_server_gets_its_working_folder_and_nothing_of_advisors(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        heard, _ = ran(Launch((*AWKWARD, "descriptors", "signals", "exit=0"), {}, None, str(tmp_path)))
        inside, _ = ran(Launch(("/bin/pwd",), {}, str(tmp_path), str(tmp_path)))
    # 3 is the folder that the server itself lists. SIGINT is not ignored, no signal is blocked.
    assert heard == b"0 1 2 3\n0 0\n"
    assert inside.decode().strip() == str(tmp_path)


def test_two_launches_know_their_own_processes(tmp_path: Path) -> None:
    heard: tuple[list[bytes], list[bytes]] = ([], [])
    with (
        ServerProcess(awkward(tmp_path, "orphan", "say=ready", "wait"), heard[0].append) as one,
        ServerProcess(awkward(tmp_path, "say=ready", "wait"), heard[1].append) as other,
    ):
        for each in heard:
            ready(each)
        assert other.pids() == {other.pid}
        assert one.pid in one.pids()
        assert len(one.pids()) == 2
        other.stop()
        assert one.poll() is None
        assert end_leftovers(str(tmp_path)) == (), "the launches of an advisor that lives are its own"
        assert one.poll() is None


def test_output_that_raises_does_not_stop_the_server_and_is_raised_in_the_end(tmp_path: Path) -> None:
    def fails(chunk: bytes) -> None:
        raise OSError("disk full")

    server = ServerProcess(awkward(tmp_path, "flood=1000000", "exit=5"), fails)
    assert server.wait(60) == 5
    with pytest.raises(OSError, match="disk full"):
        server.stop()
    assert server.stop().exit_code == 5


# -- that cannot start -----------------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_or_cannot_run_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    (tmp_path / "nothing").write_text("neither script nor program\n")
    (tmp_path / "nothing").chmod(0o755)
    for program, why in {
        "no-such-program": "There is no program no-such-program",
        "/no/such/program": "There is no program /no/such/program",
        str(tmp_path / "plain"): "Permission denied",
        str(tmp_path / "lost"): "interpreter that its first line names",
        str(tmp_path / "nothing"): "Exec format error",
    }.items():
        with pytest.raises(EngineMissing, match=f"{why}.*--container-image"):
            ServerProcess(Launch((program,), dict(os.environ), None, str(tmp_path)), print)


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"No such file or directory \(.*/nowhere\)"):
        ServerProcess(awkward(tmp_path, "exit=0", cwd=str(tmp_path / "nowhere")), print)
    with pytest.raises(EngineFailed, match=r"Argument list too long\.$"):
        ServerProcess(awkward(tmp_path, "x" * 3_000_000), print)
    with pytest.raises(EngineFailed, match="null byte"):
        ServerProcess(awkward(tmp_path, "a\0b"), print)


# -- that misbehaves -------------------------------------------------------------------------------------------------


def test_a_server_deaf_to_sigterm_is_killed_with_its_workers(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, "deaf", "worker", "orphan", "say=ready", "wait"), heard.append) as server:
        ready(heard)
        pids = server.pids()
        ended = server.stop(grace_s=0.1)
    assert len(pids) == 3
    assert ended == Ended(exit_code=-signal.SIGKILL, killed=tuple(sorted(pids)), left=())


def test_a_second_stop_hurries_the_first(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, "deaf", "say=ready", "wait"), heard.append) as server:
        ready(heard)
        patient = threading.Thread(target=server.stop, args=[600])
        patient.start()
        assert server.stop(grace_s=0.0).killed == (server.pid,)
        patient.join()


@pytest.mark.parametrize("end", ["exit=1", "die=9"])
def test_workers_that_outlive_their_server_are_ended_by_themselves(tmp_path: Path, end: str) -> None:
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, "worker", "orphan", "wiped-orphan", end), heard.append) as server:
        until(lambda: server.poll() is not None and server.pids() == frozenset())
        ended = server.stop()
    assert len(ended.killed) == 2, "the orphans ignore SIGTERM; the worker heard it"


def test_a_server_that_prints_on_after_sigterm_does_not_hold_up_the_end(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, "prattle"), heard.append) as server:
        until(lambda: bool(heard))
        ended = server.stop(grace_s=0.1)
    assert ended.exit_code == -signal.SIGKILL
    assert set(b"".join(heard).splitlines()) == {b"still here"}


def test_a_server_that_closed_its_output_is_still_watched(tmp_path: Path) -> None:
    heard, ended = ran(awkward(tmp_path, "say=last", "silent", "say=unheard", "exit=4"))
    assert (heard, ended.exit_code) == (b"last\n", 4)


def test_a_reader_that_is_slow_makes_the_server_wait_and_loses_nothing(tmp_path: Path) -> None:
    heard: list[bytes] = []
    go_on = threading.Event()

    def slow(chunk: bytes) -> None:
        go_on.wait()
        heard.append(chunk)

    with ServerProcess(awkward(tmp_path, "flood=400000", "exit=0"), slow) as server:
        assert server.wait(0.1) is None, "the pipe is full"
        go_on.set()
        assert server.wait(60) == 0
        server.stop()
    assert sum(map(len, heard)) == 400_000


# -- that is killed --------------------------------------------------------------------------------------------------

CLINGING = ("deaf", "worker", "orphan", "wiped", "wiped-orphan", "say=ready", "wait")


def test_when_advisor_is_killed_its_guardian_ends_the_launch(tmp_path: Path) -> None:
    with an_advisor(awkward(tmp_path, "worker", "orphan", "wiped-orphan", "say=ready", "wait")) as advisor:
        assert len(advisor.launch) == 4
        advisor.kill()
        until(lambda: not any(lives(pid) for pid in (advisor.guardian, *advisor.launch)))


def test_a_child_of_advisor_that_keeps_the_lifeline_open_does_not_hide_its_death(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from advisor.host.process import ServerProcess
from tests.host.launches import awkward
server = ServerProcess(awkward(sys.argv[1], "wait"), print)
child = os.fork()
if child == 0:
    signal.pause()
print(server.pid, child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    server, child = (int(word) for word in process.stdout.readline().split())
    until(lambda: not lives(server))
    assert lives(child)
    os.kill(child, signal.SIGKILL)
    process.communicate()


def test_when_the_guardian_is_killed_advisor_ends_the_launch(tmp_path: Path) -> None:
    heard: list[bytes] = []
    ran_on_end = tmp_path / "ran"
    launch = awkward(tmp_path, *CLINGING, on_end=(("touch", str(ran_on_end)),))
    with ServerProcess(launch, heard.append) as server:
        ready(heard)
        pids = server.pids()
        os.kill(server.guardian_pid, signal.SIGKILL)
        assert server.wait(60) == -signal.SIGKILL
        assert server.stop().left == ()
    assert not any(lives(pid) for pid in pids)
    assert ran_on_end.exists()


def test_a_guardian_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.host.process.PATIENCE_S", -6.0)  # its own time is up at once
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, *CLINGING), heard.append) as server:
        ready(heard)
        os.kill(server.guardian_pid, signal.SIGSTOP)
        assert server.stop(grace_s=0.1).exit_code == -signal.SIGKILL


def test_when_both_are_killed_a_later_advisor_ends_what_is_left(tmp_path: Path) -> None:
    with an_advisor(awkward(tmp_path, *CLINGING)) as advisor:
        advisor.kill(advisor.guardian)
        until(lambda: not lives(advisor.server))
        workers = set(advisor.launch) - {advisor.server}
        assert len(workers) == 4
        assert all(lives(pid) for pid in workers)
        assert end_leftovers(str(tmp_path / "other")) == ()
        assert set(end_leftovers(str(tmp_path))) == workers
        assert end_leftovers(str(tmp_path)) == ()


def test_a_later_advisor_hurries_a_guardian_that_is_still_patient(tmp_path: Path) -> None:
    with an_advisor(awkward(tmp_path, *CLINGING)) as advisor:
        advisor.kill()
        assert set(end_leftovers(str(tmp_path))) == set(advisor.launch)
        until(lambda: not lives(advisor.guardian))


def test_a_shell_that_inherited_the_mark_of_a_dead_advisor_is_spared(tmp_path: Path) -> None:
    """`end_leftovers` runs below a process, and in a session, that carries the mark."""
    mark = Mark(Mark.new().place, 2**22 + 1, 1, "0")
    script = f"import os; from advisor.host.process import end_leftovers; print(end_leftovers({str(tmp_path)!r}))"
    env = {**os.environ, RUN: str(tmp_path.resolve()), LAUNCH: str(mark), "PYTHONPATH": str(Path(__file__).parents[2])}
    shell = f"'{sys.executable}' -c \"{script}\"; echo spared"
    said = subprocess.run(["sh", "-c", shell], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["()", "spared"]


def test_signals_to_the_guardian(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with ServerProcess(awkward(tmp_path, "say=ready", "wait"), heard.append) as server:
        ready(heard)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(server.guardian_pid, number)
        assert server.wait(0.1) is None
        os.kill(server.guardian_pid, signal.SIGTERM)
        assert server.wait(60) == -signal.SIGTERM


# -- what runs elsewhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "server", "guardian"])
def test_on_end_runs_once_however_the_launch_ends(tmp_path: Path, how: str) -> None:
    heard: list[bytes] = []
    launch = awkward(tmp_path, "worker", "say=ready", "wait", on_end=(("sh", "-c", f"echo ended >> {tmp_path}/log"),))
    with ServerProcess(launch, heard.append) as server:
        ready(heard)
        if how != "stop":
            os.kill(server.pid if how == "server" else server.guardian_pid, signal.SIGKILL)
            assert server.wait(60) == -signal.SIGKILL
    assert end_leftovers(str(tmp_path)) == ()
    assert (tmp_path / "log").read_text() == "ended\n"


@pytest.mark.parametrize("both", [False, True])
def test_on_end_runs_once_when_advisor_is_killed(tmp_path: Path, both: bool) -> None:
    ends = (("sh", "-c", f"echo ended >> {tmp_path}/log"),)
    with an_advisor(awkward(tmp_path, "worker", "say=ready", "wait", on_end=ends)) as advisor:
        advisor.kill(*([advisor.guardian] if both else []))
        if both:
            until(lambda: not lives(advisor.server))
            assert len(end_leftovers(str(tmp_path))) == 1
        else:
            until(lambda: nothing_left(tmp_path))
    assert end_leftovers(str(tmp_path)) == ()
    assert (tmp_path / "log").read_text() == "ended\n"


def test_on_end_that_hangs_or_is_not_there_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fallback, whose patience a test can shorten; a command that did not come to an end stays remembered."""
    monkeypatch.setattr("advisor.host.marks.ON_END_S", 0.05)
    heard: list[bytes] = []
    launch = awkward(tmp_path, "say=ready", "wait", on_end=(("sleep", "60"), ("no-such-program",)))
    with ServerProcess(launch, heard.append) as server:
        ready(heard)
        os.kill(server.guardian_pid, signal.SIGKILL)
        assert server.stop().exit_code == -signal.SIGKILL
    (record,) = tmp_path.glob(".launch-*.json")
    assert end_leftovers(str(tmp_path)) == ()
    assert record.exists(), "its advisor lives"
    record.unlink()


def test_a_launch_that_cannot_be_remembered_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(EngineFailed, match="Nothing was launched"):
        ServerProcess(awkward(tmp_path / "run", "exit=0", on_end=(("true",),)), print)
