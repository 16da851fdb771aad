"""No two KV blocks of a launch are alike, except those of the shared prefix."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.load.prompts import Prompt, make_prompts, to_json, usable_ids

BLOCK = 32
VOCAB_SIZES = st.sampled_from([64, 100, 1000, 32000, 128256, 202048])
RUNS = st.integers(0, 2**62)


def blocks(prompt: Prompt, first: int) -> list[bytes]:
    """Whole blocks at their places, from block `first` on."""
    return [prompt[at : at + BLOCK].tobytes() for at in range(first * BLOCK, len(prompt) - BLOCK + 1, BLOCK)]


@given(
    VOCAB_SIZES,
    st.lists(RUNS, min_size=1, max_size=4, unique=True),
    st.lists(st.integers(40, 200), min_size=1, max_size=12),
    st.integers(0, 40),
)
def test_no_whole_block_comes_twice_on_a_launch(vocab: int, runs: list[int], lengths: list[int], shared: int) -> None:
    isl = np.array(lengths, np.int64) + shared
    prompts = [
        prompt for run in runs for prompt in make_prompts(isl, run=run, vocab_size=vocab, shared_prefix_tokens=shared)
    ]
    own = [block for prompt in prompts for block in blocks(prompt, -(-shared // BLOCK))]
    assert len(own) == len(set(own)), "by construction, not by luck: small vocabularies and near runs included"
    assert [len(prompt) for prompt in prompts] == isl.tolist() * len(runs)
    ids = usable_ids(vocab)
    assert all(ids.start <= prompt.min() and prompt.max() < ids.stop for prompt in prompts)
    prefixes = {prompt[:shared].tobytes() for prompt in prompts}
    assert len(prefixes) == 1, "the prefix is shared by all runs"


def test_stamps_hold_even_where_everything_random_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dull:
        """Draws the least value always."""

        def integers(self, low: int, high: int = 0, size: int | None = None, dtype: type = int) -> Any:
            return 0 if size is None else np.full(size, low, dtype)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Dull())
    isl = np.full(300, 3 * BLOCK)
    prompts = [prompt for run in range(4) for prompt in make_prompts(isl, run=run, vocab_size=128)]
    own = [block for prompt in prompts for block in blocks(prompt, 0)]
    assert len(own) == len(set(own)) == 4 * 300 * 3


@given(VOCAB_SIZES, st.integers(0, 70), st.integers(1, 40), RUNS)
def test_exactly_the_shared_prefix_is_shared(vocab: int, shared: int, own: int, run: int) -> None:
    isl = np.full(min(50, len(usable_ids(vocab))), shared + own)
    prompts = list(make_prompts(isl, run=run, vocab_size=vocab, shared_prefix_tokens=shared))
    heads = [prompt[: shared + 1].tolist() for prompt in prompts]
    assert all(head[:shared] == heads[0][:shared] for head in heads)
    assert len({head[shared] for head in heads}) == len(heads), "the token after the prefix is different in each"


def test_a_run_can_be_repeated_and_another_one_begins_otherwise() -> None:
    isl = np.full(64, 128)
    first, again, other = (list(make_prompts(isl, run=run, vocab_size=32000)) for run in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all(a[0] != b[0] for a, b in zip(first, other, strict=True)), "runs are shifted against each other"
    assert np.unique(np.concatenate(first)).size > 4000, "and the rest is random"


@pytest.mark.parametrize(
    ("vocab", "special"),
    [
        (32000, range(259)),  # SentencePiece: control and byte tokens
        (131072, range(1000)),  # Mistral's Tekken
        (128256, range(128000, 128256)),  # Llama-3
        (202048, range(200000, 202048)),  # Llama-4
        (201088, range(199998, 201088)),  # gpt-oss
        (151936, range(151643, 151936)),  # Qwen3
        (262208, range(255999, 262208)),  # Gemma-3, its image markers
    ],
)
def test_ids_keep_away_from_special_tokens(vocab: int, special: range) -> None:
    ids = usable_ids(vocab)
    assert ids.stop <= special.start or special.stop <= ids.start
    assert len(ids) > 0.9 * vocab


def test_prompts_that_cannot_be_different_are_refused() -> None:
    n_ids = len(usable_ids(64))
    assert len(list(make_prompts(np.ones(n_ids, np.int64), run=0, vocab_size=64))) == n_ids
    with pytest.raises(BadInput, match="raise the ISL"):
        make_prompts(np.ones(n_ids + 1, np.int64), run=0, vocab_size=64)
    for run in (-1, 2**63):
        with pytest.raises(BadInput, match="smaller seed"):
            make_prompts(np.full(1, 64), run=run, vocab_size=64)


@given(st.integers(64, 5000), st.lists(st.integers(0, 63), min_size=1, max_size=50))
def test_json_is_what_json_reads(vocab: int, ids: list[int]) -> None:
    prompt = np.array([vocab - 1 - i for i in ids], np.int32)
    assert json.loads(to_json(prompt, vocab)) == prompt.tolist()
