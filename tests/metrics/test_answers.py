"""Agreement of answers against counting by hand, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.answers import AnswerQuestion, GreedyAnswers
from advisor.metrics.answers import agreement, drift_refusal, noise_floor

LISTS = st.lists(st.text("ab ", max_size=6), min_size=4, max_size=4).map(tuple)


def answers(*texts: str, again: tuple[str, ...] = ()) -> GreedyAnswers:
    return GreedyAnswers(n_tokens=16, texts=texts, again=again)


def test_by_hand() -> None:
    found = agreement(("abcd", "abXX", "", "x"), ("abcd", "abcd", "", ""))
    assert (found.n_prompts, found.differing, found.common_prefix) == (4, 0.5, (1 + 0.5 + 1 + 0) / 4)


@settings(max_examples=30)
@given(a=LISTS, b=LISTS)
def test_laws(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    assert agreement(a, a).differing == 0 and agreement(a, a).common_prefix == 1
    assert agreement(a, b).differing == agreement(b, a).differing
    assert 0 <= agreement(a, b).common_prefix <= 1
    assert noise_floor([answers(*a)]) == 0
    assert noise_floor([answers(*a, again=b)]) == noise_floor([answers(*a), answers(*b)]) == agreement(a, b).differing


@pytest.mark.parametrize(
    ("floor", "limit", "refused"), [(0.0, 0.4, True), (0.1, 0.4, False), (0.0, 0.5, False), (0.0, None, False)]
)
def test_a_limit_counts_what_is_beyond_the_noise(floor: float, limit: float | None, refused: bool) -> None:
    asked = AnswerQuestion(reference=answers("a", "b"), floor=floor, limit=limit)
    said = drift_refusal(answers("a", "c"), asked)
    assert (said is not None) == refused
    assert said is None or "differ from the baseline in 50 % of 2 prompts" in said
