"""The probe: what a starting TensorRT-LLM server says of its memory and of the settings it really uses.

Everything is told twice, once for the first pass and once for the final one, and by every rank. The final pass counts,
and of the ranks the tightest: the one whose budget leaves least for the KV cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from advisor.domain.measurement import EffectiveSettings, ProfiledMemory
from advisor.domain.units import from_gib
from advisor.memory.events import LogEvent
from advisor.memory.phases import Passes

USUAL_BLOCK_TOKENS = 32

# Value of a log line -> field of ProfiledMemory.
_GIB_FIELDS: Mapping[str, str] = {
    "loaded": "weights",
    "loaded_outside": "loaded_outside_torch",
    "activations": "activations",
    "outside": "outside_torch",
    "temporary": "temporary_kv",
    "peak": "peak",
    "total": "total",
    "kv_budget": "available_kv",
}
_SIZES = ("max_batch_size", "max_num_tokens", "max_seq_len")


@dataclass
class _Rank:
    """What one rank said last; lines of no stated rank count as those of one."""

    gib: dict[str, float] = field(default_factory=dict)
    fraction: float | None = None
    kv_bytes_per_token: float | None = None
    torch_cap_gib: float | None = None
    graph_sizes: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Pool:
    gib: float
    tokens: int | None


class Probe:
    """Feed it every event of a log, live or later; ask it at any time."""

    def __init__(self) -> None:
        self._passes = Passes()
        self._ranks: dict[str, _Rank] = {}
        self._tightest: _Rank | None = None
        self._pools: list[_Pool] = []
        self._sizes: dict[str, int] = {}
        self._block_tokens = USUAL_BLOCK_TOKENS

    @property
    def first_pass(self) -> bool:
        """True while pool, limits and graphs are those of the profiling pass, which mean nothing afterwards."""
        return self._passes.first

    def take(self, event: LogEvent) -> None:
        """Count an event in."""
        if event.meaning.role in ("mark", "ready"):
            self._passes.phase_of(event.meaning)
        elif event.meaning.role == "fact":
            self._note(event, self._ranks.setdefault(event.rank, _Rank()))

    def _note(self, event: LogEvent, rank: _Rank) -> None:
        for name, gib_field in _GIB_FIELDS.items():
            if (size := event.size_gib(name)) is not None:
                rank.gib[gib_field] = size
        self._sizes |= {name: int(value) for name in _SIZES if (value := event.number(name)) is not None}
        rank.fraction = event.number("kv_fraction") or rank.fraction
        rank.kv_bytes_per_token = event.number("kv_bytes") or rank.kv_bytes_per_token
        rank.torch_cap_gib = event.size_gib("torch_cap") or rank.torch_cap_gib
        self._block_tokens = int(event.number("tokens_per_block") or self._block_tokens)
        if (weights_gib := event.number("weights_gib")) is not None:
            rank.gib.setdefault("weights", weights_gib)
        if (graph_size := event.number("graph_size")) is not None:
            rank.graph_sizes.add(int(graph_size))
        if (pool_gib := event.size_gib("kv_pool")) is not None:
            tokens = event.number("kv_tokens")
            self._pools.append(_Pool(pool_gib, None if tokens is None else int(tokens)))
        if "kv_budget" in event.values:
            self._end_first_pass(rank)

    def _end_first_pass(self, rank: _Rank) -> None:
        """Keep the rank with the smallest budget as it stands: lines of ranks without a name overwrite each other."""
        self._pools.clear()
        rank.graph_sizes.clear()
        least = self._tightest.gib["available_kv"] if self._tightest else float("inf")
        if rank.gib["available_kv"] < least:
            self._tightest = _Rank(dict(rank.gib), rank.fraction, rank.kv_bytes_per_token)

    def profiled(self) -> ProfiledMemory:
        """Memory of the tightest rank as far as the log has told it, GiB."""
        rank = self._tightest or next(iter(self._ranks.values()), _Rank())
        pool = self._pool(rank)
        caps = [each.torch_cap_gib for each in self._ranks.values() if each.torch_cap_gib is not None]
        return ProfiledMemory.model_validate(
            {
                **rank.gib,
                "fraction": rank.fraction,
                "kv_bytes_per_token": rank.kv_bytes_per_token,
                "kv_pool": pool.gib if pool else None,
                "kv_tokens": pool.tokens if pool else None,
                "torch_cap": min(caps, default=None),
            }
        )

    def _pool(self, rank: _Rank) -> _Pool | None:
        """The final pool of fewest tokens; of equal ones the largest, which is the target model's and not the draft's.

        The second KV manager states GiB alone: its tokens follow from the bytes of one.
        """
        if self._passes.first or not self._pools:
            return None
        pool = min(self._pools, key=lambda each: (each.tokens or 0, -each.gib))
        if pool.tokens is not None or not rank.kv_bytes_per_token:
            return pool
        blocks = int(from_gib(pool.gib) / rank.kv_bytes_per_token) // self._block_tokens
        return _Pool(pool.gib, blocks * self._block_tokens)

    def effective(self) -> EffectiveSettings | None:
        """What the server really uses; None until the log has told limits and KV tokens of the final pass."""
        kv_tokens = self.profiled().kv_tokens
        if kv_tokens is None or set(self._sizes) != set(_SIZES):
            return None
        captured = [rank.graph_sizes for rank in self._ranks.values() if rank.graph_sizes]
        sizes = set.intersection(*captured) if captured else set()
        return EffectiveSettings(**self._sizes, kv_tokens=kv_tokens, cuda_graph_sizes=tuple(sorted(sizes)))
