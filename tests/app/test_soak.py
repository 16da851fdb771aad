"""The soak: who would win is put under the heaviest load of its study, and falls when it dies of it."""

from __future__ import annotations

from pathlib import Path

from advisor.domain.outcome import OutOfMemory
from advisor.domain.ports import LaunchSpec
from advisor.domain.trial import Soak
from advisor.domain.workload import parse_workload
from advisor.report.summary import sure_notes
from advisor.search.soaking import SOAK_WAVES, soak_workload
from tests.app.scripted import Act, ScriptedEngine
from tests.app.studies import play, session
from tests.app.test_tuner import faster_away_from_the_default, only

RANGED = "512to1024-1024_c8"
LONGEST = soak_workload([parse_workload(RANGED)]).name
DEAD = OutOfMemory(phase="serve", component="activations", short_gib=1.0)


def test_every_request_is_as_long_as_the_longest_and_the_load_the_highest() -> None:
    busy, long = parse_workload("512to1024-128_c64"), parse_workload("4k1k_c8")
    soak = soak_workload([busy, long])
    assert (soak.isl, soak.osl, soak.concurrency, soak.is_ranged) == (4096, 1024, 64, False)
    assert soak.requests() == SOAK_WAVES * 64


def dies_when_soaked(spec: LaunchSpec, n: int) -> Act:
    act = faster_away_from_the_default(spec, n)
    weak = spec.config.max_batch_size == 64 and spec.config.max_num_tokens == 4096
    return Act(tok_per_s=1.2 * act.tok_per_s, under={LONGEST: DEAD}) if weak else act


def test_a_winner_that_runs_out_of_memory_under_the_soak_falls_and_the_next_one_wins(tmp_path: Path) -> None:
    opened = session(tmp_path, ScriptedEngine(dies_when_soaked), workloads=(RANGED,), max_launches=24)
    summary, records = play(opened)
    result = only(summary.results)
    fell = [record for record in records if record.soak is not None and not record.soak.survived]
    assert fell and all(record.role == "confirmation" and record.out_of_memory for record in fell)
    assert all(record.workload(RANGED) is not None for record in fell), "what was measured before stays"
    assert result.status == "confirmed"
    assert result.best is not None
    assert result.best.serving_config not in {record.config for record in fell}
    assert result.soak == Soak(survived=True, n_requests=16, tokens_per_request=2048, concurrency=8, free_gib=10.0)
    assert "Soaked (simulated): 16 requests of 2,048 tokens, 8 in flight; lowest free memory 10.0 GiB" in " ".join(
        sure_notes(result)
    )


def test_the_soak_is_no_measurement_and_needs_no_launch_of_its_own(tmp_path: Path) -> None:
    engine = ScriptedEngine(faster_away_from_the_default)
    _, records = play(session(tmp_path, engine, workloads=(RANGED,)))
    soaked = [record for record in records if record.soak is not None]
    assert len(soaked) == len({record.config for record in soaked}) >= 1
    assert len(engine.starts) == 12
    assert all([outcome.workload for outcome in record.workloads] == [RANGED] for record in soaked)
    assert len(set(engine.seeds)) == len(engine.seeds), "no two benchmarks share a seed"


def test_a_client_that_breaks_under_the_soak_says_nothing_of_the_server(tmp_path: Path) -> None:
    opened = session(tmp_path, ScriptedEngine(Act(under={LONGEST: ConnectionResetError("gone")})), workloads=(RANGED,))
    _, records = play(opened)
    assert all(record.measured and record.soak is None for record in records if record.role == "confirmation")
