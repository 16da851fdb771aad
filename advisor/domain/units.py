"""Units, converted in one place: bytes and GiB, tokens with `k`, durations with a suffix."""

from __future__ import annotations

import re

from advisor.domain.errors import BadInput

GIB_BYTES = 1024**3
MIB_BYTES = 1024**2
TOKENS_PER_K = 1024  # in workload names: 4k = 4,096 tokens

_TOKENS = re.compile(r"(\d+)(k?)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)?", re.IGNORECASE)


def gib(n_bytes: float) -> float:
    """Bytes to GiB."""
    return n_bytes / GIB_BYTES


def from_gib(n_gib: float) -> float:
    """GiB to bytes."""
    return n_gib * GIB_BYTES


def round_up(n: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `n`."""
    return -(-n // multiple) * multiple


def parse_tokens(text: str) -> int:
    """Token count from `4096` or `4k` (k = 1,024).

    Raises:
        BadInput: anything else, or zero.
    """
    match = _TOKENS.fullmatch(text.strip())
    n_tokens = int(match[1]) * (TOKENS_PER_K if match[2] else 1) if match else 0
    if n_tokens < 1:
        raise BadInput(f"{text!r} is not a token count: write a positive whole number such as 4096, or 4k for 4,096.")
    return n_tokens


def format_tokens(n_tokens: int) -> str:
    """`4k` for whole multiples of 1,024, digits otherwise."""
    return f"{n_tokens // TOKENS_PER_K}k" if n_tokens % TOKENS_PER_K == 0 else str(n_tokens)


def parse_duration_ms(text: str) -> float:
    """Milliseconds from `300ms`, `2s` or a bare number of milliseconds.

    Raises:
        BadInput: anything else, or zero.
    """
    match = _DURATION.fullmatch(text.strip())
    duration_ms = float(match[1]) * (1000.0 if (match[2] or "ms").lower() == "s" else 1.0) if match else 0.0
    if duration_ms <= 0:
        raise BadInput(f"{text!r} is not a duration: write it like 300ms or 2s.")
    return duration_ms
