"""A ledger for dashboards that know no more of Optuna than its fourth release, and never to be written.

Over the storage of a study it shows each trial with its constraints where optuna-dashboard looks for them (a system
attribute, which Optuna 5 writes no more), with the values that the ladder indices stand for, and with a note in words.
Nothing of that enters the ledger: Optuna 5 would read the old attribute as further constraints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from advisor.domain.errors import BadInput
from advisor.store.ledger import LADDERS, database
from advisor.store.quiet import quiet_optuna
from advisor.store.sampler import PROPOSAL

SEEN = "constraints"  # optuna_dashboard/_serializer.py: CONSTRAINTS_KEY
METRIC_NAMES = "study:metric_names"
LIMIT = "limit "  # before the name of a constraint, as a user attribute
LOG_FROM = 8  # a ladder that spans more than this factor is drawn logarithmically


def view_of(journal: Path | None = None, storage: str | None = None) -> LedgerView:
    """A view of a run's journal, or of a database by its URL.

    Raises:
        BadInput: it cannot be read.
    """
    with quiet_optuna():
        if storage is not None:
            return LedgerView(_existing(storage))
        assert journal is not None
        try:
            return LedgerView(JournalStorage(_ReadJournal(journal)))
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise BadInput(f"{journal} cannot be read as a ledger ({error!r}).") from None


def _existing(url: str) -> BaseStorage:
    scheme, _, place = url.partition(":///")
    if scheme.startswith("sqlite") and not Path(place.partition("?")[0]).is_file():
        raise BadInput("The sqlite storage is not there: name the file of the study as in sqlite:////path/study.db.")
    return database(url)


class _ReadJournal(BaseJournalBackend):
    """Whole entries of a journal that another process may be writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_read = self._n_bytes = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        if log_number_from != self._n_read:
            self._n_read = self._n_bytes = 0
        with self._path.open("rb") as file:
            file.seek(self._n_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._n_read, self._n_bytes = self._n_read + 1, self._n_bytes + len(line)
                if self._n_read > log_number_from:
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        _refused()


class LedgerView(BaseStorage):
    """Implements Optuna's storage over another one; whatever would change it is refused."""

    def __init__(self, ledger: BaseStorage) -> None:
        self._ledger = ledger

    # -- studies -----------------------------------------------------------------------------------------------------

    def get_all_studies(self) -> list[FrozenStudy]:
        return [self._study(each) for each in self._ledger.get_all_studies()]

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._ledger.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._ledger.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[optuna.study.StudyDirection]:
        return self._ledger.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ledger.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        kept = self._ledger.get_study_system_attrs(study_id)
        trials = self.get_all_trials(study_id, deepcopy=False)
        if not any(PROPOSAL in trial.user_attrs for trial in self._ledger.get_all_trials(study_id, deepcopy=False)):
            return kept  # no study of advisor's
        return {**kept, METRIC_NAMES: ["log gain over the predicted baseline"], **_notes(trials)}

    def _study(self, study: FrozenStudy) -> FrozenStudy:
        return FrozenStudy(
            study_name=study.study_name,
            direction=None,
            directions=study.directions,
            user_attrs=study.user_attrs,
            system_attrs=self.get_study_system_attrs(study._study_id),
            study_id=study._study_id,
        )

    # -- trials ------------------------------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        for study in self._ledger.get_all_studies():
            for trial in self.get_all_trials(study._study_id, deepcopy=False):
                if trial._trial_id == trial_id:
                    return trial
        raise KeyError(trial_id)

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        ladders = _Ladders(self._ledger.get_study_user_attrs(study_id).get(LADDERS))
        return [_shown(trial, ladders) for trial in self._ledger.get_all_trials(study_id, deepcopy, states)]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best that keeps every limit; where none does, the best of all, which is what a dashboard expects."""
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("No trials are completed yet.")
        feasible = [trial for trial in complete if all(excess <= 0 for excess in trial.system_attrs.get(SEEN, ()))]
        sign = 1 if self.get_study_directions(study_id)[0] == optuna.study.StudyDirection.MAXIMIZE else -1
        return max(feasible or complete, key=lambda trial: sign * (trial.value or 0.0))

    # -- what would change it ----------------------------------------------------------------------------------------

    def create_new_study(self, directions: Any, study_name: str | None = None) -> int:
        _refused()

    def delete_study(self, study_id: int) -> None:
        _refused()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        _refused()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        _refused()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        _refused()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        _refused()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        _refused()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        _refused()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refused()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refused()


def _refused() -> NoReturn:
    raise optuna.exceptions.StorageInternalError("This view of a ledger is read only.")


class _Ladders:
    """What the indices of a study stand for; nothing where the study does not say, as one of an older advisor."""

    def __init__(self, noted: Mapping[str, Sequence[Any]] | None) -> None:
        self._values = {name: list(values) for name, values in (noted or {}).items()}
        self._distributions = {name: _distribution(values) for name, values in self._values.items()}

    def shown(self, trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Parameters and distributions in values; a configuration beside the ladders is shown exactly."""
        exact = _proposal(trial).get("config", {})
        params, distributions = dict(trial.params), dict(trial.distributions)
        for name, index in trial.params.items():
            if name in self._values and index < len(self._values[name]):
                distributions[name] = self._distributions[name]
                params[name] = self._values[name][index]
                if _is_within(distributions[name], exact.get(name)):
                    params[name] = exact[name]
        return params, distributions


def _is_within(distribution: BaseDistribution, value: Any) -> bool:
    if not isinstance(distribution, (IntDistribution, FloatDistribution)) or not isinstance(value, (int, float)):
        return False
    return bool(distribution.low <= value <= distribution.high)


def _proposal(trial: FrozenTrial) -> Mapping[str, Any]:
    noted = trial.user_attrs.get(PROPOSAL)
    return noted if isinstance(noted, Mapping) else {}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if any(isinstance(value, (bool, str)) for value in values):
        return CategoricalDistribution(values)
    low, high = min(values), max(values)
    log = low > 0 and high / low > LOG_FROM
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _shown(trial: FrozenTrial, ladders: _Ladders) -> FrozenTrial:
    params, distributions = ladders.shown(trial)
    constraints = {name: excess if math.isfinite(excess) else 1e9 for name, excess in trial.constraints.items()}
    user_attrs = {name: value for name, value in trial.user_attrs.items() if name != PROPOSAL}
    user_attrs |= {name: said for name, said in _proposal(trial).items() if name in ("role", "origin")}
    user_attrs |= {f"{LIMIT}{name}": round(excess, 4) for name, excess in constraints.items()}
    whole = trial.state == TrialState.COMPLETE
    return FrozenTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=trial.state,
        value=None,
        values=trial.values if whole else None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=params,
        distributions=distributions,
        user_attrs=user_attrs,
        system_attrs={SEEN: list(constraints.values())} if constraints else {},
        intermediate_values=trial.intermediate_values if whole else {},  # what a stopped one showed is no result
    )


def _notes(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Notes of the study and of each trial, as optuna-dashboard keeps them."""
    label = next(
        (str(trial.user_attrs["engine"]) for trial in trials if "engine" in trial.user_attrs), "not measured yet"
    )
    limits = next((attrs for trial in trials if (attrs := _limits(trial))), [])
    about = [
        f"**{label[:1].upper()}{label[1:]}.** A view of advisor's ledger, which nothing here can change.",
        "The value of a trial is its log gain over the predicted baseline: 0.1 is about 10 %. A trial is infeasible "
        "where one of its limits (user attributes `limit ...`) is above zero; `reason` says it in words.",
    ]
    if limits:
        about.append(f"Constraints, in their order: {', '.join(limits)}.")
    notes = _note("", "\n\n".join(about))
    for trial in trials:
        said = [f"{name}: {trial.user_attrs[name]}" for name in _NOTED if name in trial.user_attrs]
        if said:
            notes |= _note(f"{trial._trial_id}:", "\n".join(f"- {_plain(line)}" for line in said))
    return notes


def _limits(trial: FrozenTrial) -> list[str]:
    return [name.removeprefix(LIMIT) for name in trial.user_attrs if name.startswith(LIMIT)]


_NOTED = ("feasible", "reason", "memory_used_gib", "memory_left_gib", "memory_left_predicted_gib", "memory_short_gib")


def _note(place: str, body: str) -> dict[str, Any]:
    """optuna_dashboard/_note.py: `note_ver_key`, `note_str_key_prefix`."""
    return {f"dashboard:{place}note_ver": 1, f"dashboard:{place}note_str:0": body}


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+!|~" else char for char in " ".join(text.split()))
