"""One small finished study of two workloads for everything that shows a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from advisor.app.results import StudySummary
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.trial import TrialRecord
from tests.app.studies import play


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
