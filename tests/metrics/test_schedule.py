"""Lengths and send times follow the workload, and stay what they were: recorded studies repeat them by seed."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.domain.workload import Workload, parse_workload
from advisor.metrics.schedule import draw_requests

RANGED = Workload(isl=2048, osl=512, isl_min=1024, osl_min=256, request_rate_per_s=10.0)


def test_lengths_stay_in_their_ranges_and_arrivals_have_their_rate() -> None:
    isl, osl, send_ms = draw_requests(RANGED, 4000, seed=1)
    assert send_ms is not None
    assert (isl.min(), isl.max(), osl.min(), osl.max()) == (1024, 2048, 256, 512)
    assert float(np.diff(send_ms).mean()) == pytest.approx(100.0, rel=0.05)
    assert float(np.diff(send_ms).std()) == pytest.approx(100.0, rel=0.1), "Poisson: gaps spread like their mean"
    assert send_ms[0] == 0.0


def test_fixed_lengths_of_a_closed_loop_have_no_send_times() -> None:
    schedule = draw_requests(parse_workload("4k1k_c8"), 3, seed=1)
    assert schedule.isl.tolist() == [4096] * 3
    assert schedule.osl.tolist() == [1024] * 3
    assert schedule.send_ms is None


def test_a_seed_gives_the_numbers_that_it_always_gave() -> None:
    isl, osl, send_ms = draw_requests(RANGED, 4, seed=7)
    assert isl.tolist() == [1992, 1664, 1725, 1943]
    assert osl.tolist() == [404, 455, 470, 313]
    assert send_ms is not None
    assert send_ms.tolist() == pytest.approx([0.0, 338.3637351436254, 339.33909780850047, 620.2606741195789])
