"""Whether a benchmark counts: what fell short, and whether the KV cache was hit as the workload says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

SHOWN_KINDS = 3
HIT_RATE_TOLERANCE = 0.02  # beyond whole blocks; health checks and the engine's own warm-up are counted too


def shortfall_note(shortfalls: Collection[str], n_requests: int) -> str:
    """`3 of 64 requests returned 96 of 128 tokens: ...`; the commonest kinds first, then how many others."""
    kinds = Counter(shortfalls).most_common()
    told = [f"{count} of {n_requests} requests {what}" for what, count in kinds[:SHOWN_KINDS]]
    rest = sum(count for _, count in kinds[SHOWN_KINDS:])
    return "; ".join([*told, f"{rest} others fell short in other ways"] if rest else told)


def expected_hit_rates(
    isl: NDArray[np.int64], shared_prefix_tokens: int, block_tokens: int, block_reuse: bool
) -> tuple[float, float]:
    """Least and most share of prompt blocks found in a warm KV cache.

    Only whole blocks of the shared prefix are surely reused; the block in which it ends may be in part. Whether a
    prompt's last, unfilled block counts as one is the engine's affair. Tolerance included.
    """
    shared = shared_prefix_tokens if block_reuse else 0
    least = shared // block_tokens / float(np.ceil(isl / block_tokens).mean())
    most = -(-shared // block_tokens) / max(1.0, float((isl // block_tokens).mean()))
    return max(0.0, least - HIT_RATE_TOLERANCE), min(1.0, most + HIT_RATE_TOLERANCE)


def hit_rate_note(hit_rate: float | None, expected: tuple[float, float]) -> str | None:
    """What is wrong with the cache-hit rate, None when nothing is or the server does not tell."""
    low, high = expected
    if hit_rate is None or low <= hit_rate <= high:
        return None
    why = (
        "prompts were found in the KV cache that should be new to it"
        if hit_rate > high
        else "the shared prefix was not found in the KV cache"
    )
    return f"the KV-cache hit rate was {hit_rate:.1%}, expected {low:.1%} to {high:.1%}: {why}"
