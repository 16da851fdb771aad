"""Which batch sizes get a CUDA graph, and which one a decode batch replays."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Literal

LadderRule = Literal["floor", "ceil", "step64", "vllm"]
"""How a release of TensorRT-LLM rounds log2 of the configured maximum: floor <= 1.0, ceil 1.1-1.3; step64 = later
builds, padded. vllm: steps of 8 and 16, whatever the largest batch, since steps with prompts replay graphs too."""


def captured_sizes(
    graph_max: int, *, padding: bool, rule: LadderRule, max_batch_size: int, max_num_tokens: int
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


def ladder(graph_max: int, *, padding: bool, rule: LadderRule) -> tuple[int, ...]:
    """Sizes generated from `cuda_graph_config.max_batch_size` alone, before the runtime filter."""
    if rule == "vllm":
        return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, graph_max + 1, 16)) if size <= graph_max)
    low = [1, 2, 4, *range(8, 129, 8)] if padding else [*range(1, 32), 32, 64, 128]
    if rule == "step64" and padding:
        tail = list(range(192, graph_max + 1, 64))
    else:
        log2 = math.log2(graph_max)
        top = math.floor(log2) if rule == "floor" else math.ceil(log2)
        tail = [2**i for i in range(8, top)]
    return tuple(sorted({size for size in [*low, *tail, graph_max] if size <= graph_max}))


def replayed_size(batch: int, sizes: tuple[int, ...], *, padding: bool) -> int | None:
    """The captured size that a decode batch runs at, or None when it runs eagerly."""
    i = bisect_left(sizes, batch)
    if i == len(sizes) or (not padding and sizes[i] != batch):
        return None
    return sizes[i]
