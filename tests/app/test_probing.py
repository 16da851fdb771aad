"""When a probe is bought, what it spares, and that it is counted apart and never wins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from advisor.app.concluding import count
from advisor.app.probing import refused, start_seconds
from advisor.app.setup import Question
from advisor.app.trial_maker import launches
from advisor.app.tuning import How, Session, open_session
from advisor.domain.outcome import Crashed, Infrastructure, Measured, Outcome, OutOfMemory, Started
from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import PhaseTiming, TrialRecord
from advisor.search.admission import MEMORY_RULE
from advisor.search.standings import standings
from advisor.store.telling import told
from tests.app.scripted import Act, ScriptedEngine
from tests.app.studies import play, session

CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=4096, cuda_graph_max_batch_size=64, kv_cache_free_gpu_memory_fraction=0.9
)
DEAD = OutOfMemory(phase="load", component="Model", short_gib=2.0)


def tight(folder: Path, engine: ScriptedEngine, max_probes: int | None = None) -> Session:
    """70 billion BF16 weights on one H200: the memory law gives the default configuration even odds to start."""
    question = Question(
        model="meta-llama/Llama-3.3-70B-Instruct",
        quant="bf16",
        gpu="h200_sxm",
        gpus=1,
        tp=1,
        ep=1,
        workloads=("1k1k_c8",),
        max_launches=4,
    )
    how = How(engine="twin", out=folder / "out", max_probes=max_probes, sampler="random")
    return dataclasses.replace(open_session(question, how), engine=engine)


def dies_in_a_probe(spec: LaunchSpec, n: int) -> Act:
    return Act(at_start=DEAD) if spec.fidelity == "memory_only" else Act()


def test_a_doubtful_start_is_probed_first_and_a_dead_probe_spares_the_launch(tmp_path: Path) -> None:
    engine = ScriptedEngine(dies_in_a_probe)
    summary, records = play(tight(tmp_path, engine))
    probe, baseline = records[:2]
    assert (probe.role, probe.outcome) == ("probe", DEAD)
    assert baseline.role == "baseline"
    assert not baseline.launched
    assert f"trial {probe.number}" in baseline.ending
    assert engine.starts[0].fidelity == "memory_only"
    assert summary.counts.probes == 1
    assert summary.counts.launches == launches(records) == sum(s.fidelity == "full" for s in engine.starts) <= 4
    assert summary.counts.oom == 0, "a probe is no launch"
    assert "did not run" not in baseline.ending


def test_a_probe_that_starts_is_followed_by_the_launch_and_never_wins(tmp_path: Path) -> None:
    engine = ScriptedEngine(Act())
    opened = tight(tmp_path, engine)
    summary, records = play(opened)
    assert [spec.fidelity for spec in engine.starts[:2]] == ["memory_only", "full"]
    assert [record.role for record in records[:2]] == ["probe", "baseline"]
    probe = records[0]
    assert isinstance(probe.outcome, Started)
    assert not probe.measured
    context = opened.context
    table = standings([probe], context.workloads[0].name, context.objective, context.slo)
    assert table == []
    facts = told(probe, context.slo, context.value_of)
    assert (facts.state, facts.value) == ("PRUNED", None)
    assert facts.violation == 0.0
    assert summary.results[0].best is not None
    assert probe.number not in summary.results[0].best.trials


def test_none_is_bought_without_a_budget_for_them_or_where_memory_is_plenty(tmp_path: Path) -> None:
    for opened in (
        tight(tmp_path, ScriptedEngine(Act()), max_probes=0),
        session(tmp_path, ScriptedEngine(Act()), max_probes=None),
    ):
        summary, records = play(opened)
        assert summary.counts.probes == 0
        assert all(record.role != "probe" for record in records)


def probe(outcome: Outcome) -> TrialRecord:
    return TrialRecord(
        number=3,
        role="probe",
        origin="test",
        config=CONFIG,
        source="simulated",
        engine_label="simulated by a script",
        seed=0,
        outcome=outcome,
        phases=tuple(PhaseTiming(name=name, duration_s=s) for name, s in (("load", 60.0), ("warm_up", 20.0))),
    )


def test_what_a_probe_says_against_the_launch() -> None:
    for silent in (Started(), Infrastructure(reason="a port was taken")):
        assert refused(probe(silent)) is None
    memory, crash = refused(probe(DEAD)), refused(probe(Crashed(phase="load", reason="r")))
    assert memory is not None
    assert memory.rule == MEMORY_RULE
    assert memory.excess == pytest.approx(0.5), "2 GiB in steps of 4"
    assert crash is not None
    assert crash.rule == "probe"


def test_probes_are_counted_apart() -> None:
    records = [probe(DEAD), probe(Started())]
    counts = count(records)
    assert (counts.trials, counts.probes, counts.launches, counts.oom, counts.failed) == (2, 2, 0, 0, 0)
    assert start_seconds(records[0]) == 80.0
    assert start_seconds(records[0], without=("load",)) == 20.0
    assert not isinstance(records[1].outcome, Measured)
