"""Finished studies for what shows one: as it ran, and with two trials that failed in hostile words."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from advisor.app.api import _Quiet
from advisor.app.results import StudySummary
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.outcome import Crashed, Evidence, Outcome, OutOfMemory
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.report import bundle
from advisor.report.page_data import ReportData
from advisor.report.write_report import write_report
from advisor.store.trial_folder import TrialFolder
from advisor.store.yaml_files import write_atomic
from tests.app.studies import play

SCRIPT_TEXT = "<script>alert(1)</script></script><b onclick=x>"
ESCAPE_TEXT = "\x1b[31mred\x1b[0m \x00 \u202eevil"


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`results/<study>/<run>/` of the study, as `advisor tune` leaves it, two trials exchanged for failures."""
    question = Question(workloads=("1k1k_c64", "2k1k_c32"), max_launches=10, slo="ttft:p99<20s")
    session = open_session(question, How(engine="twin", out=tmp_path_factory.mktemp("out"), seed=3))
    quiet = _Quiet()
    with session.open_ledger() as ledger:
        session.run(ledger, quiet, quiet)
        records = list(ledger.records())
    proof = (Evidence(line=1204, text=f"OutOfMemoryError {ESCAPE_TEXT} {SCRIPT_TEXT}"),)
    failures: tuple[Outcome, ...] = (
        OutOfMemory(phase="warm_up", component="activations", short_gib=3.25, evidence=proof),
        Crashed(phase="load", reason=f"{SCRIPT_TEXT} {ESCAPE_TEXT}"),
    )
    searched = [number for number, record in enumerate(records) if record.role in ("start", "search")]
    for number, outcome in zip(searched[-2:], failures, strict=True):
        records[number] = changed(records[number], outcome=outcome, workloads=(), memory_measured_gib=None)
        folder = TrialFolder(session.run_folder, number)
        folder.commit(records[number])
        write_atomic(folder.path / "server.log", f"first line\n{SCRIPT_TEXT}\n{ESCAPE_TEXT} last line\n")
    bundle.write(session, records, session.summary(records, "budget"))
    return session.run_folder


@pytest.fixture
def copied(study_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run folder that may be spoilt."""
    return Path(shutil.copytree(study_folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def report(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """What the report of the study says."""
    return write_report(study_folder, tmp_path_factory.mktemp("report")).data


@pytest.fixture(scope="session")
def page_text(study_folder: Path) -> str:
    """`report.html` of the study."""
    return (study_folder / "report.html").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Finished:
    """A session that has run, and what came of it."""

    session: Session
    summary: StudySummary
    records: tuple[TrialRecord, ...]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Played on the twin."""
    question = Question(study="llama3.1-8b-h100", workloads=("1k1k_c16", "1k1k_c64"), max_launches=9)
    session = open_session(question, How(engine="twin", out=Path(tmp_path_factory.mktemp("terminal"))))
    summary, records = play(session)
    return Finished(session, summary, records)
