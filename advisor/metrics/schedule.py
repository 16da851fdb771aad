"""What a benchmark sends and when: lengths and send times of a workload, the same for the twin and a real client."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from advisor.domain.workload import Workload


class Schedule(NamedTuple):
    """The requests of one benchmark, in the order in which they are sent; arrays of shape (n_requests,)."""

    isl: NDArray[np.int64]
    """Prompt tokens."""
    osl: NDArray[np.int64]
    """Output tokens."""
    send_ms: NDArray[np.float64] | None
    """Planned send times, ascending from zero; None in a closed loop, which sends as soon as concurrency allows."""


def draw_requests(workload: Workload, n_requests: int, seed: int) -> Schedule:
    """Uniform lengths within the workload's ranges and, for a request rate, Poisson arrivals."""
    rng = np.random.default_rng(seed)
    isl = rng.integers(workload.isl_min or workload.isl, workload.isl + 1, n_requests)
    osl = rng.integers(workload.osl_min or workload.osl, workload.osl + 1, n_requests)
    if workload.request_rate_per_s is None:
        return Schedule(isl, osl, None)
    gaps = rng.exponential(1e3 / workload.request_rate_per_s, n_requests)
    gaps[0] = 0.0
    return Schedule(isl, osl, np.cumsum(gaps))
