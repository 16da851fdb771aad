"""The process between clients and a server's engine, in virtual time: a queue before and behind the steps.

vLLM computes in one process and serves HTTP in another, a single thread whose event loop takes in requests,
detokenizes, and sends every chunk of every stream. The engine does not wait for it. Where tokens come faster than they
get through it falls behind: clients see their answers late and ask again late, and the GPU idles although no step was
slow. What is to be sent waits in the order in which it was computed, and a first token behind all the old ones; a
request waits for none of that, but takes some turns of the loop to get to the engine, and under load a turn is long.
So a closed loop of equal lengths stays in step with itself the more the slower this process is, and spreads over long
phases of prompts.
Seen in `studies/evidence`: requests that were sent while old answers trickled out had their first tokens right after
the last of these (h100 study, trial 5: sent from 8.9 s on, last old answer and first new token at 10.17 s); with steps
of 1,024 and 2,048 tokens, which leave it time, they had them one second after they were sent (h200 one-lease, trial 1).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True)
class HttpCosts:
    """What the process has to do, ms.

    Attributes:
        request_ms: To take in one request.
        token_ms: To detokenize and send one token: its own share, and a chunk's over the tokens that it carries.
        step_ms: To get the tokens of one step across, however many they are, in the limit of many streams.
        half_at: Streams that show half of that. With few of them the engine leaves it time, and nothing is to be seen.
        request_turns: Turns of such a step that a request waits on its way to the engine while streams run.
    """

    request_ms: float
    token_ms: float
    step_ms: float = 0.0
    half_at: float = 1.0
    request_turns: float = 0.0

    def of_step(self, n_tokens: Number) -> Number:
        """The tokens of one step, ms; a number or an array of them."""
        return n_tokens * self.token_ms + self.turn_ms(n_tokens)

    def turn_ms(self, n_tokens: Number) -> Number:
        """What a step takes however many tokens it has, with so many streams, ms."""
        return self.step_ms * n_tokens**2 / (n_tokens**2 + self.half_at**2)


class HttpProcess:
    """Args:
    costs: Of its work.
    """

    def __init__(self, costs: HttpCosts) -> None:
        self.costs = costs
        self.clock_ms = 0.0
        """When everything that it was given so far is done."""
        self.busy_ms = 0.0
        """All that it has had to do."""
        self._turn_ms = 0.0  # of the last step
        self._on_their_way: deque[tuple[float, int]] = deque()  # (when the engine gets it, request), in order

    def take_in(self, request: int, sent_ms: float) -> None:
        """A request that a client sends then."""
        idle = sent_ms > self.clock_ms + self._turn_ms
        self.clock_ms = max(self.clock_ms, sent_ms) + self.costs.request_ms
        self.busy_ms += self.costs.request_ms
        reaches_ms = self.clock_ms + (0.0 if idle else self.costs.request_turns * self._turn_ms)
        before_ms = self._on_their_way[-1][0] if self._on_their_way else 0.0
        self._on_their_way.append((max(reaches_ms, before_ms), request))

    def send(self, n_tokens: int, begin_ms: float, step_ms: float, n_steps: int = 1) -> None:
        """`n_tokens` of each of `n_steps` equal steps of the engine, of which the first begins at `begin_ms`.

        A queue with even arrivals and even work is limited by one of three: what it had to do before, its own work from
        the end of the first step on, or the last step.
        """
        work_ms, self._turn_ms = self.costs.of_step(n_tokens), self.costs.turn_ms(n_tokens)
        self.busy_ms += n_steps * work_ms
        self.clock_ms = max(
            self.clock_ms + n_steps * work_ms,
            begin_ms + step_ms + n_steps * work_ms,
            begin_ms + n_steps * step_ms + work_ms,
        )

    @property
    def next_ms(self) -> float:
        """When the engine gets the next request; infinite where none is on its way."""
        return self._on_their_way[0][0] if self._on_their_way else math.inf

    def passed_on(self, now_ms: float) -> list[int]:
        """Requests that have reached the engine by then, each once."""
        passed = []
        while self.next_ms <= now_ms:
            passed.append(self._on_their_way.popleft()[1])
        return passed
