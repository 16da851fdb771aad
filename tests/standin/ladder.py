"""Which batch sizes get a CUDA graph: the contract's rules, read independently of advisor's."""

from __future__ import annotations

import math


def ladder(largest: int, padding: bool, rounding: str) -> tuple[int, ...]:
    """Sizes generated from the configured maximum alone (0 = 128), ascending."""
    top = largest or 128
    sizes = {1, 2, 4, *range(8, 129, 8)} if padding else {*range(1, 32), 32, 64, 128}
    log2 = math.log2(top)
    sizes |= {2**i for i in range(8, math.ceil(log2) if rounding == "ceil" else math.floor(log2))}
    return tuple(sorted({size for size in sizes if size <= top} | {top}))


def captured(sizes: tuple[int, ...], padding: bool, max_batch_size: int, max_num_tokens: int) -> tuple[int, ...]:
    """Sizes that are really captured: none above the executor's cap, and with padding one at the cap instead."""
    cap = min(max_batch_size, max_num_tokens)
    kept = [size for size in sizes if size <= cap]
    if padding and len(kept) < len(sizes) and cap not in kept:
        kept.append(cap)
    return tuple(kept)
