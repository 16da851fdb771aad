"""What one run sends: whole HTTP requests, made before its clock starts."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.workload import Workload
from advisor.load.prompts import make_prompts, to_json
from advisor.load.target import Target
from advisor.metrics.schedule import draw_requests


@dataclass(frozen=True)
class Load:
    """The requests of one run, ready to send."""

    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    requests: tuple[bytes, ...]
    concurrency: int | None
    send_ms: NDArray[np.float64] | None

    @property
    def n_requests(self) -> int:
        """How many."""
        return len(self.requests)

    @property
    def nominal_open(self) -> int:
        """Streams that should be open at once; 0 in an open loop, where nothing says how many."""
        return min(self.concurrency, self.n_requests) if self.concurrency is not None else 0


def make_load(target: Target, workload: Workload, *, n_requests: int, seed: int, run: int) -> Load:
    """Lengths and arrivals by `seed`, prompts by `run` (see `prompts.make_prompts`).

    Raises:
        BadInput: prompts that cannot be all different.
    """
    isl, osl, send_ms = draw_requests(workload, n_requests, seed)
    prompts = make_prompts(
        isl, run=run, vocab_size=target.vocab_size, shared_prefix_tokens=workload.shared_prefix_tokens
    )
    requests = tuple(
        completion_request(target, to_json(prompt, target.vocab_size), tokens)
        for prompt, tokens in zip(prompts, osl.tolist(), strict=True)
    )
    return Load(isl=isl, osl=osl, requests=requests, concurrency=workload.concurrency, send_ms=send_ms)


def completion_request(target: Target, prompt: bytes, osl: int) -> bytes:
    """A streamed greedy completion of exactly `osl` tokens, head and body; the prompt is JSON, a text or token ids.

    `min_tokens` is left out: with `ignore_eos` it adds nothing but a penalty that some samplers pay for at every step.
    """
    options = {
        "model": target.model,
        "max_tokens": osl,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = b"".join((b'{"prompt": ', prompt, b", ", json.dumps(options).encode()[1:]))
    host = f"[{target.host}]" if ":" in target.host else target.host
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{target.port}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
