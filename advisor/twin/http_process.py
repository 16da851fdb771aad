"""The process between clients and a server's engine, in virtual time: a queue before and behind the steps.

vLLM computes in one process and serves HTTP in another, a single thread that takes in requests, detokenizes, and sends
every chunk of every stream. The engine does not wait for it. Where tokens come faster than it handles them it falls
behind: clients see their answers late and ask again late, and the GPU idles although no step was slow. What comes in
shares the thread with what is to be sent, and reaches the engine when all that is done; in a closed loop of equal
lengths this keeps the requests in step with each other, wave after wave.
Seen in `studies/evidence/h100-vllm-0.24.0`: requests that were sent while old answers trickled out had their first
tokens right after the last of these (trial 5: sent from 8.9 s on, last old answer and first new token at 10.17 s).
"""

from __future__ import annotations


class HttpProcess:
    """Args:
    request_ms: To take in one request.
    token_ms: To detokenize and send one token: its own share, and a chunk's over the tokens that it carries.
    """

    def __init__(self, request_ms: float, token_ms: float) -> None:
        self.request_ms, self.token_ms = request_ms, token_ms
        self.clock_ms = 0.0
        """When everything that it was given so far is done."""
        self.busy_ms = 0.0
        """All that it has had to do."""
        self._requests: list[int] = []

    def take_in(self, request: int, sent_ms: float) -> None:
        """A request that a client sends then."""
        self.clock_ms = max(self.clock_ms, sent_ms) + self.request_ms
        self.busy_ms += self.request_ms
        self._requests.append(request)

    def send(self, n_tokens: int, begin_ms: float, step_ms: float, n_steps: int = 1) -> None:
        """`n_tokens` of each of `n_steps` equal steps of the engine, of which the first begins at `begin_ms`.

        A queue with even arrivals and even work is limited by one of three: what it had to do before, its own work from
        the end of the first step on, or the last step.
        """
        work_ms = n_tokens * self.token_ms
        self.busy_ms += n_steps * work_ms
        self.clock_ms = max(
            self.clock_ms + n_steps * work_ms,
            begin_ms + step_ms + n_steps * work_ms,
            begin_ms + n_steps * step_ms + work_ms,
        )

    @property
    def has_requests(self) -> bool:
        """True while the engine has not got everything that was taken in."""
        return bool(self._requests)

    def passed_on(self, now_ms: float) -> list[int]:
        """Requests that the engine gets now: all of them as soon as nothing else is to be done, and none before."""
        if self.clock_ms > now_ms:
            return []
        passed, self._requests = self._requests, []
        return passed
