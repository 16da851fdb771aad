"""Which batch sizes get a CUDA graph, and which one a decode batch replays."""

from __future__ import annotations

import functools
import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

from advisor.domain.deployment import GRAPH_SIZES
from advisor.domain.serving_config import OptionValue

LadderRule = Literal["floor", "ceil", "step64", "vllm"]
"""How a release of TensorRT-LLM rounds log2 of the configured maximum: floor <= 1.0, ceil 1.1-1.3; step64 = later
builds, padded. vllm: steps of 8 and 16, whatever the largest batch, since steps with prompts replay graphs too."""

NAMED_SIZES: dict[str, tuple[tuple[int, ...], int | None]] = {
    "powers_of_2": ((1,), None),
    "fine_then_doubling": (tuple(range(1, 33)), None),
    "every_8": ((1, 2, 4, 8), 8),
    "every_16": ((1, 2, 4, 8, 16), 16),
    "every_64": ((1, 2, 4, 8, 16, 32, 64), 64),
}
"""Lists of CUDA-graph sizes by name: the first sizes, and the step between further ones (none: each twice the last)."""


def graph_rule(options: Mapping[str, OptionValue], release_rule: LadderRule) -> str:
    """Where the sizes of a configuration come from: its own list, else (`auto`, or nothing said) from the release."""
    said = options.get(GRAPH_SIZES, "auto")
    return release_rule if said == "auto" else str(said)


def captured_sizes(
    graph_max: int, *, padding: bool, rule: str, max_batch_size: int, max_num_tokens: int
) -> tuple[int, ...]:
    """Batch sizes that the server captures, ascending; empty when graphs are off (`graph_max` 0).

    The ladder of the configured maximum, then the runtime filter: sizes above min(max_batch_size, max_num_tokens) are
    dropped, and with padding one graph at exactly that cap takes their place.
    vLLM's sizes end at `max_num_tokens`, which is one of them where it is below the configured maximum.
    Source: TensorRT-LLM `llm_args.py` (ladder) and `model_engine.py` (`_filter_cuda_graph_batch_sizes`); vLLM
    `config/vllm.py` (`_set_cudagraph_sizes`).
    """
    if graph_max <= 0:
        return ()
    if rule == "vllm":
        whole_step = {max_num_tokens} if max_num_tokens <= graph_max else set()
        return tuple(sorted({*ladder(min(graph_max, max_num_tokens), padding=padding, rule=rule), *whole_step}))
    cap = min(max_batch_size, max_num_tokens)
    sizes = ladder(graph_max, padding=padding, rule=rule)
    kept = tuple(size for size in sizes if size <= cap)
    return (*kept, cap) if padding and len(kept) < len(sizes) and cap not in kept else kept


@functools.lru_cache(maxsize=4096)  # rankings of drawn twins ask for the same few again and again
def ladder(graph_max: int, *, padding: bool, rule: str) -> tuple[int, ...]:
    """Sizes up to `cuda_graph_config.max_batch_size`, itself included, before the runtime filter.

    Args:
        graph_max: The largest; vLLM's sizes end at their last step before it.
        padding: Batches between two sizes run at the next one.
        rule: How a release generates them from the maximum alone, or a list as `listed` reads it.
    """
    if rule == "vllm":
        return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, graph_max + 1, 16)) if size <= graph_max)
    if (sizes := _listed(rule, graph_max)) is not None:
        return (*(size for size in sizes if size < graph_max), graph_max)
    low = [1, 2, 4, *range(8, 129, 8)] if padding else [*range(1, 32), 32, 64, 128]
    if rule == "step64" and padding:
        tail = list(range(192, graph_max + 1, 64))
    else:
        log2 = math.log2(graph_max)
        top = math.floor(log2) if rule == "floor" else math.ceil(log2)
        tail = [2**i for i in range(8, top)]
    return tuple(sorted({size for size in [*low, *tail, graph_max] if size <= graph_max}))


def explicit_sizes(text: str) -> tuple[int, ...] | None:
    """A list of sizes written as JSON text (`[1, 2, 4]`), ascending; None where it is none."""
    try:
        sizes = json.loads(text)
    except ValueError:
        return None
    if not isinstance(sizes, list) or not sizes or not all(type(size) is int and size > 0 for size in sizes):
        return None
    return tuple(sorted(set(sizes)))


def _listed(rule: str, graph_max: int) -> Sequence[int] | None:
    """Sizes of a named list as far as the maximum, or those of a written one; None where a release generates them."""
    if rule not in NAMED_SIZES:
        return explicit_sizes(rule)
    first, step = NAMED_SIZES[rule]
    sizes = list(first)
    while sizes[-1] < graph_max:
        sizes.append(2 * sizes[-1] if step is None else sizes[-1] + step)
    return sizes


def replayed_size(batch: int, sizes: tuple[int, ...], *, padding: bool) -> int | None:
    """The captured size that a decode batch runs at, or None when it runs eagerly."""
    i = bisect_left(sizes, batch)
    if i == len(sizes) or (not padding and sizes[i] != batch):
        return None
    return sizes[i]
