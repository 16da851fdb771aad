"""The study's Optuna sampler: thin, over a proposer. Importing this module loads Optuna."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from advisor.domain.ports import Proposal, Proposer
from advisor.domain.serving_config import ServingConfig, config_from_flat
from advisor.domain.study import SearchSpace
from advisor.domain.trial import Role, TrialRecord
from advisor.search.space import indices_of
from advisor.store.stock_samplers import distributions

PROPOSAL = "proposal"
"""User attribute of a trial: role, origin and the exact configuration, which may lie beside the ladders."""


class ProposerSampler(BaseSampler):
    """Samples all ladder indices together from what a proposer says, and notes the proposal on the trial."""

    def __init__(
        self, space: SearchSpace, proposer: Proposer, history: Callable[[], Sequence[TrialRecord]], seed: int
    ) -> None:
        self._space = space
        self._proposer = proposer
        self._history = history
        self._seed = seed
        self._role: Role = "search"
        self._given: Proposal | None = None
        self._elsewhere = RandomSampler(seed=seed)

    @contextmanager
    def asking(self, role: Role, given: Proposal | None) -> Iterator[None]:
        """Trials asked inside have this role, and this proposal where one is given instead of the proposer's."""
        self._role, self._given = role, given
        try:
            yield
        finally:
            self._role, self._given = "search", None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposal = self._given or self._proposer.propose(self._history(), self._seed, running_beside(study, trial))
        study._storage.set_trial_user_attr(trial._trial_id, PROPOSAL, note(self._role, proposal))
        return dict(indices_of(self._space, proposal.config))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of a parameter that is no dimension of the space: anything."""
        return self._elsewhere.sample_independent(study, trial, param_name, param_distribution)


def note(role: Role, proposal: Proposal) -> dict[str, Any]:
    """Role and proposal as plain data; `noted_proposal` reads them back."""
    return {
        "role": role,
        "origin": proposal.origin,
        "config": proposal.config.flat(),
        "expected_gain": proposal.expected_gain,
    }


def running_beside(study: Study, trial: FrozenTrial) -> list[ServingConfig]:
    """Configurations of the other trials that are open."""
    others = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    noted = [noted_proposal(other) for other in others if other.number != trial.number]
    return [each[1].config for each in noted if each is not None]


def noted_proposal(trial: FrozenTrial) -> tuple[Role, Proposal] | None:
    """Role and proposal that a trial was opened with, or None when it died before."""
    noted = trial.user_attrs.get(PROPOSAL)
    if noted is None:
        return None
    try:
        config, gain = config_from_flat(noted["config"]), noted.get("expected_gain")
        return noted["role"], Proposal(config=config, origin=noted["origin"], expected_gain=gain)
    except (KeyError, TypeError, ValidationError):
        return None
