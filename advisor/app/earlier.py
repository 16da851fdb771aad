"""Earlier studies below the same results folder that can teach this one: what they were about, and their trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from advisor.domain.calibration import Calibration
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel, explain
from advisor.domain.trial import TrialRecord
from advisor.domain.units import MIB_BYTES
from advisor.domain.workload import Workload
from advisor.search.kinship import MOST_STUDIES, distance, is_kin
from advisor.search.shapes import octaves
from advisor.store.calibrations import calibration_below
from advisor.store.run_card import RunCard, newest_runs, read_card
from advisor.store.trial_folder import committed, has_trials
from advisor.store.yaml_files import read_text, write_atomic

EARLIER = "earlier.json"
MOST_LOOKED_AT = 200  # runs whose card is read
MOST_FILE_BYTES = 64 * MIB_BYTES


class EarlierRun(StrictModel):
    """One earlier run: its folder below `results/`, what it was about, and every finished trial."""

    folder: str
    card: RunCard
    records: tuple[TrialRecord, ...] = Field(min_length=1)

    def about(self, ours: Deployment) -> str:
        """One clause for people: how many launches of what, and where it differs from this study."""
        fixed, n = self.card.deployment, sum(record.measured for record in self.records)
        here = {
            "on": f"{fixed.gpus} x {fixed.gpu}" if (fixed.gpus, fixed.gpu) != (ours.gpus, ours.gpu) else "",
            "of release": fixed.engine_version if fixed.engine_version != ours.engine_version else "",
        }
        apart = "".join(f" {word} {what}" for word, what in here.items() if what)
        return f"{n} launches of {'+'.join(workload.name for workload in self.card.workloads[:3])}{apart}"

    def same_deployment(self, deployment: Deployment) -> bool:
        """True where even its GiB are those of this study."""
        return self.card.deployment == deployment


class EarlierRuns(StrictModel):
    """`earlier.json`: what was known when a run began. A resumed run reads it instead of looking again."""

    runs: tuple[EarlierRun, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="Runs that could not be used, and why")
    calibration: Calibration | None = Field(default=None, description="Of the twin that the run goes by")


@dataclass(frozen=True)
class Asking:
    """The run that wants to learn, and its card."""

    folder: Path
    card: RunCard


def earlier_runs(root: Path, asking: Asking) -> EarlierRuns:
    """What a run may learn from: as it noted when it began, else the nearest runs below `root`.

    Only runs of the same source and, where that is simulated, of the same world: a world is a server of its own.

    Raises:
        BadInput: the run's own note is damaged.
    """
    noted = asking.folder / EARLIER
    if noted.exists():
        return _read(noted)
    begun_without = has_trials(asking.folder)
    return EarlierRuns() if begun_without else find_earlier(root, asking)


def calibration_of(root: Path, asking: Asking, *, wanted: bool) -> Calibration | None:
    """The calibration of a run: as it noted when it began, whatever is wanted now, else the one below `root`.

    Raises:
        BadInput: the run's own note or the calibration is damaged.
    """
    noted = asking.folder / EARLIER
    if noted.exists():
        return _read(noted).calibration
    if not wanted or has_trials(asking.folder):
        return None
    return calibration_below(root, asking.card.deployment, asking.card.source, asking.card.engine_label)


def note_earlier(run: Path, found: EarlierRuns) -> None:
    """Keep what a run learns from, so that it resumes as it began even when the earlier ones change or go.

    Raises:
        BadInput: it cannot be written.
    """
    if not (run / EARLIER).exists():
        write_atomic(run / EARLIER, found.model_dump_json() + "\n")


def find_earlier(root: Path, asking: Asking) -> EarlierRuns:
    """The nearest related runs, of the same deployment first, then by their workloads. Nothing unreadable is fatal."""
    cards, notes = [], []
    for folder in newest_runs(root, MOST_LOOKED_AT):
        if folder.resolve() == asking.folder.resolve():
            continue
        try:
            cards.append((folder, read_card(folder)))
        except BadInput as error:
            notes.append(f"{folder} was left out: {error}")
    related = [(folder, card) for folder, card in cards if is_related(card, asking.card)]
    related.sort(key=lambda entry: (*_far(entry[1], asking.card), str(entry[0])))
    runs: list[EarlierRun] = []
    for folder, card in related:
        if len(runs) == MOST_STUDIES:
            break
        try:
            records = committed(folder)
        except BadInput as error:
            notes.append(f"{folder} was left out: {error}")
            continue
        if records:
            runs.append(EarlierRun(folder=str(folder.relative_to(root)), card=card, records=tuple(records)))
    return EarlierRuns(runs=tuple(runs), notes=tuple(notes))


def is_related(theirs: RunCard, ours: RunCard) -> bool:
    """True where one run can teach the other: same source, same world on the twin, same model, same meaning of a load.

    With goodput as objective the load of a trial is what was found, so that only the same question compares.
    """
    if theirs.source != ours.source or not is_kin(theirs.deployment, ours.deployment):
        return False
    if theirs.source == "simulated" and theirs.engine_label != ours.engine_label:
        return False
    searched = [card.objective.metric == "goodput" for card in (theirs, ours)]
    return not any(searched) or (all(searched) and theirs.slo == ours.slo)


def _far(theirs: RunCard, ours: RunCard) -> tuple[float, float]:
    nearest = min(_octaves(theirs.workloads, workload) for workload in ours.workloads)
    return distance(theirs.deployment, ours.deployment), nearest


def _octaves(theirs: Sequence[Workload], ours: Workload) -> float:
    return min(octaves(each, ours) for each in theirs)


def _read(path: Path) -> EarlierRuns:
    try:
        return EarlierRuns.model_validate_json(read_text(path, MOST_FILE_BYTES))
    except ValidationError as error:
        raise BadInput(
            f"{path} is damaged: {explain(error, EarlierRuns)} Restore it from a copy, or remove it to look again at "
            "the earlier studies."
        ) from None
