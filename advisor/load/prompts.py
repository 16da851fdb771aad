"""Prompts as token ids that no prefix cache has seen: two requests of a launch share what they should and no more.

Every KV block begins with a stamp: the serial number of the block in its run, then the number of the run, as digits
in base `len(usable_ids(vocab_size))`, least significant first. What follows is random. So no two whole blocks of a
launch are equal, by construction, as long as no two runs have the same number. The first digit is shifted by a random
amount per run, so that not even single tokens line up (engines reuse parts of blocks).
A block that begins inside the shared prefix, or a prompt shorter than the stamp, holds the digits that find room: its
run is told apart with certainty there only when all of them do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import KV_BLOCK_TOKENS
from advisor.domain.errors import BadInput

Prompt = NDArray[np.int32]

SERIAL_BITS = 40
RUN_BITS = 63
PREFIX_RUN = 0  # the shared prefix is stamped as a run of its own, the same in every run


def usable_ids(vocab_size: int) -> range:
    """Ids that are ordinary text: special tokens stand at both ends of a vocabulary.

    The first 1,024 hold control and byte tokens (SentencePiece 0-258, Mistral's Tekken 0-999); the last sixteenth holds
    chat, tool and image markers and padding rows (Llama-3 from 128,000 of 128,256, Llama-4 from 200,000 of 202,048,
    gpt-oss from 199,998 of 201,088, Qwen3 from 151,643 of 151,936, Gemma-3 from 255,999 of 262,208). Small vocabularies
    give up an eighth at the low end.
    """
    return range(min(1024, vocab_size // 8), vocab_size - vocab_size // 16)


def make_prompts(
    isl: NDArray[np.int64], *, run: int, vocab_size: int, shared_prefix_tokens: int = 0
) -> Iterator[Prompt]:
    """One prompt per length, made as they are asked for.

    Args:
        isl: Prompt tokens of each request, all above `shared_prefix_tokens`.
        run: Number of the run on its launch; equal numbers give equal prompts.
        vocab_size: Ids the model knows.
        shared_prefix_tokens: Leading ids that all prompts share, those of other runs too.

    Raises:
        BadInput: prompts too short to be all different, or a run number (a seed) out of range.
    """
    stamp = _Stamp(usable_ids(vocab_size))
    n, shortest = len(isl), int(isl.min()) - shared_prefix_tokens
    if len(stamp.ids) ** shortest < n:
        raise BadInput(f"Prompts of {shortest:,} tokens cannot be {n:,} different ones; raise the ISL.")
    if not 0 <= run < 2**RUN_BITS - 1:
        raise BadInput(f"Run number {run} is not between 0 and 2^{RUN_BITS}: choose a smaller seed.")
    prefix = stamp.tokens(np.random.default_rng(PREFIX_RUN), PREFIX_RUN, 0, shared_prefix_tokens, 0, 1)
    number = run + 1 + PREFIX_RUN
    rng = np.random.default_rng(number)
    shift = int(rng.integers(len(stamp.ids)))
    return (
        np.concatenate((prefix, stamp.tokens(rng, number, shared_prefix_tokens, length, place, n, shift)))
        for place, length in enumerate(isl.tolist())
    )


class _Stamp:
    """Writes random ids with a stamp at the start of every block."""

    def __init__(self, ids: range) -> None:
        self.ids = ids
        self.n_serial = math.ceil(SERIAL_BITS / math.log2(len(ids)))
        self.n_run = math.ceil(RUN_BITS / math.log2(len(ids)))
        self.offsets = np.arange(self.n_serial + self.n_run)
        assert len(self.offsets) <= KV_BLOCK_TOKENS

    def tokens(
        self, rng: np.random.Generator, run: int, start: int, stop: int, place: int, n_places: int, shift: int = 0
    ) -> Prompt:
        """Ids at positions [start, stop) of prompt `place` of `n_places`."""
        tokens = rng.integers(self.ids.start, self.ids.stop, stop - start, dtype=np.int32)
        blocks = np.arange(start // KV_BLOCK_TOKENS, -(-stop // KV_BLOCK_TOKENS))
        serial = _digits(blocks * n_places + place, len(self.ids), self.n_serial)
        serial[:, 0] = (serial[:, 0] + shift) % len(self.ids)
        number = [run // len(self.ids) ** digit % len(self.ids) for digit in range(self.n_run)]
        stamps = np.hstack((serial, np.tile(np.array(number, np.int64), (len(blocks), 1))))
        at = np.maximum(blocks * KV_BLOCK_TOKENS, start)[:, None] + self.offsets
        fits = at < np.minimum((blocks + 1) * KV_BLOCK_TOKENS, stop)[:, None]
        tokens[at[fits] - start] = self.ids.start + stamps[fits]
        return tokens


def _digits(values: NDArray[np.int64], base: int, n_digits: int) -> NDArray[np.int64]:
    """Digits of each value, least significant first; shape (n_values, n_digits)."""
    return np.asarray(values[:, None] // base ** np.arange(n_digits) % base, dtype=np.int64)


def to_json(prompt: Prompt, vocab_size: int) -> bytes:
    """The ids as a JSON array; looked up in one table, because a client that prints digits cannot send on time."""
    return b"[" + _spellings(vocab_size)[prompt].tobytes()[:-1] + b"]"


@functools.lru_cache(maxsize=4)
def _spellings(vocab_size: int) -> NDArray[np.bytes_]:
    """Each id and a comma, padded on the left to one width (JSON allows the spaces)."""
    width = len(str(vocab_size - 1))
    return np.array([f"{number:{width}d}," for number in range(vocab_size)], dtype=f"S{width + 1}")
