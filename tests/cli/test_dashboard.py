"""`advisor dashboard`: the real server over a ledger shows what is feasible and why, and changes nothing."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

from advisor.domain.outcome import Crashed, Infrastructure, Rejected
from advisor.domain.ports import Proposal
from advisor.domain.trial import TrialRecord
from advisor.store.journal import JOURNAL
from advisor.store.ledger_view import view_of
from tests.end_to_end.command import advisor, started
from tests.standin.running import PATIENCE_S
from tests.store.servers import BASELINE, SPACE, launch, open_ledger, record

pytestmark = pytest.mark.system

pytest.importorskip("optuna_dashboard")


def fill(run: Path, storage: str | None = None, n_launches: int = 10) -> None:
    """A study with every kind of end."""
    with open_ledger(run, storage=storage) as ledger:
        for number in range(n_launches):
            given = Proposal(config=BASELINE, origin="baseline test") if number == 0 else None
            ledger.commit(launch(ledger.ask("search" if number else "baseline", given)))
        ledger.commit(record(ledger.ask("search"), Rejected(rule="memory", reason="2.0 GiB short", excess=0.5)))
        ledger.commit(record(ledger.ask("search"), Crashed(phase="load", reason="<b>bad</b> *magic*")))
        ledger.commit(record(ledger.ask("search"), Infrastructure(reason="port taken")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "study" / "run"
    fill(folder)
    return folder


@contextmanager
def dashboard(*argv: str, cwd: Path) -> Iterator[int]:
    process = started("dashboard", *argv, "--port", "0", cwd=cwd)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + process.stderr.read()
        yield int(found[1])
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, Any]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    link.request(method, path, headers={} if host is None else {"Host": host})
    answer = link.getresponse()
    body = answer.read()
    link.close()
    return answer.status, json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in trial["user_attrs"]}


def test_feasibility_memory_and_reasons_are_there_and_the_ledger_is_not_touched(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with dashboard(str(run.parents[1]), cwd=run.parent) as port:
        assert ask(port, "/dashboard")[0] == 200
        (study,) = ask(port, "/api/studies")[1]["study_summaries"]
        found = ask(port, f"/api/studies/{study['study_id']}?after=0")[1]
        assert ask(port, f"/api/studies/{study['study_id']}/param_importances")[0] == 200
        for method in ("POST", "PUT", "DELETE"):
            assert ask(port, f"/api/studies/{study['study_id']}", method)[0] == 403
        assert ask(port, "/api/studies", host="evil.example")[0] == 403
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "memory, serves, ttft:p95" in found["note"]["body"]
    storage = JournalStorage(JournalFileBackend(str(run / JOURNAL)))
    kept = optuna.load_study(study_name=None, storage=storage).trials
    for shown, trial in zip(found["trials"], kept, strict=True):
        assert shown["constraints"] == list(trial.constraints.values())
        assert attributes(shown)["feasible"] == str(trial.user_attrs["feasible"])
        assert attributes(shown)["reason"]
        assert shown["note"]["body"].startswith("- feasible:")
        assert "constraints" not in trial.system_attrs
        assert set(trial.constraints) <= {"memory", "serves", "ttft:p95"}
    ended = {trial.number: trial.user_attrs["outcome"] for trial in kept}
    oom = next(shown for shown in found["trials"] if "out of memory" in ended[shown["number"]])
    assert float(attributes(oom)["memory_short_gib"]) > 0
    assert oom["constraints"][0] > 0
    assert any("above its limit" in attributes(shown)["reason"] for shown in found["trials"])
    assert [best["number"] for best in found["best_trials"]] == [
        max((t for t in kept if t.user_attrs["feasible"]), key=lambda t: t.value or 0.0).number
    ]


def test_parameters_are_values_and_one_beside_the_ladders_is_exact(run: Path) -> None:
    with dashboard(str(run), cwd=run) as port:
        trials = ask(port, "/api/studies/0?after=0")[1]["trials"]
    for shown in trials:
        outcome = (run / "trials" / f"{shown['number']:04d}" / "outcome.json").read_text()
        recorded = TrialRecord.model_validate_json(outcome).config.flat()
        assert {each["name"]: each["param_external_value"] for each in shown["params"]} == {
            name: str(recorded[name]) for name in (dimension.name for dimension in SPACE.active)
        }


def test_a_study_that_goes_on_is_followed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.commit(launch(ledger.ask("search")))
        view = view_of(tmp_path / JOURNAL)
        (study,) = view.get_all_studies()
        assert len(view.get_all_trials(study._study_id)) == 1
        ledger.commit(launch(ledger.ask("search")))
        assert len(view.get_all_trials(study._study_id)) == 2
        with (tmp_path / JOURNAL).open("ab") as journal:
            journal.write(b'{"op_code": 4, "half')  # being written
        assert len(view.get_all_trials(study._study_id)) == 2


def test_a_study_that_is_not_advisors_is_shown_as_it_is(tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    view = view_of(tmp_path / JOURNAL)
    assert [trial.params for trial in view.get_all_trials(study._study_id)] == [trial.params for trial in study.trials]
    assert view.get_study_system_attrs(study._study_id) == {}
    assert view.get_best_trial(study._study_id).number == study.best_trial.number


def test_a_database_is_shown_by_its_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    fill(tmp_path / "run", storage=url, n_launches=1)
    with dashboard("--storage", url, cwd=tmp_path) as port:
        (study,) = ask(port, "/api/studies")[1]["study_summaries"]
        found = ask(port, f"/api/studies/{study['study_id']}?after=0")[1]
    assert sum(bool(shown["constraints"]) for shown in found["trials"]) == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("nowhere",), "There is no ledger.journal in nowhere"),
        (("--storage", "sqlite:///nowhere.db"), "The sqlite storage is not there"),
        (("--storage", "postgresql://me:s3cretpassword@127.0.0.1:1/x"), "Cannot open the postgresql storage"),
    ],
)
def test_what_cannot_be_shown_is_said_with_the_way_out(tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    ended = advisor("dashboard", *argv, "--port", "0", cwd=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "s3cretpassword" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("{nonsense}\n")
    ended = advisor("dashboard", str(tmp_path), "--port", "0", cwd=tmp_path)
    assert ended.returncode == 2
    assert "cannot be read as a ledger" in ended.stderr


def test_a_taken_port_names_the_option(run: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        argv = ("dashboard", str(run), "--port", str(other.getsockname()[1]))
        process = started(*argv, cwd=run)
        try:
            _, errors = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 2
    assert "choose another with --port" in errors
