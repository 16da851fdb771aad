"""Where the search begins: the twin's best configurations, far enough apart to teach different things."""

from __future__ import annotations

import numpy as np

from advisor.app.context import StudyContext
from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.domain.ports import Proposal
from advisor.domain.serving_config import ServingConfig
from advisor.search.admission import LEAST_P_FITS
from advisor.search.space import all_configs, indices_of

KV_FRACTION = "kv_cache_free_gpu_memory_fraction"
N_STARTS = 4
CONSIDERED = 400
LEAST_STEPS_APART = 2
LOG_GAIN_PER_STEP = 0.0005  # among equals the twin begins near the baseline: 0.05 % a ladder step


def plan_starts(context: StudyContext, forecaster: Forecaster, n: int = N_STARTS) -> tuple[Proposal, ...]:
    """The twin's best over all workloads together, each at least two ladder steps from those before.

    The KV fraction does not count as a step: where it fits and does not limit, it teaches nothing about speed.
    """
    configs = all_configs(context.space)
    rankings = [forecaster.rank(configs, workload) for workload in context.workloads]
    scores = np.mean(
        [log_scores(r, context.objective, w) for r, w in zip(rankings, context.workloads, strict=True)], axis=0
    )
    scores[np.min([ranking.p_fits for ranking in rankings], axis=0) < LEAST_P_FITS] = np.nan
    near = best_first(scores)[:CONSIDERED]
    home = context.baseline.config
    steps = np.array([0 if home is None else _steps_apart(context, configs[place], home, ()) for place in near])
    chosen: list[ServingConfig] = []
    for rank in np.argsort(LOG_GAIN_PER_STEP * steps - scores[near], kind="stable"):
        candidate = configs[near[int(rank)]]
        if all(_steps_apart(context, candidate, other, (KV_FRACTION,)) >= LEAST_STEPS_APART for other in chosen):
            chosen.append(candidate)
        if len(chosen) == n:
            break
    return tuple(Proposal(config=config, origin=f"twin rank {i}") for i, config in enumerate(chosen, start=1))


def _steps_apart(context: StudyContext, one: ServingConfig, other: ServingConfig, ignored: tuple[str, ...]) -> int:
    a, b = indices_of(context.space, one), indices_of(context.space, other)
    return sum(abs(a[name] - b[name]) for name in a if name not in ignored)
