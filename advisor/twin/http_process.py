"""The process between clients and a server's engine, in virtual time: a queue before and behind the steps.

vLLM computes in one process and serves HTTP in another, a single thread that takes in requests, detokenizes, and sends
every chunk of every stream. The engine does not wait for it. Where tokens come faster than they get through it falls
behind: clients see their answers late and ask again late, and the GPU idles although no step was slow. What comes in
shares the way with what is to be sent, and reaches the engine as soon as nothing else is left to do: while prompts make
the steps long, within one of them; while answers trickle out behind the engine, after the last of these. So a closed
loop of equal lengths stays in step with itself, wave after wave, or spreads over the steps.
Seen in `studies/evidence`: requests that were sent while old answers trickled out had their first tokens right after
the last of these (h100 study, trial 5: sent from 8.9 s on, last old answer and first new token at 10.17 s); with steps
of 1,024 and 2,048 tokens, which leave it time, they had them one second after they were sent (h200 one-lease, trial 1).
"""

from __future__ import annotations

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
    """

    request_ms: float
    token_ms: float
    step_ms: float = 0.0
    half_at: float = 1.0

    def of_step(self, n_tokens: Number) -> Number:
        """The tokens of one step, ms; a number or an array of them."""
        return n_tokens * (self.token_ms + self.step_ms * n_tokens / (n_tokens**2 + self.half_at**2))


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
        self._requests: list[int] = []
        self._passed: list[int] = []

    def take_in(self, request: int, sent_ms: float) -> None:
        """A request that a client sends then."""
        self.clock_ms = max(self.clock_ms, sent_ms) + self.costs.request_ms
        self.busy_ms += self.costs.request_ms
        self._requests.append(request)

    def send(self, n_tokens: int, begin_ms: float, step_ms: float, n_steps: int = 1) -> None:
        """`n_tokens` of each of `n_steps` equal steps of the engine, of which the first begins at `begin_ms`.

        What was to be done before their end is then done, and requests are passed on.
        A queue with even arrivals and even work is limited by one of three: what it had to do before, its own work from
        the end of the first step on, or the last step.
        """
        if self.clock_ms <= begin_ms + n_steps * step_ms:
            self._pass_on()
        work_ms = self.costs.of_step(n_tokens)
        self.busy_ms += n_steps * work_ms
        self.clock_ms = max(
            self.clock_ms + n_steps * work_ms,
            begin_ms + step_ms + n_steps * work_ms,
            begin_ms + n_steps * step_ms + work_ms,
        )

    @property
    def has_requests(self) -> bool:
        """True while the engine has not got everything that was taken in."""
        return bool(self._requests or self._passed)

    def passed_on(self, now_ms: float) -> list[int]:
        """Requests that the engine gets now, each once: all that were there when it last had nothing else to do."""
        if self.clock_ms <= now_ms:
            self._pass_on()
        passed, self._passed = self._passed, []
        return passed

    def _pass_on(self) -> None:
        self._passed += self._requests
        self._requests = []
