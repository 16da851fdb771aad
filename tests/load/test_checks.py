"""Notes for people, and hit rates against a block cache that is played through."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from advisor.load.checks import HIT_RATE_TOLERANCE, expected_hit_rates, hit_rate_note, shortfall_note
from advisor.load.prompts import make_prompts


@given(
    st.integers(0, 100),
    st.lists(st.integers(1, 300), min_size=1, max_size=10),
    st.sampled_from([16, 32, 64]),
    st.booleans(),
    st.booleans(),
)
def test_a_played_block_cache_is_within_what_is_expected(
    shared: int, own: list[int], block: int, reuse: bool, last_counts: bool
) -> None:
    isl = np.array(own, np.int64) + shared
    warm, measured = (
        [prompt.tolist() for prompt in make_prompts(isl, run=run, vocab_size=32000, shared_prefix_tokens=shared)]
        for run in (1, 2)
    )
    cache = {tuple(prompt[:end]) for prompt in warm for end in range(block, len(prompt) + 1, block)} if reuse else set()
    hits = blocks = 0
    for prompt in measured:
        ends = range(block, len(prompt) + 1, block)
        hits += sum(tuple(prompt[:end]) in cache for end in ends)
        blocks += len(ends) if last_counts else -(-len(prompt) // block)
    low, high = expected_hit_rates(isl, shared, block, reuse)
    assert low <= hits / max(blocks, 1) <= high
    assert hit_rate_note(hits / max(blocks, 1), (low, high)) is None


def test_without_a_shared_prefix_nothing_may_be_found_twice() -> None:
    expected = expected_hit_rates(np.full(8, 4096), 0, 32, True)
    assert expected == (0.0, HIT_RATE_TOLERANCE)
    assert "should be new to it" in (hit_rate_note(0.03, expected) or "")
    assert hit_rate_note(None, expected) is None


def test_the_note_counts_alike_shortfalls_together_and_names_the_commonest_first() -> None:
    assert shortfall_note(["a", "b", "a"], 64) == "2 of 64 requests a; 1 of 64 requests b"
    kinds = ["returned 1 of 4 tokens", "returned 1 of 5 tokens", "x", "y", "y", "z"]
    assert shortfall_note(kinds, 6).startswith("2 of 6 requests y; ")
    assert shortfall_note(kinds, 6).endswith("; 2 others fell short in other ways")
