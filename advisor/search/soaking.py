"""What a winner must survive before it is recommended: the longest requests of the study, at the full load."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.domain.strict import changed
from advisor.domain.workload import Workload

SOAK_WAVES = 2  # every slot serves two of the longest requests: the second wave meets a pool that the first has used


def soak_workload(workloads: Sequence[Workload]) -> Workload:
    """The heaviest load of a study (at least one workload), every request as long as the longest of any of them."""
    busiest = max(workloads, key=lambda workload: (workload.concurrency or 0, workload.request_rate_per_s or 0.0))
    longest = max(workloads, key=lambda workload: workload.max_tokens_per_request)
    soak = changed(
        busiest,
        isl=longest.isl,
        osl=longest.osl,
        isl_min=None,
        osl_min=None,
        shared_prefix_tokens=0,
        n_requests=None,
    )
    return changed(soak, n_requests=soak.requests(SOAK_WAVES))
