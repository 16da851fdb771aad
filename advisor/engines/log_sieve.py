"""Where in a block of bytes a rule may have something to say: the literals of all rules at once, at memory speed.

Four bytes of each literal stand for it. Every four bytes of the block are hashed and looked up in one table,
vectorised; the few places that the table knows are compared with the literals themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

_GRAM = 4
_HASH_BITS = 20
_FACTOR = np.uint32(2654435761)  # Knuth's multiplicative hash
_SHIFT = np.uint32(32 - _HASH_BITS)
# What servers print all day. Of a literal those four bytes stand for it that are rarest here.
_EVERYDAY = b"""
[01/15/2026-10:00:01] [TRT-LLM] [I] Using LLM with PyTorch backend, TensorRT-LLM version: 1.2.0, rank 0 request
[TensorRT-LLM][INFO] [MemUsageChange] Number of tokens per block: 32. [TensorRT-LLM][WARNING] [executor] [TRT-LLM] [W]
INFO:     127.0.0.1:41234 - "POST /v1/completions HTTP/1.1" 200 OK  client is disconnected, generation started done
iter = 12, global_rank = 0, rank = 0, currank_total_requests = 1/2, host_step_time = 12.1ms, num_scheduled_requests: 1
(EngineCore pid=1) INFO 11-23 14:28:08 [core.py:1233] Avg prompt throughput: 1.0 tokens/s, Running: 3 reqs, Waiting
(APIServer pid=1) (Worker_TP0 pid=2) (VllmWorker rank=0 pid=3) (RayWorkerWrapper pid=4, ip=10.0.0.2) (repeated 3x)
ERROR 11-23 14:28:08 [async_llm.py:704] WARNING: raise result, without a point, operator at entrypoints, utils.py
  File "/usr/local/lib/python3.12/dist-packages/torch/nn/modules/module.py", line 1751, in forward, return self._call
it took 0.123456 s, sent to client, expected to be set to the same, that has been started, print, description, options
the server, observed iterator, vLLM API server, import, traceback (most recent call last): raise Exception, get_output
the model and its memory for this request, loading layers of the engine: attention, configuration, processing, training
"""


class Sieve:
    """Literals of three characters or more to look for, each with the numbers of the rules that want it."""

    def __init__(self, literals: Mapping[str, Iterable[int]]) -> None:
        self._known = np.zeros(1 << _HASH_BITS, np.bool_)
        self._by_gram: dict[bytes, list[tuple[int, bytes, frozenset[int]]]] = {}
        for literal, numbers in literals.items():
            data = literal.encode()
            start = _standing_for(data)
            for gram in _completed(data[start : start + _GRAM]):
                self._by_gram.setdefault(gram, []).append((start, data, frozenset(numbers)))
        for gram in self._by_gram:
            self._known[_hashes(np.frombuffer(gram, "<u4"))] = True

    def places(self, block: bytes) -> NDArray[np.int64]:
        """Offsets in the block, ascending, where a literal may stand; a literal at the block's very end needs three
        further bytes behind it.
        """
        found = []
        for start in range(_GRAM):
            grams = np.frombuffer(block, "<u4", max(0, (len(block) - start) // _GRAM), start)
            found.append(np.flatnonzero(self._known.take(_hashes(grams), mode="clip")) * _GRAM + start)
        return np.sort(np.concatenate(found))

    def rules_at(self, block: bytes, places: Iterable[int]) -> set[int]:
        """Numbers of the rules whose literals really stand at these places."""
        numbers: set[int] = set()
        for place in places:
            for offset, literal, wanted_by in self._by_gram.get(block[place : place + _GRAM], ()):
                if block.startswith(literal, place - offset) and place >= offset:
                    numbers |= wanted_by
        return numbers


def _hashes(grams: NDArray[np.uint32]) -> NDArray[np.uint32]:
    hashes: NDArray[np.uint32] = grams * _FACTOR
    hashes >>= _SHIFT
    return hashes


def _standing_for(literal: bytes) -> int:
    """Where in a literal those four bytes begin that are least of an everyday sight."""

    def familiarity(start: int) -> tuple[int, int]:
        gram = literal[start : start + _GRAM]
        return _EVERYDAY.count(gram), sum(map(_EVERYDAY.count, gram))

    return min(range(max(1, len(literal) - _GRAM + 1)), key=familiarity)


def _completed(gram: bytes) -> Iterator[bytes]:
    """Four bytes each: a literal of three is followed by any byte."""
    if len(gram) < _GRAM - 1:
        raise ValueError(f"{gram!r} is too short to look for")
    return (gram + bytes(rest) for rest in ((), *((byte,) for byte in range(256))) if len(gram) + len(rest) == _GRAM)
