"""Launches that go wrong in every way a stand-in can play, and what the record says of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.domain.errors import BadInput
from advisor.domain.outcome import (
    BadConfig,
    Crashed,
    Infrastructure,
    OutOfMemory,
    Started,
    TimedOut,
    Unhealthy,
)
from advisor.domain.ports import NoEvidence, TrialEvent
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.engines.trtllm.engine import TrtllmEngine
from tests.engines.trtllm.rig import DEADLINES, LLAMA, WORKLOAD, MakeRig, Rig

pytestmark = pytest.mark.system


def test_a_start_that_hangs_misses_the_deadline_of_its_phase(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "hang", "phase": "load"})
    record = rig.trial()
    assert isinstance(record.outcome, TimedOut)
    assert (record.outcome.phase, record.outcome.deadline_s) == ("load", DEADLINES.load_s)
    assert [timing.name for timing in record.phases][-1] == "load"
    assert record.phases[-1].duration_s >= DEADLINES.load_s


def test_a_rank_that_runs_out_of_memory_while_its_peers_wait_is_out_of_memory(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "oom", "stage": "model", "short_gib": 3.0})
    record = rig.trial()
    assert isinstance(record.outcome, OutOfMemory)
    assert (record.outcome.phase, record.outcome.component) == ("load", "Model")
    assert record.outcome.short_gib == pytest.approx(3.0, abs=0.05)


def test_a_server_that_ignores_sigterm_and_has_workers_of_their_own_leaves_nothing(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "ignore_sigterm"}, {"kind": "orphaning"})
    assert rig.trial().measured
    assert rig.standin.leftovers() == []
    assert rig.standin.held_gib() == [0.0]


@pytest.mark.parametrize("kind", ["segfault", "host_kill"])
def test_a_crash_under_load_is_tried_once_more_and_then_counts(make_rig: MakeRig, kind: str) -> None:
    fault = {"kind": kind, "phase": "serve", "after_tokens": 40}
    record = make_rig({**fault, "times": 1}).trial(max_attempts=2)
    assert (record.measured, record.n_attempts) == (True, 2)

    record = make_rig(fault).trial(max_attempts=2)
    assert isinstance(record.outcome, Crashed)
    assert (record.outcome.phase, record.n_attempts) == ("serve", 2)
    assert record.outcome.reason


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_dead_loop_behind_a_healthy_route_is_found(make_rig: MakeRig, is_silent: bool) -> None:
    """Where the log says it, at once; where nothing does, a token that never comes tells."""
    rig = make_rig({"kind": "dead_loop", "after_requests": 6, "silent": is_silent})
    record = rig.trial()
    assert isinstance(record.outcome, Crashed)
    assert record.outcome.phase == "serve"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "clamp", "tokens": 9}, "9 of 16"),
        ({"kind": "wrong_usage", "offset": 1}, "17"),
        ({"kind": "cut_streams", "every": 3, "after_events": 2}, "ended|cut|DONE"),
        ({"kind": "error_in_stream", "every": 3, "after_events": 2}, "error"),
    ],
)
def test_a_server_that_answers_wrongly_is_unhealthy_and_nothing_is_measured(
    make_rig: MakeRig, fault: dict[str, Any], words: str
) -> None:
    record = make_rig(fault).trial()
    assert isinstance(record.outcome, Unhealthy), record.outcome
    (outcome,) = record.workloads
    assert outcome.metrics is None
    assert outcome.n_short > 0
    assert any(word in record.outcome.reason + str(outcome.note) for word in words.split("|"))


def test_a_pool_that_cuts_max_seq_len_in_silence_is_found_before_any_benchmark(make_rig: MakeRig) -> None:
    record = make_rig({"kind": "small_kv", "tokens": 64}).trial()
    assert isinstance(record.outcome, Unhealthy)
    assert record.workloads == ()
    assert record.effective is not None
    assert record.effective.max_seq_len < 80
    assert any("max_seq_len was cut" in said for said in record.surprises)


def test_a_port_that_is_lost_in_a_race_is_tried_again_with_another(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "port_taken", "times": 1})
    record = rig.trial(max_attempts=2)
    assert record.measured
    assert record.n_attempts == 2
    ports = [launch["argv"][launch["argv"].index("--port") + 1] for launch in rig.standin.launches()]
    assert len(set(ports)) == 2


def test_a_gpu_that_somebody_else_uses_is_no_place_to_launch(make_rig: MakeRig) -> None:
    rig = make_rig()
    with neighbour(rig, gib_held=20):
        record = rig.trial()
    assert isinstance(record.outcome, Infrastructure)
    assert "20.0 GiB" in record.outcome.reason
    assert rig.standin.launches() == [], "nothing was started"
    assert rig.trial().measured


def test_memory_that_another_process_takes_meanwhile_is_not_blamed_on_the_configuration(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "slow", "phase": "load", "s": 1.0})
    process: list[Any] = []

    def move_in(event: TrialEvent) -> None:
        if event.kind == "phase" and event.phase == "load":
            process.append(neighbour(rig, gib_held=60))
            process[-1].__enter__()

    try:
        record = rig.trial(on_event=move_in)
    finally:
        process[0].__exit__(None, None, None)
    assert isinstance(record.outcome, Infrastructure)
    assert "out of memory" in record.outcome.reason
    assert "60.0 GiB" in record.outcome.reason


def test_memory_that_does_not_come_back_is_named_and_the_next_launch_refused(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "leak", "gib": 5.0, "times": 1})
    engine = TrtllmEngine(client_check=False)
    with engine.prepare(rig.spec()).start(rig.events.append, NoEvidence()):
        pass
    said = [event.detail for event in rig.events if event.phase == "stop"]
    assert len(said) == 1
    assert "GPU 0: 5.0 GiB did not come back" in said[0]
    record = rig.trial()
    assert isinstance(record.outcome, Infrastructure)


def test_secrets_of_the_environment_reach_no_file(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig({"kind": "echo_secrets"})
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettokenindeed")
    record = rig.trial()
    assert record.measured
    assert "HF_TOKEN" in rig.log()
    for path in rig.folder.joinpath("run").rglob("*"):
        assert not path.is_file() or b"averysecrettoken" not in path.read_bytes()


def test_a_flood_of_output_is_kept_in_bounded_space_and_read_to_its_end(make_rig: MakeRig) -> None:
    rig = make_rig({"kind": "flood", "phase": "warm_up", "mib": 64}, {"kind": "oom", "stage": "executor_extra"})
    record = rig.trial()
    assert isinstance(record.outcome, OutOfMemory)
    assert record.outcome.phase == "warm_up"
    assert (rig.folder / "run" / "trials" / "0000" / "server.log").stat().st_size < 40 * 2**20


def test_what_the_installed_release_itself_refuses_is_never_launched(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """advisor's tables accept it, the release's own classes do not: theirs is the last word."""
    rig = make_rig()
    strict = rig.folder / "stricter"
    (strict / "tensorrt_llm" / "llmapi").mkdir(parents=True)
    (strict / "tensorrt_llm" / "__init__.py").write_text('__version__ = "1.1.0+standin"\n')
    (strict / "tensorrt_llm" / "llmapi" / "__init__.py").touch()
    (strict / "tensorrt_llm" / "llmapi" / "llm_args.py").write_text(
        "from pydantic import BaseModel, ConfigDict\n"
        "class TorchLlmArgs(BaseModel):\n    model_config = ConfigDict(extra='forbid')\n    model: str\n"
    )
    monkeypatch.syspath_prepend(str(strict))
    record = rig.trial()
    assert isinstance(record.outcome, BadConfig)
    assert "tensorrt_llm 1.1.0+standin itself refuses this" in record.outcome.reason
    assert (record.n_attempts, rig.standin.launches()) == (0, [])


def test_the_checkpoint_is_fetched_once_and_before_any_deadline(make_rig: MakeRig) -> None:
    rig = make_rig()
    engine = TrtllmEngine(client_check=False)
    for _ in range(2):
        with engine.prepare(rig.spec()).start(rig.events.append, NoEvidence()) as server:
            assert server.failure() is None
    assert len(rig.standin.downloads()) == 1
    assert [event.phase for event in rig.events if event.kind == "phase"].count("download") == 1


def test_a_checkpoint_that_cannot_be_fetched_is_no_fault_of_the_configuration(make_rig: MakeRig) -> None:
    record = make_rig({"kind": "hf_gated"}).trial()
    assert isinstance(record.outcome, Infrastructure)
    assert "could not be fetched" in record.outcome.reason
    assert "HF_TOKEN" in record.outcome.reason


def test_a_folder_without_config_is_bad_input(make_rig: MakeRig, tmp_path: Path) -> None:
    rig = make_rig()
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(BadInput, match=r"config\.json"):
        rig.trial(deployment=changed(LLAMA, model=str(tmp_path / "checkpoint")))


def test_a_memory_only_launch_reads_memory_with_dummy_weights_and_measures_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    record = rig.trial(fidelity="memory_only")
    assert isinstance(record.outcome, Started)
    assert record.profiled_gib is not None
    assert record.profiled_gib.activations is not None
    assert record.workloads == ()
    assert record.memory_measured_gib is not None
    written = (rig.folder / "run" / "trials" / "0000" / "extra-llm-api-config.yml").read_text()
    assert "load_format: dummy" in written


def test_the_referee_runs_beside_it_and_says_how_far_it_is(make_rig: MakeRig) -> None:
    (outcome,) = make_rig().trial(referee=True).workloads
    assert outcome.referee is not None
    assert outcome.referee.problems == ()
    assert outcome.referee.n_completed == WORKLOAD.requests()
    assert set(outcome.referee.difference) == {"output_tok_per_s", "ttft_ms_mean", "tpot_ms_mean"}
    assert "--random-ids" in outcome.referee.command
    assert "--tokenize-on-client" in outcome.referee.command


def test_what_is_missing_is_said_with_the_way_out(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    make_rig()
    engine = TrtllmEngine()
    assert engine.missing(LLAMA) is None
    assert "2 GPUs are needed and 1 of 1 GPUs are visible" in str(engine.missing(changed(LLAMA, gpus=2, tp=2)))
    assert "use --gpu h100_sxm" in str(engine.missing(changed(LLAMA, gpu="b200_sxm")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "0 of 1 GPUs are visible" in str(engine.missing(LLAMA))
    monkeypatch.setenv("PATH", "/nowhere")
    assert "trtllm-serve is not installed" in str(TrtllmEngine().missing(LLAMA))


class neighbour:  # noqa: N801 - reads as a verb where it is used
    """Another process that holds memory of GPU 0."""

    def __init__(self, rig: Rig, gib_held: float) -> None:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
        rig.standin.gpus.hold(0, int(gib_held * 2**30), pid=self._process.pid)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._process.communicate(b"\n")


def test_the_record_survives_its_file(make_rig: MakeRig) -> None:
    record = make_rig().trial()
    assert TrialRecord.model_validate_json(json.dumps(json.loads(record.model_dump_json()))) == record
