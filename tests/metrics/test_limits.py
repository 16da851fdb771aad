"""What limits a benchmark: what is full in front hides what waits behind it."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import LimitedBy
from advisor.metrics.limits import FULL_CORE, limit_of

BEHIND = st.sampled_from([None, *get_args(LimitedBy)])


@given(BEHIND, st.none() | st.floats(0.0, 2.0))
def test_the_client_hides_everything(behind: LimitedBy | None, share: float | None) -> None:
    assert limit_of(behind, http_cpu_share=share, client_saturated=True) == "client"


@given(BEHIND, st.floats(FULL_CORE, 2.0), st.none() | st.floats(0.0, FULL_CORE, exclude_max=True))
def test_a_full_thread_hides_the_engine_and_one_that_is_not_full_or_not_seen_does_not(
    behind: LimitedBy | None, full: float, rest: float | None
) -> None:
    assert limit_of(behind, http_cpu_share=full) == "streaming"
    assert limit_of(behind, http_cpu_share=rest) == behind
