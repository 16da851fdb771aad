"""Optuna's own samplers as proposers: a shadow study is built from the history for every proposal.

Nothing is remembered between calls, so a resumed study goes on exactly as an uninterrupted one. What each sampler can
see differs, and one table says which form of the outcomes it is shown. Optuna is imported late: it is slow to load.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from advisor.domain.errors import BadInput
from advisor.domain.objective import Slo
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import unknown_name
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.search.space import all_configs, config_at, indices_of, is_kept, neighbours
from advisor.store.quiet import quiet_optuna
from advisor.store.telling import Told, ValueOf, told

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

MAX_ASKS = 16
STARTUP_TRIALS = 4  # Optuna's 10 would leave most of a budget of 8-20 launches to chance
POPULATION = 4
REPORTED_STEP = 1
FOLDED_PENALTY = 3.0  # log units per broken limit, where constraints cannot be shown

Sees = Literal["states", "constraints", "value"]


@dataclass(frozen=True)
class StockSampler:
    """How one of Optuna's samplers is made, and the form in which it is shown the outcomes.

    Attributes:
        make: From a seed.
        sees: `states`: PRUNED and constraints. `constraints`: of COMPLETE trials only, so that a failed launch is shown
            as COMPLETE with the worst healthy value. `value`: nothing else, so that violations are folded into it.
        keeps_state: True when it notes its progress on trials as it asks, so that the history must be replayed.
        one_stream: True when its points only make sense as one sequence from one seed.
        needs: Packages that Optuna does not bring.
    """

    make: Callable[[int], BaseSampler]
    sees: Sees
    keeps_state: bool = False
    one_stream: bool = False
    needs: tuple[str, ...] = ()


def _tpe(seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _qmc(seed: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    return QMCSampler(seed=seed, scramble=True)


def _gp(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def _nsgaii(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=POPULATION)


def _cmaes(seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


STOCK_SAMPLERS: dict[str, StockSampler] = {
    "tpe": StockSampler(_tpe, "states"),
    "random": StockSampler(_random, "value"),
    "qmc": StockSampler(_qmc, "value", keeps_state=True, one_stream=True, needs=("scipy",)),
    "gp": StockSampler(_gp, "constraints", needs=("scipy", "torch")),
    "nsgaii": StockSampler(_nsgaii, "constraints", keeps_state=True),
    "cmaes": StockSampler(_cmaes, "value", keeps_state=True, needs=("cmaes",)),
}


def make_proposer(name: str, space: SearchSpace, slo: Slo, value_of: ValueOf) -> OptunaProposer:
    """A proposer over one of Optuna's samplers, by name.

    Raises:
        BadInput: unknown name, or a package it needs is not installed (Optuna itself would say so only trials later).
    """
    if name not in STOCK_SAMPLERS:
        raise unknown_name("sampler", name, STOCK_SAMPLERS)
    stock = STOCK_SAMPLERS[name]
    missing = [package for package in stock.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(
            f"Sampler {name!r} needs {' and '.join(missing)}, which advisor does not install: "
            f"`pip install {' '.join(missing)}`, or use --sampler tpe."
        )
    return OptunaProposer(name, stock, space, slo, value_of)


@dataclass
class OptunaProposer:
    """Asks one of Optuna's samplers for a point not tried yet. Infrastructure faults are as if they never were."""

    name: str
    stock: StockSampler
    space: SearchSpace
    slo: Slo
    value_of: ValueOf

    def propose(self, history: Sequence[TrialRecord], seed: int, running: Sequence[ServingConfig] = ()) -> Proposal:
        """The next point; the same history and seed give the same one.

        Raises:
            BadInput: every configuration of the space was tried.
        """
        records = [record for record in history if not record.infrastructure]
        tried = {*(record.config for record in records), *running}
        stream = 0 if self.stock.one_stream else len(records)
        with quiet_optuna():
            study = self._shadow(records, derived_seed(seed, stream))
            # Asked trials stay open in the shadow, so a sampler that knows of running trials moves away from them.
            for _ in range(MAX_ASKS):
                config = config_at(self.space, study.ask(distributions(self.space)).params)
                if config not in tried and is_kept(self.space, config):
                    return Proposal(config=config, origin=self.name)
        return Proposal(config=nearest_untried(self.space, config, tried), origin=f"{self.name}, nearest untried")

    def _shadow(self, records: Sequence[TrialRecord], seed: int) -> Study:
        from optuna.study import create_study

        study = create_study(direction="maximize", sampler=self.stock.make(seed))
        facts = [told(record, self.slo, self.value_of) for record in records]
        for record, fact in zip(records, shown(facts, self.stock.sees), strict=True):
            add = _replay if self.stock.keeps_state else _add
            add(study, indices_of(self.space, record.config), distributions(self.space), fact)
        return study


def shown(facts: Sequence[Told], sees: Sees) -> list[Told]:
    """The facts in the form that a sampler sees."""
    if sees == "states":
        return list(facts)
    worst = min((fact.known for fact in facts if fact.known is not None), default=0.0)
    if sees == "constraints":
        return [Told("COMPLETE", worst if fact.known is None else fact.known, fact.constraints) for fact in facts]
    return [Told("COMPLETE", _folded(fact, worst), {}) for fact in facts]


def _folded(fact: Told, worst: float) -> float:
    base = worst - 1.0 if fact.known is None else fact.known
    return base - FOLDED_PENALTY * fact.violation


def _add(study: Study, indices: dict[str, int], space: dict[str, BaseDistribution], fact: Told) -> None:
    from optuna.trial import TrialState, create_trial

    study.add_trial(
        create_trial(
            state=TrialState[fact.state],
            value=fact.value,
            params=dict(indices),
            distributions=space,
            constraints=fact.constraints,
            intermediate_values=intermediate_values(fact),
        )
    )


def intermediate_values(fact: Told) -> dict[int, float]:
    """What Optuna is told of a stopped trial beside its state: TPE ranks PRUNED trials by it."""
    return {} if fact.reported is None else {REPORTED_STEP: fact.reported}


def _replay(study: Study, indices: dict[str, int], space: dict[str, BaseDistribution], fact: Told) -> None:
    from optuna.trial import TrialState

    study.enqueue_trial(dict(indices))
    trial = study.ask(space)
    _ = trial.relative_params  # here the sampler notes generation, population or place in the sequence
    for key, value in fact.constraints.items():
        trial.set_constraint(key, value)
    study.tell(trial, fact.value, TrialState[fact.state])


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """One ordinal parameter per dimension: the index of its ladder step. Categories would lose the order."""
    from optuna.distributions import IntDistribution

    return {dimension.name: IntDistribution(0, len(dimension.values) - 1) for dimension in space.active}


def derived_seed(seed: int, stream: int) -> int:
    """An independent seed for each place in a study: a resumed study must not start its stream afresh."""
    return int(np.random.SeedSequence([abs(seed), stream]).generate_state(1)[0])


def nearest_untried(space: SearchSpace, config: ServingConfig, tried: set[ServingConfig]) -> ServingConfig:
    """The untried configuration in fewest ladder steps from here.

    Raises:
        BadInput: there is none.
    """
    ring, seen = [config], {config}
    while ring:
        reached = {near: None for here in ring for near in neighbours(space, here) if near not in seen}
        ring = list(reached)
        seen.update(ring)
        untried = next((near for near in ring if near not in tried), None)
        if untried is not None:
            return untried
    # Conditions that leave combinations out may cut the grid into parts without a way between them.
    untried = next((each for each in all_configs(space) if each not in tried), None)
    if untried is not None:
        return untried
    raise BadInput(
        f"All {len(all_configs(space)):,} configurations of search space {space.name!r} were tried: "
        "widen a ladder or vary a further dimension to search on."
    )
