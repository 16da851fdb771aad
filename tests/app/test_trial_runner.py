"""One trial, from request to record, on an engine that does what each test writes down."""

from __future__ import annotations

import pytest

from advisor.app.trial_runner import by_growing_memory, run_trial
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput, EngineFailed
from advisor.domain.measurement import ClientReport, WorkloadOutcome
from advisor.domain.outcome import (
    BadConfig,
    Crashed,
    Hopeless,
    Infrastructure,
    Measured,
    Outcome,
    OutOfMemory,
    TimedOut,
    Unhealthy,
)
from advisor.domain.ports import EngineRef, Incumbent, LaunchSpec, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from tests.app.scripted import Act, ScriptedEngine, ScriptedLaunch, metrics

SMALL, LARGE = parse_workload("1k1k_c8"), parse_workload("4k1k_c64")
CONFIG = ServingConfig(
    max_batch_size=8, max_num_tokens=8192, cuda_graph_max_batch_size=8, kv_cache_free_gpu_memory_fraction=0.9
)
DEPLOYMENT = Deployment(model="meta-llama/Llama-3.1-8B-Instruct", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)
OOM = OutOfMemory(phase="serve", component="activations", short_gib=1.5)
OOM_AT_START = OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=3.0)
CRASH = Crashed(phase="load", reason="segmentation fault")
TIMEOUT = TimedOut(phase="load", deadline_s=600)


def request(max_attempts: int = 2) -> TrialRequest:
    # The larger workload is named first: the runner must not take them in this order.
    spec = LaunchSpec(deployment=DEPLOYMENT, config=CONFIG, workloads=(LARGE, SMALL), seed=7)
    return TrialRequest(
        number=3, role="search", origin="test", engine=EngineRef(name="s"), spec=spec, max_attempts=max_attempts
    )


def run(*acts: Act, max_attempts: int = 2) -> tuple[TrialRecord, ScriptedEngine]:
    engine = ScriptedEngine(lambda spec, n: acts[n])
    return run_trial(request(max_attempts), engine), engine


def test_a_healthy_server_is_measured_under_every_workload_least_memory_first() -> None:
    record, engine = run(Act(tok_per_s=500.0))
    assert record.outcome == Measured()
    assert [step for step in engine.story if step != "asked"] == [
        "start", "measure 1k1k_c8", "measure 4k1k_c64", "stop",
    ]  # fmt: skip
    assert [outcome.workload for outcome in record.workloads] == ["4k1k_c64", "1k1k_c8"], "in the study's order"
    assert len({outcome.seed for outcome in record.workloads}) == 2, "equal prompts would hit the prefix cache"
    assert (record.number, record.n_attempts, record.config) == (3, 1, CONFIG)


def test_workloads_grow_in_the_kv_cache_they_fill() -> None:
    names = ("8k1k_c1", "1k1k_c64", "4k1k_c8", "1k8k_r2")
    order = by_growing_memory(tuple(map(parse_workload, names)))
    assert [workload.name for _, workload in order] == ["8k1k_c1", "4k1k_c8", "1k1k_c64", "1k8k_r2"]


@pytest.mark.parametrize("first", [CRASH, TIMEOUT])
def test_a_crash_or_a_timeout_gets_one_more_launch(first: Outcome) -> None:
    record, engine = run(Act(at_start=first), Act())
    assert (record.outcome, record.n_attempts, len(engine.starts)) == (Measured(), 2, 2)
    assert engine.story.count("stop") == 2, "the first server is stopped before the second starts"

    record, engine = run(Act(at_start=first), Act(at_start=CRASH))
    assert (record.outcome, record.n_attempts, len(engine.starts)) == (CRASH, 2, 2)


def test_a_retry_that_the_budget_cannot_pay_is_not_made() -> None:
    record, engine = run(Act(at_start=CRASH), max_attempts=1)
    assert (record.outcome, record.n_attempts, len(engine.starts)) == (CRASH, 1, 1)


@pytest.mark.parametrize(
    "act",
    [
        Act(at_start=OOM_AT_START),
        Act(under={SMALL.name: OOM}),
        Act(at_start=BadConfig(reason="no")),
        Act(at_start=Unhealthy(reason="no")),
        Act(kv_tokens=100),
        Act(at_start=Infrastructure(reason="port taken")),
    ],
)
def test_nothing_else_is_launched_twice(act: Act) -> None:
    record, engine = run(act)
    assert not record.measured
    assert (record.n_attempts, len(engine.starts)) == (1, 1)
    assert engine.story[-1] == "stop"


def test_a_workload_measured_before_the_server_died_stays_valid_and_the_verdict_is_the_worst() -> None:
    record, _ = run(Act(under={LARGE.name: OOM}, tok_per_s=800.0))
    assert record.outcome == OOM
    kept = record.workload(SMALL.name)
    assert kept is not None
    assert kept.metrics is not None
    assert kept.metrics.output_tok_per_s == 800.0
    assert record.workload(LARGE.name) is None


def test_on_a_client_error_the_server_is_asked_first() -> None:
    # The scripted client sees only a connection reset in both cases.
    record, engine = run(Act(under={SMALL.name: OOM}))
    assert record.outcome == OOM
    assert engine.story[-2:] == ["asked", "stop"]

    record, _ = run(Act(under={SMALL.name: ConnectionRefusedError("too many open files")}))
    assert isinstance(record.outcome, Infrastructure)
    assert "1k1k_c8: ConnectionRefusedError: too many open files" in record.outcome.reason


@pytest.mark.parametrize("error", [OSError("address already in use"), EngineFailed("the driver is gone")])
def test_a_start_that_the_machine_refused_says_nothing_about_the_configuration(error: Exception) -> None:
    record, _ = run(Act(at_start=error))
    assert isinstance(record.outcome, Infrastructure)
    assert str(error) in record.outcome.reason


def test_a_bug_is_not_an_outcome() -> None:
    with pytest.raises(ZeroDivisionError):
        run(Act(at_start=ZeroDivisionError()))
    engine = ScriptedEngine(Act(under={SMALL.name: ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        run_trial(request(), engine)
    assert engine.story[-1] == "stop", "no server outlives its trial"


def test_a_configuration_that_the_engine_refuses_is_never_started() -> None:
    class Refusing(ScriptedEngine):
        def prepare(self, spec: LaunchSpec) -> ScriptedLaunch:
            raise BadInput("no such option")

    engine = Refusing(Act())
    record = run_trial(request(), engine)
    assert (record.outcome, engine.starts) == (BadConfig(reason="no such option"), [])


@pytest.mark.parametrize(
    ("tokens", "healthy"), [(LARGE.max_tokens_per_request, True), (LARGE.max_tokens_per_request - 1, False)]
)
def test_a_server_that_cannot_hold_the_longest_request_is_unhealthy_before_any_benchmark(
    tokens: int, healthy: bool
) -> None:
    record, engine = run(Act(kv_tokens=tokens))
    assert record.measured == healthy
    assert isinstance(record.outcome, Measured if healthy else Unhealthy)
    assert any(step.startswith("measure") for step in engine.story) == healthy


def test_a_benchmark_that_did_not_count_is_no_measurement() -> None:
    name, saturated = SMALL.name, ClientReport(loop_lag_p99_ms=80.0, cpu_share=0.99, saturated=True)
    none = WorkloadOutcome(workload=name, metrics=None, seed=0, note="hit rate 40 %")
    client = WorkloadOutcome(workload=name, metrics=None, seed=0, note="80 ms late", client=saturated)
    assert run(Act(under={name: none}))[0].outcome == Infrastructure(reason="hit rate 40 %")
    assert run(Act(under={name: client}))[0].outcome == Infrastructure(reason=f"{name}: 80 ms late")


def test_a_server_that_answers_wrongly_is_unhealthy_and_not_asked_again() -> None:
    name = SMALL.name
    short = WorkloadOutcome(workload=name, metrics=metrics(1.0), seed=0, n_short=2)
    told = WorkloadOutcome(workload=name, metrics=None, seed=0, n_short=2, note="2 of 64 requests got HTTP 400")
    for outcome, reason in (
        (short, f"{name}: 2 requests fell short"),
        (told, f"{name}: 2 of 64 requests got HTTP 400"),
    ):
        record, engine = run(Act(under={name: outcome}))
        assert record.outcome == Unhealthy(reason=reason)
        assert len(engine.starts) == 1


def test_a_workload_that_was_stopped_does_not_keep_the_others_from_being_measured() -> None:
    early = WorkloadOutcome(workload=SMALL.name, metrics=None, seed=0, stopped_early=True, note="too slow")
    record, engine = run(Act(under={SMALL.name: early}))
    assert record.outcome == Hopeless(reason=f"{SMALL.name}: too slow")
    assert record.served and not record.measured
    other = record.workload(LARGE.name)
    assert other is not None and other.metrics is not None
    assert len(engine.starts) == 1


def test_a_run_that_was_stopped_while_the_client_was_the_limit_says_nothing_about_the_server() -> None:
    saturated = ClientReport(loop_lag_p99_ms=80.0, cpu_share=0.99, saturated=True)
    early = WorkloadOutcome(workload=SMALL.name, metrics=None, seed=0, stopped_early=True, client=saturated)
    assert isinstance(run(Act(under={SMALL.name: early}))[0].outcome, Infrastructure)


def contending(act: Act, *values: float) -> tuple[TrialRecord, ScriptedEngine]:
    """A trial that has to beat a value under each workload, the larger one first."""
    to_beat = [
        Incumbent(workload=workload.name, value=value, log_noise=0.01)
        for workload, value in zip((LARGE, SMALL), values, strict=True)
    ]
    engine = ScriptedEngine(act)
    return run_trial(changed(request(), incumbents=tuple(to_beat)), engine), engine


def test_a_contender_is_measured_again_on_its_launch_once_all_workloads_were_served() -> None:
    record, engine = contending(Act(tok_per_s=500.0), 500.0, 400.0)
    steps = [step for step in engine.story if step.startswith("measure")]
    assert steps == ["measure 1k1k_c8", "measure 4k1k_c64", "measure 4k1k_c64", "measure 4k1k_c64"]
    assert len(set(engine.seeds)) == 4, "no two benchmarks of a launch share a seed"
    contender, decided = record.workloads
    assert [each.output_tok_per_s for each in contender.repeats] == [500.0] * 3
    assert contender.metrics == contender.repeats[0]
    assert decided.repeats == ()
    assert record.outcome == Measured()


def test_a_repeat_that_kills_the_server_is_an_oom_and_one_that_went_wrong_costs_nothing() -> None:
    def second(what: Outcome | Exception) -> Act:
        turns = iter([None, what])
        return Act(tok_per_s=500.0, each=lambda workload: next(turns) if workload == LARGE else None)

    record, _ = contending(second(OOM), 500.0, 400.0)
    assert record.outcome == OOM
    assert all(outcome.metrics is not None for outcome in record.workloads)

    record, engine = contending(second(ConnectionResetError("too many files")), 500.0, 400.0)
    assert record.outcome == Measured()
    assert record.workloads[0].repeats == ()
    assert engine.story.count("measure 4k1k_c64") == 2
