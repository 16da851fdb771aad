"""What earlier runs teach a study: how far their launches were from the twin's own prediction for them.

The error of the twin carries over where a value does not: another workload or GPU has another throughput, and the same
kernels that are slower than the tables. Each run enters as rows of its own task and server (`search/kinship.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from advisor.app.earlier import EarlierRun
from advisor.app.forecast import Forecaster
from advisor.app.stand_in import stand_in_here
from advisor.app.twin_prior import TwinPrior
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.expectation import Lessons, log_measured, task
from advisor.search.kinship import MOST_STUDIES, standing
from advisor.search.prior import outputs, places_of
from advisor.search.space import completed
from advisor.search.surrogate import Design, joined

EXTRA_SD = 0.02  # assumed: what a row of another study has beyond the noise of repeats
MOST_ROWS = 48  # of one output: what more of them would teach is not worth the time of an ask


def lessons(runs: Sequence[EarlierRun], prior: TwinPrior, ours: Deployment) -> dict[str, Lessons]:
    """Rows of every output of a study, by output; the nearest run last, beside the study's own rows.

    Args:
        runs: Earlier ones, the nearest first.
        prior: Of the study that is to learn.
        ours: Its deployment.
    """
    taught = [each for n, run in enumerate(runs[:MOST_STUDIES]) if (each := _of_run(run, n, prior, ours))]
    return {name: _last_rows([each[name] for each in reversed(taught)]) for name in outputs(prior.slo) if taught}


def _of_run(run: EarlierRun, number: int, prior: TwinPrior, ours: Deployment) -> dict[str, Lessons]:
    """By output; empty where nothing was measured that this study's space can express or the twin can play."""
    theirs = run.card.deployment
    repeats = _by_config(run.records, prior.space, theirs)
    if not repeats:
        return {}
    configs = list(repeats)
    try:
        substitute = None if prior.forecaster.stand_in is None else stand_in_here(theirs)
        forecaster = Forecaster(
            theirs, run.card.workloads, stand_in=substitute, constants=prior.forecaster.twin.constants
        )
        there = prior.elsewhere(forecaster).computed(configs)
    except BadInput:
        return {}
    places, server = places_of(prior.space, configs), standing(theirs, ours, number)
    found = {}
    for name in outputs(prior.slo):
        each = []
        for workload in run.card.workloads:
            key = workload.name, name
            measured = [_mean_log(prior, name, records, workload) for records in repeats.values()]
            residuals = np.array(measured) - there.log_values[key]
            known = np.flatnonzero(np.isfinite(residuals))
            n = len(known)
            design = Design(
                places=places[known],
                tasks=np.tile(task(workload), (n, 1)),
                servers=np.tile(server, (n, 1)),
                slopes=there.slopes[key][known],
                extra_sd=np.full(n, EXTRA_SD),
            )
            each.append(Lessons(design, residuals[known]))
        found[name] = _last_rows(each)
    return found


def _by_config(
    records: Iterable[TrialRecord], space: SearchSpace, theirs: Deployment
) -> Mapping[ServingConfig, list[TrialRecord]]:
    """Measured trials by configuration, those that state every dimension of the space."""
    found: dict[ServingConfig, list[TrialRecord]] = {}
    names = {dimension.name for dimension in space.active}
    for record in records:
        config = completed(space, record.config, theirs)
        if record.measured and names <= config.flat().keys():
            found.setdefault(config, []).append(record)
    return found


def _mean_log(prior: TwinPrior, name: str, records: Sequence[TrialRecord], workload: Workload) -> float:
    """Mean logarithm of an output over repeats, NaN where one has none."""
    return float(np.mean([log_measured(name, record.workload(workload.name), prior.objective) for record in records]))


def _last_rows(parts: Sequence[Lessons]) -> Lessons:
    design, residuals = parts[0].design, parts[0].residuals
    for part in parts[1:]:
        design, residuals = joined(design, part.design), np.concatenate([residuals, part.residuals])
    last = slice(-MOST_ROWS, None)
    return Lessons(design.rows(last), residuals[last])
