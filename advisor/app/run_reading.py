"""A run folder read back, whole or not: what every report, live or years later, is made from.

Nothing is launched and nothing written. What is missing or damaged becomes a notice instead of an error, as long as
something is left to show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from advisor.app.earlier import EARLIER, EarlierRuns
from advisor.app.results import StudySummary
from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel, explain
from advisor.domain.trial import TrialRecord
from advisor.domain.units import MIB_BYTES
from advisor.engines.spoken import ENGINES_SPOKEN, spoken_by
from advisor.store.run_card import CARD, RunCard
from advisor.store.trial_folder import TRIALS, TrialFolder
from advisor.store.yaml_files import read_text

SUMMARY = "summary.json"
SCRIPTS = ("serve.sh", "benchmark.sh", "verify.sh")
MOST_TRIALS = 5000  # more is no study of ours, and no page for a browser
MOST_BYTES = 64 * MIB_BYTES

ModelT = TypeVar("ModelT", bound=StrictModel)


@dataclass(frozen=True)
class RunRead:
    """What lies in `results/<study>/<run>/`.

    Attributes:
        folder: Where.
        card: What the run is about.
        records: Every finished trial that can be read, in order.
        summary: What came out; None while the study runs, and where it was killed.
        earlier: What the run learnt from.
        files: Texts by file name of each workload with a recommendation, by workload name.
        notices: What is missing or damaged, a sentence each.
    """

    folder: Path
    card: RunCard
    records: tuple[TrialRecord, ...]
    summary: StudySummary | None = None
    earlier: EarlierRuns = field(default_factory=EarlierRuns)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def read_run(folder: Path) -> RunRead:
    """Read a run.

    Raises:
        BadInput: there is no such folder, no run in it, or nothing in it says what the run is about.
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. Give a run folder that `advisor tune` wrote.")
    if not (folder / TRIALS).is_dir() and not (folder / SUMMARY).exists():
        raise BadInput(_no_run(folder))
    notices: list[str] = []
    records = _records(folder, notices)
    summary = _tolerant(folder / SUMMARY, StudySummary, notices)
    if summary is None and not (folder / SUMMARY).exists():
        notices.append("The study has not ended: there is no verdict yet, and what is shown are its trials so far.")
    card = _tolerant(folder / CARD, RunCard, notices)
    if card is None or card.as_asked is None:
        notices.append("Written by an older advisor: how the study was asked for, and what it searched, is not known.")
    card = card or _card_of(summary)
    if card is None:
        raise BadInput(
            f"{folder} has trials, but neither {CARD} nor {SUMMARY} that can be read says what they are about. "
            f"{' '.join(notices)}"
        )
    if summary is not None and not _belongs(summary, card):
        notices.append(f"{SUMMARY} was left out, since it is about other workloads than {CARD}.")
        summary = None
    earlier = _tolerant(folder / EARLIER, EarlierRuns, notices) or EarlierRuns()
    return RunRead(folder, card, tuple(records), summary, earlier, _files(folder, card), tuple(notices))


def _belongs(summary: StudySummary, card: RunCard) -> bool:
    """True where the summary is about the workloads of the card, each under its own name."""
    names = [workload.name for workload in card.workloads]
    asked = [(result.workload_name, result.workload.name) for result in summary.results]
    robust = names if summary.robust is None else list(summary.robust.regret)
    return asked == [(name, name) for name in names] and set(robust) == set(names)


def _no_run(folder: Path) -> str:
    """What to give instead, from the runs that lie below."""
    below = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{TRIALS}"))
    if not below:
        return f"{folder} is no run folder: it has neither {TRIALS}/ nor {SUMMARY}."
    named = "\n".join(f"  advisor report {run}" for run in below[:5])
    more = f"\n  and {len(below) - 5} more" if len(below) > 5 else ""
    return f"{folder} is no run folder itself; of those below it, ask for one:\n{named}{more}"


def _records(folder: Path, notices: list[str]) -> list[TrialRecord]:
    numbers = sorted(int(path.name) for path in (folder / TRIALS).glob("[0-9]*") if path.name.isdecimal())
    if len(numbers) > MOST_TRIALS:
        notices.append(f"Only the first {MOST_TRIALS:,} of {len(numbers):,} trials are shown.")
    records, damaged = [], []
    for number in numbers[:MOST_TRIALS]:
        try:
            record = TrialFolder(folder, number).read()
        except BadInput as error:
            damaged.append(str(error))
            continue
        if record is not None:
            records.append(record)
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        notices.append(f"Left out: {damaged[0]}{more}")
    return records


def _tolerant(path: Path, model: type[ModelT], notices: list[str]) -> ModelT | None:
    """A document; None with a notice where it is damaged, and without one where it is not there."""
    if not path.exists():
        return None
    try:
        return model.model_validate_json(read_text(path, MOST_BYTES))
    except ValidationError as error:
        why = explain(error, model)
    except BadInput as error:
        why = str(error)
    notices.append(f"{path.name} was left out, since it is not one of this version: {why[:400]}")
    return None


def _card_of(summary: StudySummary | None) -> RunCard | None:
    """The card of a run that is older than cards."""
    if summary is None or not summary.results:
        return None
    first = summary.results[0]
    return RunCard(
        study=summary.study,
        source=summary.source,
        engine_label=summary.label,
        deployment=first.deployment,
        workloads=tuple(result.workload for result in summary.results),
        objective=first.objective,
        slo=first.slo,
    )


def _files(folder: Path, card: RunCard) -> dict[str, dict[str, str]]:
    """The configuration and its scripts; names come from the workloads themselves, never from a document."""
    names = (*_config_names(card), *SCRIPTS)
    found = {
        workload.name: {name: text for name in names if (text := _text(folder / workload.name / name)) is not None}
        for workload in card.workloads
    }
    return {workload: texts for workload, texts in found.items() if texts}


def _config_names(card: RunCard) -> tuple[str, ...]:
    return (spoken_by(card.deployment).config_name,) if card.deployment.engine in ENGINES_SPOKEN else ()


def _text(path: Path) -> str | None:
    return readable(lambda: read_text(path))


def readable(read: Callable[[], str]) -> str | None:
    """What can be read, None for what cannot."""
    try:
        return read()
    except BadInput:
        return None
