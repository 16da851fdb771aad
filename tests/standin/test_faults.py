"""Faults by dial: what they do to a launch, and what advisor's doctor reads in the log."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from advisor.app.doctoring import diagnose_lines
from tests.standin.dial import Dial, begin, recorded
from tests.standin.fixtures import MakeStandIn
from tests.standin.running import Running, events

SMALL = ("--max_batch_size", "4", "--max_seq_len", "2048")


def test_a_fault_strikes_the_launches_it_is_meant_for(tmp_path: Path) -> None:
    dial = Dial(
        faults=(
            {"kind": "second", "launch": 2},
            {"kind": "twice", "times": 2},
            {"kind": "big", "when": {"max_batch_size": {"min": 100}}},
            {"kind": "exact", "when": {"tp": 1, "max_batch_size": 8}},
        )
    )
    record = tmp_path / "record.jsonl"
    struck = []
    for batch in (8, 200, 8, 8):
        launch, faults = begin(record, dial, ["argv"], {"max_batch_size": batch, "tp": 1})
        struck.append([fault["kind"] for fault in faults.active.values()])
        launch.note("end", outcome="fine")
    assert struck == [["twice", "exact"], ["second", "twice", "big"], ["exact"], ["exact"]]
    assert [launch["n"] for launch in recorded(record)] == [1, 2, 3, 4]
    assert all({"start", "end"} == set(launch["times"]) for launch in recorded(record))


def test_a_hang_prints_nothing_more(make_standin: MakeStandIn) -> None:
    with Running(make_standin(faults=[{"kind": "hang", "phase": "load"}]), *SMALL) as server:
        server.wait_for("GB for model weights.")
        assert server.stop() == -signal.SIGTERM
        assert server.lines[-1].endswith("GB for model weights.")


def test_a_slow_phase_and_secrets_in_the_log(make_standin: MakeStandIn) -> None:
    faults = [{"kind": "slow", "phase": "kv_estimate", "s": 0.3}, {"kind": "echo_secrets"}]
    standin = make_standin(faults=faults)
    with Running(standin, *SMALL, HF_TOKEN="hf_not_a_real_token") as server:
        server.ready()
        assert "HF_TOKEN=hf_not_a_real_token" in server.text
        server.stop()
    times = standin.launches()[0]["times"]
    assert times["ready"] - times["workers"] > 0.3


def test_a_worker_that_dies_while_loading_leaves_only_wrapper_lines(make_standin: MakeStandIn) -> None:
    with Running(make_standin(faults=[{"kind": "kill_worker", "phase": "load"}]), *SMALL) as server:
        assert server.exit_code() == 1
        assert "CUDA" not in server.text
        assert server.lines[-1] == "RuntimeError: Executor worker died during initialization"
        assert diagnose_lines(server.lines).verdict == "host_oom"


def test_the_kernel_kills_the_whole_server(make_standin: MakeStandIn) -> None:
    with Running(make_standin(faults=[{"kind": "host_kill", "phase": "load"}]), *SMALL) as server:
        assert server.exit_code() == -signal.SIGKILL


def test_a_flood_of_lines_and_memory_that_nobody_gives_back(make_standin: MakeStandIn) -> None:
    faults = [{"kind": "flood", "phase": "warm_up", "mib": 8}, {"kind": "oom", "stage": "executor_extra"}]
    standin = make_standin(faults=[*faults, {"kind": "leak", "gib": 3.0}])
    with Running(standin, *SMALL) as server:
        assert server.exit_code() == 1
        assert len(server.text) > 8 * 2**20 - 100_000
    assert standin.held_gib() == [3.0]


def test_workers_that_nobody_ends_keep_their_memory(make_standin: MakeStandIn) -> None:
    standin = make_standin(faults=[{"kind": "orphaning"}, {"kind": "ignore_sigterm"}])
    with Running(standin, *SMALL) as server:
        server.ready()
        (worker,) = standin.launches()[0]["worker_pids"]
        server.process.terminate()
        assert server.ask("GET", "/health")[0] == 200, "deaf"
        server.process.kill()
        server.process.wait()
        assert standin.leftovers() == [worker]
        assert standin.held_gib()[0] > 70.0
        os.kill(worker, signal.SIGTERM)  # deaf, too
        assert standin.leftovers() == [worker]
        os.kill(worker, signal.SIGKILL)


def test_a_crash_in_the_middle_of_a_stream(make_standin: MakeStandIn) -> None:
    with Running(make_standin(faults=[{"kind": "segfault", "after_tokens": 5}]), *SMALL) as server:
        server.ready()
        with pytest.raises(http.client.IncompleteRead) as cut:
            server.complete(10, 100, stream=True)
        assert 1 <= len(events(cut.value.partial)) <= 5
        assert server.exit_code() == 139
        found = diagnose_lines(server.lines)
        assert (found.verdict, found.phase) == ("crash", "serve")


@pytest.mark.parametrize("release", ["1.2.0", "1.3.0rc"])
def test_out_of_memory_under_load_kills_the_loop(release: str, make_standin: MakeStandIn) -> None:
    """World 1 fragments so badly that the first request of a launch with a huge token budget fails."""
    with Running(make_standin(release), "--max_num_tokens", "131072", *SMALL) as server:
        server.ready()
        with pytest.raises(http.client.IncompleteRead):
            server.complete(10, 5, stream=True)
        if release == "1.2.0":
            assert server.ask("GET", "/health")[0] == 200
            with pytest.raises(TimeoutError):
                server.ask("GET", "/health_generate", timeout_s=0.2)
            server.process.kill()
        else:
            assert server.exit_code() == 1
    found = diagnose_lines(server.lines)
    assert (found.verdict, found.phase) == ("oom", "serve")
    assert found.short_gib is not None
    assert found.short_gib > 1.0


def test_out_of_memory_under_load_at_will(make_standin: MakeStandIn) -> None:
    fault = {"kind": "oom", "stage": "serve", "rows": 2, "short_gib": 0.75}
    with Running(make_standin("1.3.0rc", faults=[fault]), *SMALL) as server:
        server.ready()
        assert server.complete(10, 2)[0] == 200, "one row at a time is fine"
        two = {"model": "m", "prompt": [[1], [2]], "max_tokens": 9, "ignore_eos": True}
        status, body = server.ask("POST", "/v1/completions", two)
        assert status == 400
        assert "CUDA out of memory" in json.loads(body)["message"]
        assert server.exit_code() == 1
        assert diagnose_lines(server.lines).short_gib == pytest.approx(0.75, abs=0.01)


def test_a_dead_loop_answers_health_and_nothing_else(make_standin: MakeStandIn) -> None:
    with Running(make_standin(faults=[{"kind": "dead_loop", "after_requests": 1}]), *SMALL) as server:
        server.ready()
        assert server.complete(10, 2)[0] == 200
        server.wait_for("Error in event loop")
        assert server.ask("GET", "/health")[0] == 200
        with pytest.raises(TimeoutError):
            server.ask("GET", "/health_generate", timeout_s=0.2)


def test_answers_that_lie(make_standin: MakeStandIn) -> None:
    faults: list[dict[str, Any]] = [
        {"kind": "cut_streams", "every": 4, "after_events": 2},
        {"kind": "error_in_stream", "every": 3, "after_events": 2},
        {"kind": "clamp", "tokens": 6},
        {"kind": "wrong_usage", "offset": 2},
        {"kind": "no_metrics"},
    ]
    standin = make_standin(faults=faults)
    with Running(standin, *SMALL) as server:
        server.ready()
        plain = json.loads(server.complete(10, 9)[1])
        assert plain["choices"][0]["text"] == " token" * 6
        assert plain["usage"]["completion_tokens"] == 8
        _, second = server.complete(10, 9, stream=True)
        assert len(events(second)) == 6
        status, third = server.complete(10, 9, stream=True)
        assert (status, events(third)[-1]["object"]) == (200, "error")
        with pytest.raises(http.client.IncompleteRead) as cut:
            server.complete(10, 9, stream=True)
        assert len(events(cut.value.partial)) == 2
        assert server.ask("GET", "/metrics") == (200, b"[]")
        server.stop()


def test_a_port_that_is_said_to_be_taken(make_standin: MakeStandIn) -> None:
    with Running(make_standin("1.2.0", faults=[{"kind": "port_taken", "times": 1}])) as server:
        assert server.exit_code() == 1
        assert diagnose_lines(server.lines).verdict == "port"
