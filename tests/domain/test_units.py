"""Units convert once, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.domain.units import format_tokens, from_gib, gib, parse_duration_ms, parse_tokens, round_up


@given(st.integers(1, 10**7))
def test_tokens_read_back(n_tokens: int) -> None:
    assert parse_tokens(format_tokens(n_tokens)) == n_tokens


@given(st.integers(0, 10**7), st.integers(1, 512))
def test_round_up_is_the_least_multiple(n: int, multiple: int) -> None:
    rounded = round_up(n, multiple)
    assert rounded % multiple == 0 and 0 <= rounded - n < multiple


def test_gib() -> None:
    assert gib(3 * 1073741824) == 3.0
    assert from_gib(0.5) == 536870912


def test_durations() -> None:
    assert [parse_duration_ms(text) for text in ("300ms", "2s", "1.5 s", "20")] == [300.0, 2000.0, 1500.0, 20.0]
    for text in ("", "2m", "-1s", "0"):
        with pytest.raises(BadInput):
            parse_duration_ms(text)
