"""The ledger on real files: Optuna's mirror, resuming, refusals."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from advisor.domain.errors import BadInput
from advisor.domain.measurement import SoFar
from advisor.domain.objective import parse_slo
from advisor.domain.outcome import Crashed, Hopeless, Infrastructure, Measured, Rejected, Unhealthy
from advisor.domain.ports import Ledger, Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.space import all_configs, indices_of
from advisor.store.ledger import OptunaLedger
from advisor.store.stock_samplers import REPORTED_STEP, make_proposer
from advisor.store.trial_folder import TrialFolder, committed
from tests.store.servers import BASELINE, SLO, SPACE, essence, launch, measurement, open_ledger, record, value_of

ROOT = Path(__file__).parents[2]
GIVEN = Proposal(config=BASELINE, origin="baseline test")


def go_on(ledger: OptunaLedger, n_trials: int) -> None:
    while len(ledger.records()) < n_trials:
        asked = ledger.ask("search") if ledger.records() else ledger.ask("baseline", GIVEN)
        ledger.commit(launch(asked))


def test_it_is_the_port(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        port: Ledger = ledger
        assert port.records() == ()


def test_optuna_sees_every_trial_as_the_design_says(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 10)
        ledger.commit(record(ledger.ask("search"), Rejected(rule="memory", reason="x", excess=0.4)))
        ledger.commit(record(ledger.ask("search"), Unhealthy(reason="x")))
        ledger.commit(record(ledger.ask("search"), Crashed(phase="load", reason="x")))
        ledger.commit(record(ledger.ask("search"), Infrastructure(reason="port taken")))
        trials = ledger.study.trials
        records = ledger.records()
    assert [t.number for t in trials] == [r.number for r in records] == list(range(14))
    for trial, told in zip(trials, records, strict=True):
        assert trial.params == indices_of(SPACE, told.config)
        assert trial.user_attrs["proposal"]["config"] == told.config.flat()
        expected = "COMPLETE" if told.measured else "FAIL" if told.infrastructure else "PRUNED"
        assert trial.state.name == expected
        if not told.infrastructure:
            assert list(trial.constraints) == ["memory", "serves", "ttft:p95"]
        json.dumps(trial.user_attrs)
    ooms = [t for t, r in zip(trials, records, strict=True) if r.out_of_memory]
    assert ooms
    assert all(t.constraints["memory"] > 0 for t in ooms)
    # Dashboards know nothing of constraints.
    assert [t.user_attrs["feasible"] for t in trials] == [
        r.measured and measured_ttft_ms(r.config.max_num_tokens) <= 2000 for r in records
    ]


def test_a_stopped_trial_is_reported_to_optuna_once_also_when_it_is_told_again(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        opened = ledger.ask("search")
        showed = measurement(5_000, 100.0)
        assert showed.metrics is not None
        so_far = SoFar(n_done=4, n_requests=8, metrics=showed.metrics, bound=False)
        stopped = changed(showed, metrics=None, stopped_early=True, so_far=so_far)
        optuna.Trial(ledger.study, ledger.study.trials[0]._trial_id).report(math.log(0.5), REPORTED_STEP)
        ledger.folder(0).commit(record(opened, Hopeless(reason="x"), stopped))  # and there the process dies
    (tmp_path / "copy").mkdir()
    for again in (tmp_path, tmp_path / "copy"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns when a step is reported twice
            with open_ledger(again) as ledger:
                (trial,) = ledger.study.trials
        assert trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {REPORTED_STEP: pytest.approx(math.log(0.5))}
        shutil.copytree(tmp_path / "trials", tmp_path / "copy" / "trials", dirs_exist_ok=True)  # without its journal


def measured_ttft_ms(max_num_tokens: int) -> float:
    return 4e6 / max_num_tokens


def test_a_baseline_beside_the_ladders_is_launched_exactly_and_mirrored_at_the_nearest_steps(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        opened = ledger.ask("baseline", GIVEN)
        assert (opened.config, opened.role, opened.origin) == (BASELINE, "baseline", "baseline test")
        trial = ledger.study.trials[0]
        assert trial.params == indices_of(SPACE, BASELINE)
        assert trial.user_attrs["proposal"]["config"]["max_batch_size"] == 300


def test_resuming_between_any_two_trials_gives_the_uninterrupted_study(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "whole") as ledger:
        go_on(ledger, 9)
        whole = essence(ledger.records())
    for n_trials in range(1, 10):
        with open_ledger(tmp_path / "pieces") as ledger:
            go_on(ledger, n_trials)
    assert essence(tuple(committed(tmp_path / "pieces"))) == whole
    with open_ledger(tmp_path / "other", seed=8) as ledger:
        go_on(ledger, 9)
        assert essence(ledger.records()) != whole


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii"])
def test_a_trial_in_flight_is_handed_out_again_as_it_was(tmp_path: Path, sampler: str) -> None:
    with open_ledger(tmp_path, sampler) as ledger:
        go_on(ledger, 5)
        in_flight = ledger.ask("search")
        ledger.folder(in_flight.number).write_launch(["x"], "y", "config.yml")
    with open_ledger(tmp_path, sampler) as ledger:
        assert ledger.ask("search") == in_flight
        assert list(ledger.folder(in_flight.number).path.iterdir()) == []
        ledger.commit(launch(in_flight))
        assert ledger.ask("search").number == in_flight.number + 1


def test_what_was_expected_of_a_trial_in_flight_is_not_forgotten(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 2)
        given = changed(GIVEN, config=changed(BASELINE, max_batch_size=64), expected_gain=0.03)
        assert ledger.ask("search", given).expected_gain == 0.03
    with open_ledger(tmp_path) as ledger:
        assert ledger.ask("search").expected_gain == 0.03


def test_an_interrupted_trial_that_nobody_asks_for_again_is_closed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.ask("baseline", GIVEN)
    other = Proposal(config=changed(BASELINE, max_batch_size=64), origin="another baseline")
    with open_ledger(tmp_path) as ledger:
        assert ledger.ask("baseline", other).number == 1
        assert [t.state for t in ledger.study.trials] == [TrialState.FAIL, TrialState.RUNNING]
        assert ledger.records() == ()


def test_two_trials_open_at_once_are_different_trials(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        first, second = ledger.ask("baseline", GIVEN), ledger.ask("search")
        assert (first.number, second.number) == (0, 1)
        ledger.commit(launch(second))
        ledger.commit(launch(first))
        assert [r.number for r in ledger.records()] == [0, 1]


def test_committed_but_not_told_is_told_at_opening(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 3)
        opened = ledger.ask("search")
        ledger.folder(opened.number).commit(launch(opened))  # the process dies right after the commit point
    with open_ledger(tmp_path) as ledger:
        assert [r.number for r in ledger.records()] == [0, 1, 2, 3]
        assert ledger.study.trials[3].state.is_finished()
        assert ledger.ask("search").number == 4


def test_constraints_are_write_once_and_a_crash_between_them_leaves_no_wrong_one(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        opened = ledger.ask("search")
        done = record(opened, Unhealthy(reason="x"))
        live = optuna.Trial(ledger.study, ledger.study.trials[0]._trial_id)
        live.set_constraint("memory", 0.0)  # as far as it came
        ledger.folder(0).commit(done)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns when a constraint is set twice, and ignores it
        with open_ledger(tmp_path) as ledger:
            assert ledger.study.trials[0].constraints == {"memory": 0.0, "serves": 0.5, "ttft:p95": 0.0}


def test_a_trial_is_committed_once(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        done = launch(ledger.ask("search"))
        ledger.commit(done)
        with pytest.raises(ValueError, match="already committed"):
            ledger.commit(done)
        with pytest.raises(ValueError, match="never asked"):
            ledger.commit(changed(done, number=1))


def test_existing_trials_need_resume(tmp_path: Path) -> None:
    with open_ledger(tmp_path, resume=False) as ledger:
        go_on(ledger, 1)
    with pytest.raises(BadInput, match=r"finished trials.*--resume.*--out"):
        open_ledger(tmp_path, resume=False)
    open_ledger(tmp_path).close()


def test_another_study_in_the_folder_is_refused_by_what_differs(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 1)
    with pytest.raises(BadInput, match=r"source was 'simulated', now 'measured'"):
        OptunaLedger(
            tmp_path,
            name="test",
            space=SPACE,
            proposer=make_proposer("tpe", SPACE, SLO, value_of),
            slo=SLO,
            value_of=value_of,
            seed=7,
            identity={"study": "abcd1234", "source": "measured"},
        )
    (tmp_path / "identity.json").write_text("[")
    with pytest.raises(BadInput, match=r"identity\.json is damaged"):
        open_ledger(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_ledger(tmp_path):
        with pytest.raises(BadInput, match=rf"already being tuned by process {os.getpid()}\b"):
            open_ledger(tmp_path)
        code = (
            "import sys; from pathlib import Path; from advisor.store.run_lock import RunLock\n"
            "try: RunLock(Path(sys.argv[1]))\n"
            "except Exception as error: print(error)"
        )
        other = [sys.executable, "-c", code, str(tmp_path)]
        said = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert f"process {os.getpid()}:" in said
    open_ledger(tmp_path).close()


def test_a_refused_opening_does_not_keep_the_lock(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 1)
    for _ in range(2):
        with pytest.raises(BadInput, match="finished trials"):
            open_ledger(tmp_path, resume=False)


def test_damaged_outcome_names_its_file_and_removing_its_folder_is_a_way_out(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 4)
    path = TrialFolder(tmp_path, 2).path / "outcome.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadInput, match=r"trials/0002/outcome\.json is damaged.*remove the folder"):
        open_ledger(tmp_path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    with open_ledger(tmp_path) as ledger:
        assert [r.number for r in ledger.records()] == [0, 1, 3]
        assert ledger.ask("search").number == 4
    (tmp_path / "ledger.journal").unlink()
    with open_ledger(tmp_path) as ledger:  # numbers stay those of the folders
        assert [t.number for t in ledger.study.trials if t.state != TrialState.FAIL] == [0, 1, 3]


def test_a_storage_without_its_run_folder_is_refused(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        go_on(ledger, 2)
    for path in sorted((tmp_path / "trials").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(BadInput, match=r"knows finished trials.*Copy the run folder"):
        open_ledger(tmp_path)


def test_sqlite_storage_holds_the_same_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    with open_ledger(tmp_path / "journal") as ledger:
        go_on(ledger, 6)
        expected = essence(ledger.records())
    for n_trials in (3, 6):
        with open_ledger(tmp_path / "sqlite", storage=url) as ledger:
            go_on(ledger, n_trials)
    assert essence(tuple(committed(tmp_path / "sqlite"))) == expected
    assert not (tmp_path / "sqlite" / "ledger.journal").exists()


@pytest.mark.parametrize(
    "url", ["nosuchdb://x", "postgresql+nosuch://user:secret@host/db", "sqlite:////no/such/folder/x.db"]
)
def test_a_storage_that_cannot_be_opened_says_so_without_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInput, match="Cannot open the") as error:
        open_ledger(tmp_path, storage=url)
    assert "secret" not in str(error.value)


def test_an_unwritable_place_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="A file stands where a folder is needed"):
        open_ledger(tmp_path / "file" / "run")


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may not grow beyond 16 KiB, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_ends_the_study_whole(tmp_path: Path, small_files: None) -> None:
    with open_ledger(tmp_path) as ledger, pytest.raises(BadInput, match="Cannot write"):
        go_on(ledger, 100)
    n_before = len(committed(tmp_path))
    assert n_before > 0
    assert list(tmp_path.rglob(".*.tmp")) == []
    (tmp_path / "ledger.journal").unlink()  # room again
    with open_ledger(tmp_path) as ledger:
        assert len(ledger.records()) == n_before
        go_on(ledger, n_before + 1)


def test_no_constraint_is_forgotten_on_complete_trials(tmp_path: Path) -> None:
    """Optuna takes a COMPLETE trial without constraints for feasible, and the best."""
    slo = parse_slo("ttft:p95<1ms,tpot:mean<5ms")
    with open_ledger(tmp_path, slo=slo) as ledger:
        for _ in range(3):
            ledger.commit(record(ledger.ask("search"), Measured(), measurement(1e4, 5000.0)))
        assert all(list(t.constraints) == ["memory", "serves", "ttft:p95", "tpot:mean"] for t in ledger.study.trials)
        with pytest.raises(ValueError, match="feasible"):
            _ = ledger.study.best_trial


def test_optuna_is_quiet_and_left_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        with open_ledger(tmp_path) as ledger:
            go_on(ledger, 7)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_a_proposal_knows_what_is_running_beside_it(tmp_path: Path) -> None:
    """Three trials are open at once: each proposer call is told of those before it."""
    told: list[list[ServingConfig]] = []

    class Listens:
        name = "listens"

        def propose(self, history: Sequence[TrialRecord], seed: int, running: Sequence[ServingConfig] = ()) -> Proposal:
            told.append(list(running))
            return Proposal(config=all_configs(SPACE)[len(told)], origin=self.name)

    ledger = OptunaLedger(
        tmp_path / "run", name="n", space=SPACE, proposer=Listens(), slo=SLO, value_of=value_of, seed=1, identity={}
    )
    asked = [ledger.ask("search").config for _ in range(3)]
    assert told == [[], asked[:1], asked[:2]]
