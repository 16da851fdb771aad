"""Launches of a real vLLM that go wrong: each is called what it is, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.app.trial_runner import never, run_trial, silent
from advisor.domain.measurement import Metrics
from advisor.domain.outcome import Crashed, Infrastructure, Outcome, OutOfMemory, TimedOut
from advisor.domain.ports import EngineRef, LaunchSpec, NoEvidence, OnEvent, TrialEvent, TrialRequest
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.units import from_gib
from advisor.domain.workload import parse_workload
from advisor.engines.served import ServedServer
from advisor.engines.vllm.engine import VllmEngine
from tests.engine_real.rig import CONFIG, living, spec
from tools import referee_check

pytestmark = pytest.mark.engine


def trial(launch: LaunchSpec, engine: VllmEngine, on_event: OnEvent = silent) -> TrialRecord:
    request = TrialRequest(
        number=0, role="search", origin="test", engine=EngineRef(name="vllm"), spec=launch, max_attempts=1
    )
    return run_trial(request, engine, on_event)


def engine_core(folder: Path) -> int:
    """The process that computes, which is no child of advisor's."""
    (pid,) = (pid for pid, words in living(folder).items() if "EngineCore" in words)
    return pid


def under_load(strike: Callable[[], None], engine: VllmEngine, answer_s: float = 30.0) -> TrialRecord:
    """A launch that is struck once its first requests are served."""
    struck: list[float] = []

    def watch(event: TrialEvent) -> None:
        if event.kind == "progress" and event.fraction_done and not struck:
            struck.append(event.fraction_done)
            strike()

    record = trial(spec(answer_s=answer_s), engine, watch)
    assert struck, record.outcome
    return record


def test_our_client_agrees_with_vllm_bench_serve_about_what_it_sent(workplace: Path) -> None:
    """Both on one server; how far they are apart is printed, since a shared machine decides it."""
    engine, workload = VllmEngine(client_check=False), changed(parse_workload("64-32_c2"), n_requests=32)
    with engine.prepare(spec(workload=workload)).start(silent, NoEvidence()) as server:
        assert server.failure() is None and isinstance(server, ServedServer)
        measurer = engine.measurer()
        ours = measurer.measure(server, workload, 1, never, silent, NoEvidence())
        referee = measurer.referee(server, workload, 2, NoEvidence())
        asked = ["--isl", "64", "--osl", "16", "--requests", "4", "--rounds", "2"]
        assert referee_check.main([server.target.base_url, *asked]) in (0, 1)
    assert isinstance(ours.metrics, Metrics)
    assert referee is not None
    assert referee.problems == ()
    assert referee.n_completed == 32
    assert set(referee.difference) == {"output_tok_per_s", "ttft_ms_mean", "tpot_ms_mean"}
    print({name: f"{share:+.1%}" for name, share in referee.difference.items()})  # noqa: T201


def test_host_memory_that_is_refused_is_out_of_memory_with_what_was_tried(workplace: Path) -> None:
    """RLIMIT_AS of 4 GiB and a KV cache of 3 GiB; vLLM itself sees enough memory free on the machine."""
    engine = VllmEngine(launch_prefix=f"prlimit --as={round(from_gib(4))}", client_check=False)
    big = changed(CONFIG, options={"kv_cache_memory_bytes": round(from_gib(3))})
    outcome = trial(spec(big), engine).outcome
    assert isinstance(outcome, OutOfMemory), outcome
    assert outcome.short_gib > 0
    assert outcome.tried_gib == pytest.approx(3.0, rel=0.01)


def test_a_kill_under_load_is_a_crash_and_no_fault_of_memory(workplace: Path) -> None:
    record = under_load(lambda: os.kill(engine_core(workplace), signal.SIGKILL), VllmEngine(client_check=False))
    assert isinstance(record.outcome, Crashed), record.outcome
    assert record.outcome.phase == "serve"


def test_a_server_that_falls_silent_is_given_up_after_its_deadline(workplace: Path) -> None:
    record = under_load(
        lambda: os.kill(engine_core(workplace), signal.SIGSTOP), VllmEngine(client_check=False), answer_s=5.0
    )
    assert isinstance(record.outcome, Crashed | TimedOut), record.outcome


def test_a_port_that_somebody_took_meanwhile_is_the_machines_fault_and_tried_again(workplace: Path) -> None:
    engine = VllmEngine(client_check=False)
    prepared = engine.prepare(spec())
    with socket.socket() as other:
        other.bind(("127.0.0.1", prepared.port))
        other.listen()
        with prepared.start(silent, NoEvidence()) as server:
            outcome: Outcome | None = server.failure()
    assert isinstance(outcome, Infrastructure), outcome
    assert outcome.transient
