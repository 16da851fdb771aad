"""The probe: what a starting vLLM server says of its memory and of the settings it really uses.

vLLM profiles once. Its log tells the weights and what is left for the KV cache; what lies between, activations and
whatever torch does not hold, follows from the fraction of the GPU that it was given.
"""

from __future__ import annotations

import json

from advisor.domain.measurement import EffectiveSettings, ProfiledMemory
from advisor.domain.units import gib
from advisor.memory.events import LogEvent

_SIZES = ("max_batch_size", "max_num_tokens", "max_seq_len")


class VllmProbe:
    """Feed it every event of a log, live or later; ask it at any time.

    Args:
        total_gib: Memory of the GPU, whose fraction the server takes; None where nobody knows.
        fraction: As asked; the log does not tell one that is the default.
    """

    def __init__(self, total_gib: float | None = None, fraction: float | None = None) -> None:
        self._total_gib = total_gib
        self._gib: dict[str, float] = {}
        self._numbers: dict[str, float] = {} if fraction is None else {"kv_fraction": fraction}
        self._graph_sizes: tuple[int, ...] = ()

    def take(self, event: LogEvent) -> None:
        """Count an event in. Of several ranks the one with the smallest KV cache is told."""
        if event.meaning.role != "fact":
            return
        for name in ("weights", "graphs"):
            if (size := event.size_gib(name)) is not None:
                self._gib[name] = max(size, self._gib.get(name, 0.0))
        for name in ("kv_budget", "total"):
            if (size := event.size_gib(name)) is not None:
                self._gib[name] = min(size, self._gib.get(name, size))
        for name in (*_SIZES, "kv_fraction", "kv_bytes_given"):
            if (number := event.number(name)) is not None:
                self._numbers[name] = number
        if (tokens := event.number("kv_tokens")) is not None:
            self._numbers["kv_tokens"] = min(tokens, self._numbers.get("kv_tokens", tokens))
        if "graph_sizes" in event.values:
            self._graph_sizes = tuple(json.loads(event.values["graph_sizes"]))

    def profiled(self) -> ProfiledMemory:
        """Memory of the tightest rank as far as the log has told it, GiB."""
        pool, weights = self._gib.get("kv_budget"), self._gib.get("weights")
        total, fraction = self._gib.get("total", self._total_gib), self._numbers.get("kv_fraction")
        if (given := self._numbers.get("kv_bytes_given")) is not None:
            pool, fraction = gib(given), None  # the fraction decides nothing then
        between: float | None = None
        if pool is not None and weights is not None and total is not None and fraction is not None:
            between = max(0.0, total * fraction - weights - pool)
        tokens = self._numbers.get("kv_tokens")
        return ProfiledMemory(
            weights=weights,
            activations=between,
            cuda_graphs=self._gib.get("graphs"),
            total=total,
            fraction=fraction,
            available_kv=pool,
            kv_pool=pool,
            kv_tokens=None if tokens is None else int(tokens),
        )

    def effective(self) -> EffectiveSettings | None:
        """What the server really uses; None until the log has told limits and KV tokens."""
        if not {*_SIZES, "kv_tokens"} <= set(self._numbers):
            return None
        sizes = {name: int(self._numbers[name]) for name in _SIZES}
        return EffectiveSettings(**sizes, kv_tokens=int(self._numbers["kv_tokens"]), cuda_graph_sizes=self._graph_sizes)
