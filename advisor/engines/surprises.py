"""What a running server really uses other than asked, in words."""

from __future__ import annotations

from collections.abc import Collection

from advisor.domain.deployment import Deployment
from advisor.domain.measurement import EffectiveSettings
from advisor.domain.serving_config import ServingConfig


def surprises(
    asked: ServingConfig,
    max_seq_len: int,
    deployment: Deployment,
    effective: EffectiveSettings,
    graph_sizes: Collection[int],
) -> tuple[str, ...]:
    """What the server really uses other than asked, in words; empty when it does as it was told.

    Args:
        asked: The configuration of the launch.
        max_seq_len: As given to the server.
        deployment: The study's.
        effective: As the server's log says.
        graph_sizes: Batch sizes that the release's ladder and its runtime filter would capture.
    """
    found = []
    for name in ("max_batch_size", "max_num_tokens"):
        wanted, used = getattr(asked, name), getattr(effective, name)
        if used != wanted:
            found.append(f"{name} is {used:,}, not {wanted:,} as asked.")
    if effective.max_seq_len < max_seq_len:
        found.append(
            f"max_seq_len was cut from {max_seq_len:,} to {effective.max_seq_len:,} tokens without an error; the KV "
            f"cache holds {effective.kv_tokens:,}. Longer requests are clamped."
        )
    at_once = effective.kv_tokens // max_seq_len
    if effective.max_seq_len >= max_seq_len and at_once < effective.max_batch_size:
        per_rank = " of a rank" if deployment.ranks_with_own_queue > 1 else ""
        found.append(
            f"The KV cache{per_rank} holds {effective.kv_tokens:,} tokens: {at_once:,} requests of {max_seq_len:,} "
            f"tokens at once, not max_batch_size {effective.max_batch_size:,}."
        )
    return (*found, *_graph_surprises(set(graph_sizes), set(effective.cuda_graph_sizes)))


def _graph_surprises(expected: set[int], captured: set[int]) -> list[str]:
    """Capture stops without a word where no KV block is left for the dummy batch."""
    missing, more = sorted(expected - captured), sorted(captured - expected)
    found = []
    if missing and not captured:
        found.append(f"No CUDA graph was captured, {len(missing)} sizes up to {missing[-1]:,} were expected.")
    elif missing:
        found.append(
            f"CUDA graphs were captured for {len(expected) - len(missing)} of {len(expected)} sizes; missing: "
            f"{', '.join(map(str, missing))}."
        )
    if more:
        found.append(f"CUDA graphs were also captured for sizes {', '.join(map(str, more))}.")
    return found
