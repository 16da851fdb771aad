"""What the nominal twin expects of configurations at the load that they would be measured at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.app.forecast import Forecaster, log_scores
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import Workload
from advisor.search.loads import at_load


def expected_scores(
    forecaster: Forecaster, configs: Sequence[ServingConfig], workload: Workload, objective: Objective, slo: Slo
) -> NDArray[np.float64]:
    """Log scores, shape (n,), as `log_scores` has them; with goodput at the best of the loads that are searched.

    NaN where the workload's own load would not be served: a launch begins with it.
    """
    loads = halvings(workload) if objective.metric == "goodput" else (workload,)
    scores = [log_scores(forecaster.rank(configs, each), objective, slo, each) for each in loads]
    return np.asarray(np.max(scores, axis=0))


def halvings(workload: Workload) -> tuple[Workload, ...]:
    """The workload at its concurrency, half of it, and so on to one request; a request rate stays alone."""
    most = workload.concurrency
    if most is None:
        return (workload,)
    return tuple(at_load(workload, most >> n) for n in range(most.bit_length()))
