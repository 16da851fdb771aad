"""How a study ends: by its budget or its expectations, for many workloads, or with nothing feasible."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.outcome import OutOfMemory, Unhealthy
from advisor.domain.ports import LaunchSpec, Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.report.study_notes import miss_text, outlook_text, robust_text
from advisor.report.summary import verdict
from advisor.search.space import all_configs
from advisor.search.stopping import expected_gains
from tests.app.scripted import LAUNCH_S, Act, ScriptedEngine, metrics
from tests.app.studies import Watcher, play, session
from tests.app.test_tuner import faster_away_from_the_default, make, roles

STEADY = Act(tok_per_s=1000.0)


class Telling:
    """A proposer that walks through the space and says what it expects of each step."""

    name = "telling"

    def __init__(self, opened: Session, gains: Sequence[float | None]) -> None:
        self.configs, self.gains = all_configs(opened.context.space), gains

    def propose(self, history: Sequence[TrialRecord], seed: int, running: Sequence[ServingConfig] = ()) -> Proposal:
        tried = {record.config for record in history}
        n_searched = sum(record.role == "search" for record in history)
        config = next(each for each in self.configs if each not in tried)
        return Proposal(config=config, origin="told", expected_gain=self.gains[n_searched % len(self.gains)])


def told(
    folder: Path, gains: Sequence[float | None], engine: ScriptedEngine | None = None, resume: bool = False
) -> Session:
    engine = engine or ScriptedEngine(faster_away_from_the_default)
    opened = session(folder, engine, max_launches=24, resume=resume)
    return dataclasses.replace(opened, proposer=Telling(opened, gains))


def test_two_proposals_that_expect_less_than_the_noise_end_the_search_and_the_winner_is_confirmed(
    tmp_path: Path,
) -> None:
    summary, records = play(told(tmp_path, [0.2, 0.001, 0.05, 0.002, 0.001, 0.3]))
    assert summary.stopped_by == "no_gain_expected"
    assert expected_gains(records) == (0.2, 0.001, 0.05, 0.002, 0.001)
    assert "confirmation" in roles(records)
    assert summary.outlook is not None
    assert summary.outlook.launches_per_hour == pytest.approx(3600 / LAUNCH_S)
    assert 0 < summary.outlook.expected_gain <= 0.001 * 60 * (1 + 1e-9)
    assert outlook_text(summary).startswith("One more hour (simulated) is about 60 launches")


def test_it_ends_at_the_same_proposal_when_it_was_interrupted(tmp_path: Path) -> None:
    gains = [0.2, 0.001, 0.001, 0.3]
    whole, records = play(told(tmp_path / make(tmp_path, "a"), gains))
    folder = tmp_path / make(tmp_path, "b")
    engine = ScriptedEngine(faster_away_from_the_default)
    play(told(folder, gains, engine), Watcher(cancel_after=9))
    summary, resumed = play(told(folder, gains, engine, resume=True))
    assert summary.stopped_by == whole.stopped_by == "no_gain_expected"
    assert [(r.role, r.config, r.expected_gain) for r in resumed] == [
        (r.role, r.config, r.expected_gain) for r in records
    ]
    again, _ = play(told(folder, gains, resume=True))
    assert again.counts == summary.counts, "nothing is launched once it is over"


def test_a_sampler_that_cannot_say_what_it_expects_uses_its_budget(tmp_path: Path) -> None:
    summary, _ = play(session(tmp_path, ScriptedEngine(STEADY)))
    assert (summary.stopped_by, summary.outlook) == ("budget", None)
    assert outlook_text(summary) == ""


@pytest.mark.parametrize(("gpu_hours", "max_hours", "ending"), [(0.2, None, "gpu_hours"), (5.0, 0.2, "hours")])
def test_gpu_hours_are_kept_with_the_confirmation_inside(
    tmp_path: Path, gpu_hours: float, max_hours: float | None, ending: str
) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    opened = session(tmp_path, engine, max_launches=24, max_hours=max_hours, gpu_hours=gpu_hours)
    summary, records = play(opened)
    assert summary.stopped_by == ending
    assert summary.duration_s * opened.context.deployment.gpus <= gpu_hours * 3600
    assert roles(records).count("confirmation") == 4


# --- many workloads ---


def specialists(spec: LaunchSpec, n: int) -> Act:
    """Batch 64 is best for one workload and bad for the other, 2,048 the other way round, 256 good for both."""
    short, long = {64: (2000.0, 900.0), 256: (1900.0, 1900.0), 2048: (1000.0, 2000.0)}[spec.config.max_batch_size]
    under = {
        name: WorkloadOutcome(workload=name, metrics=metrics(rate), seed=0)
        for name, rate in (("1k1k_c8", short), ("2k1k_c16", long))
    }
    return Act(under=under)


def test_one_configuration_loses_least_over_all_workloads(tmp_path: Path) -> None:
    opened = session(tmp_path, ScriptedEngine(specialists), max_launches=24, workloads=("1k1k_c8", "2k1k_c16"))
    summary, records = play(opened)
    best = {result.workload_name: result.best for result in summary.results}
    assert [entry and entry.serving_config.max_batch_size for entry in best.values()] == [64, 2048]
    assert summary.robust is not None
    assert summary.robust.serving_config.max_batch_size == 256
    assert summary.robust.regret == pytest.approx({"1k1k_c8": 0.05, "2k1k_c16": 0.05})
    assert summary.robust.max_regret == pytest.approx(0.05)
    own = [r.number for r in records if r.config == summary.robust.serving_config]
    assert list(summary.robust.trials) == own
    assert "loses 5.0 % at most against the best of each" in robust_text(summary.robust, "simulated")


def test_one_that_breaks_a_limit_when_it_is_launched_again_is_not_for_all(tmp_path: Path) -> None:
    """Batch 256 is good for both until its second launch, from when on it is slow to answer."""
    seen: list[ServingConfig] = []

    def script(spec: LaunchSpec, n: int) -> Act:
        again = spec.config in seen
        seen.append(spec.config)
        slow = again and spec.config.max_batch_size == 256
        rates = {w.workload: w.metrics for w in specialists(spec, n).under.values() if isinstance(w, WorkloadOutcome)}
        under = {
            name: WorkloadOutcome(
                workload=name, metrics=metrics(rate.output_tok_per_s, 9000.0 if slow else 100.0), seed=0
            )
            for name, rate in rates.items()
            if rate is not None
        }
        return Act(under=under)

    workloads = ("1k1k_c8", "2k1k_c16")
    opened = session(tmp_path, ScriptedEngine(script), max_launches=24, workloads=workloads, slo="ttft:p95<2s")
    summary, records = play(opened)
    confirmed = {r.config.max_batch_size for r in records if r.role == "confirmation"}
    assert 256 in confirmed
    assert summary.robust is not None
    broke = {r.config for r in records if r.role == "confirmation" and r.config.max_batch_size == 256}
    assert summary.robust.serving_config not in broke


def test_a_study_of_one_workload_has_no_robust_configuration(tmp_path: Path) -> None:
    assert play(session(tmp_path, ScriptedEngine(STEADY)))[0].robust is None


def test_the_confirmation_measures_two_sides_twice_rather_than_many_once(tmp_path: Path) -> None:
    """Four launches are kept: the winner of most workloads and the baseline, the others stay candidates."""
    opened = session(tmp_path, ScriptedEngine(specialists), max_launches=12, workloads=("1k1k_c8", "2k1k_c16"))
    summary, records = play(opened)
    again = [record.config for record in records if record.role == "confirmation"]
    assert len(again) == 4
    assert again[:2] == again[2:]
    assert records[0].config in again
    assert {result.status for result in summary.results} == {"confirmed", "baseline_within_noise"}


# --- nothing feasible ---


def test_the_nearest_miss_of_a_limit_names_the_limit_that_it_would_keep(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        return Act(ttft_ms=2500.0 if spec.config.max_batch_size == 256 else 5000.0)

    summary, _ = play(session(tmp_path, ScriptedEngine(script), slo="ttft:p95<2s"))
    (result,) = summary.results
    assert result.nearest_miss is not None
    assert result.nearest_miss.serving_config.max_batch_size == 256
    assert result.nearest_miss.relaxations[0].change == '--slo "ttft:p95<2500ms"'
    assert "ttft:p95 2,500 ms where 2,000 ms are allowed" in verdict(result)

    (tmp_path / "again").mkdir()
    relaxed, _ = play(session(tmp_path / "again", ScriptedEngine(script), slo="ttft:p95<2500ms"))
    assert relaxed.feasible, "what it proposes helps"


def test_the_nearest_miss_of_memory_names_component_gib_and_what_would_help(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, n: int) -> Act:
        short_gib = 2.0 + n
        return Act(at_start=OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=short_gib))

    summary, records = play(session(tmp_path, ScriptedEngine(script)))
    (result,) = summary.results
    miss = result.nearest_miss
    assert miss is not None
    assert miss.memory is not None
    assert (miss.serving_config, miss.trials, miss.memory.short_gib) == (records[0].config, (0,), 2.0)
    assert [each.change for each in miss.relaxations] == ["--tp 2", "--quant fp8"]
    said = miss_text(miss)
    assert "lacks 2.00 GiB at kv_allocate (KV cache)." in said
    assert "weights" in said
    assert said.endswith("By the memory law it fits with --tp 2 (1 more GPU) or --quant fp8 (another checkpoint).")


TIGHT = Question(study="llama3.3-70b-fp8-h200", quant="bf16", tp=1, workloads=("20000-1000_c4",), max_launches=3)


@pytest.mark.parametrize("world", [4, 5])
def test_what_the_memory_law_proposes_helps_in_worlds_that_it_does_not_know(tmp_path: Path, world: int) -> None:
    how = How(engine="twin", twin_world=world, out=tmp_path, max_probes=0)
    (result,) = play(open_session(TIGHT, how))[0].results
    assert result.nearest_miss is not None
    assert [each.change for each in result.nearest_miss.relaxations] == ["--tp 2", "--quant fp8"]
    for helped in (changed(TIGHT, tp=2), changed(TIGHT, quant="fp8")):
        assert play(open_session(helped, how))[0].feasible


def test_a_kv_pool_too_small_for_one_request_is_a_miss_of_its_own(tmp_path: Path) -> None:
    summary, records = play(session(tmp_path, ScriptedEngine(Act(kv_tokens=1000)), max_launches=3))
    assert isinstance(records[0].outcome, Unhealthy)
    (result,) = summary.results
    assert result.nearest_miss is not None
    assert result.nearest_miss.blocks == "kv_cache"
    assert "has a KV pool of 1,000 tokens per rank; the longest request needs 2,048." in miss_text(result.nearest_miss)


def test_what_is_feasible_has_no_nearest_miss(tmp_path: Path) -> None:
    summary, _ = play(session(tmp_path, ScriptedEngine(STEADY), max_launches=3))
    assert [result.nearest_miss for result in summary.results] == [None]
