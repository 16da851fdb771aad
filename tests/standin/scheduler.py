"""In-flight batching, one iteration at a time: what runs in a step, how long the twin says it takes, who gets a token.

GUARANTEED_NO_EVICT admission by KV blocks for prompt + output, first come first served; decodes first, then prompts
(whole, or in chunks) within `max_num_tokens`; blocks of finished prompts stay and are found again until overwritten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from advisor.twin.scheduler import SchedulerSettings
from advisor.twin.step_times import StepTimes


@dataclass(eq=False)
class Request:
    """A prompt on its way; `on_token` is told each emission: tokens so far, and whether it was the last."""

    prompt: Sequence[int]
    n_output: int
    on_token: Callable[[int, bool], None]
    on_error: Callable[[str], None]
    cached_tokens: int = 0
    n_done: int = 0
    left: int = 0
    rank: int = 0
    cancelled: bool = False
    block_keys: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Iteration:
    """One step: its duration in twin time, who gets a token at its end, and figures for the statistics."""

    duration_ms: float
    emitted: tuple[tuple[Request, int], ...]
    """Each with its number of tokens so far."""
    n_context: int
    context_tokens: int
    n_generation: int
    n_finished: int


class BlockCache:
    """KV blocks of one rank: reserved by running requests, or free and still holding a prompt's content."""

    def __init__(self, n_blocks: int, tokens_per_block: int, reuse: bool) -> None:
        self.n_blocks, self.size, self.reuse = n_blocks, tokens_per_block, reuse
        self.reserved = self.peak = 0
        self.stored: OrderedDict[int, None] = OrderedDict()
        self.reused = self.missed = self.allocated = 0

    def blocks_of(self, n_tokens: int) -> int:
        return -(-n_tokens // self.size)

    def admit(self, request: Request) -> bool:
        """Reserve a request's blocks, and say by `cached_tokens` how much of its prompt is here already."""
        need = self.blocks_of(len(request.prompt) + request.n_output)
        if self.reserved + need > self.n_blocks:
            return False
        self.reserved += need
        self.peak = max(self.peak, self.reserved)
        self.allocated += need
        request.block_keys = self._keys(request.prompt) if self.reuse else []
        found = 0
        for key in request.block_keys:
            if key not in self.stored:
                break
            self.stored.move_to_end(key)
            found += 1
        request.cached_tokens = min(found * self.size, len(request.prompt) - 1)
        self.reused += found
        self.missed += self.blocks_of(len(request.prompt)) - found
        self._evict()
        return True

    def store(self, request: Request) -> None:
        """The prompt is computed: its full blocks can be found from now on."""
        self.stored.update(dict.fromkeys(request.block_keys))
        self._evict()

    def release(self, request: Request) -> None:
        self.reserved -= self.blocks_of(len(request.prompt) + request.n_output)

    def _evict(self) -> None:
        """Content fits in the blocks that exist; the longest unused goes first."""
        while len(self.stored) > self.n_blocks:
            self.stored.popitem(last=False)

    def _keys(self, prompt: Sequence[int]) -> list[int]:
        """One key a full block, of it and everything before it."""
        keys, key = [], 0
        for start in range(0, len(prompt) - self.size + 1, self.size):
            key = hash((key, *prompt[start : start + self.size]))
            keys.append(key)
        return keys


class Scheduler:
    """The state of an engine between two steps. `check_rows` is asked before each step and may raise."""

    def __init__(
        self, times: StepTimes, settings: SchedulerSettings, *, reuse: bool, check_rows: Callable[[int, int], None]
    ) -> None:
        self.times, self.settings, self.check_rows = times, settings, check_rows
        s = settings
        self.caches = [
            BlockCache(s.kv_tokens // s.tokens_per_block, s.tokens_per_block, reuse) for _ in range(s.n_ranks)
        ]
        self.queue: deque[Request] = deque()
        self.context: list[deque[Request]] = [deque() for _ in range(s.n_ranks)]
        self.running: list[list[Request]] = [[] for _ in range(s.n_ranks)]
        self.ended: list[Request] = []
        """Requests whose prompt ends with the step under way."""
        self.dense, self.moe, self.logits = times.context_ms(s.max_num_tokens + 1)
        self.decode, self.floor = times.replayed_ms(s.max_batch_size, s.graph_sizes, s.graph_padding)
        self.n_steps = self.n_finished = self.n_cancelled = self.slowdown_left = 0
        self.slowdown = 1.0

    @property
    def n_active(self) -> int:
        """Requests that have been admitted and are not done."""
        return sum(map(len, self.context)) + sum(map(len, self.running))

    def submit(self, request: Request) -> None:
        self.queue.append(request)

    def cancel(self, request: Request) -> None:
        """Forget a request at the next step; one that is done already is none the wiser."""
        request.cancelled = True
        self.n_cancelled += 1

    def abort_all(self) -> list[Request]:
        """Forget every request, and return them."""
        lost = [*self.queue, *self.ended, *(each for rank in (*self.context, *self.running) for each in rank)]
        self.queue.clear()
        self.ended = []
        for waiting, running in zip(self.context, self.running, strict=True):
            waiting.clear()
            running.clear()
        return lost

    def step(self) -> Iteration | None:
        """Run one iteration; None where nothing can run. Where `check_rows` raises, every request can be aborted."""
        self._drop_cancelled()
        self._admit()
        waiting = sum(map(len, self.context))
        taken, slowest = self._context_work()
        n_context = waiting - sum(map(len, self.context)) + sum(bool(rank) for rank in self.context if taken)
        running = [len(rank) for rank in self.running]
        b = max(running)
        if not taken and not b:
            return None
        for rank, n_running in enumerate(running):
            self.check_rows(rank, n_running + sum(request.rank == rank for request in self.ended))
        duration = self._mixed_ms(taken, slowest, b) if taken else self._decode_ms(b)
        if self.n_finished < self.slowdown_left:
            duration *= self.slowdown
        emitted = [request for rank in self.running for request in rank] + self.ended
        for request in self.ended:
            self.caches[request.rank].store(request)
            self.running[request.rank].append(request)
        self.ended = []
        for request in emitted:
            request.n_done += 1
        self.n_steps += 1
        n_finished = self._finish()
        told = tuple((request, request.n_done) for request in emitted)
        return Iteration(duration, told, n_context, taken, sum(running), n_finished)

    def _drop_cancelled(self) -> None:
        if not self.n_cancelled:
            return
        self.n_cancelled = 0
        self.queue = deque(request for request in self.queue if not request.cancelled)
        for rank, cache in enumerate(self.caches):
            for group in (self.context[rank], self.running[rank]):
                for request in [each for each in group if each.cancelled]:
                    group.remove(request)
                    cache.release(request)

    def _admit(self) -> None:
        s = self.settings
        while self.queue:
            loads = [len(self.context[rank]) + len(self.running[rank]) for rank in range(s.n_ranks)]
            rank = loads.index(min(loads))
            request = self.queue[0]
            if loads[rank] >= s.max_batch_size or not self.caches[rank].admit(request):
                return
            self.queue.popleft()
            request.rank, request.left = rank, len(request.prompt) - request.cached_tokens
            self.context[rank].append(request)

    def _context_work(self) -> tuple[int, float]:
        """Prompts of this step: tokens of all ranks, and ms of the slowest one's dense and attention part."""
        taken, slowest = 0, 0.0
        for rank, waiting in enumerate(self.context):
            if waiting:
                used, ms = self._prefill(rank, waiting)
                taken += used
                slowest = max(slowest, ms)
        return taken, slowest

    def _prefill(self, rank: int, waiting: deque[Request]) -> tuple[int, float]:
        s, b = self.settings, len(self.running[rank])
        budget, rows, attention = s.max_num_tokens - b, b, 0.0
        while waiting:
            request = waiting[0]
            past = len(request.prompt) - request.left
            if request.left <= budget:
                self.ended.append(waiting.popleft())
                chunk, rows = request.left, rows + 1
            elif s.chunked_prefill and budget >= s.tokens_per_block:
                chunk = budget // s.tokens_per_block * s.tokens_per_block
            else:
                break
            request.left -= chunk
            attention += self.times.prefill_attention_ms(chunk, past)
            budget -= chunk
            if request.left:
                break
        used = s.max_num_tokens - b - budget
        if not used:
            return 0, 0.0
        if b:
            attention += self.times.decode_attention_ms(b, self._kv_tokens(rank) / b)
        return used, self.dense[used + b] + attention + self.logits[rows]

    def _kv_tokens(self, rank: int) -> int:
        return sum(len(request.prompt) + request.n_done for request in self.running[rank])

    def _mixed_ms(self, taken: int, slowest: float, b: int) -> float:
        s, n_running = self.settings, sum(map(len, self.running))
        if s.n_ranks > 1 and b:
            kv = max(map(self._kv_tokens, range(s.n_ranks)))
            slowest = max(slowest, self.dense[b] + self.logits[b] + self.times.decode_attention_ms(b, kv / b))
        gpu = max(slowest + self.moe[(taken + n_running + s.n_ranks - 1) // s.n_ranks], self.times.eager_floor_ms)
        return self._wall_ms(gpu, b)

    def _decode_ms(self, b: int) -> float:
        kv = max(map(self._kv_tokens, range(self.settings.n_ranks)))
        gpu = max(self.decode[b] + self.times.decode_attention_ms(b, kv / b), self.floor[b])
        return self._wall_ms(gpu, b)

    def _wall_ms(self, gpu_ms: float, b: int) -> float:
        c, s = self.times.constants, self.settings
        host = c.host_base_ms + (c.host_per_seq_ms + c.stream_per_chunk_ms / s.stream_interval) * b
        return max(gpu_ms, host) if s.overlap else gpu_ms + host

    def _finish(self) -> int:
        """Release what is complete, and say how many requests that is."""
        before = self.n_finished
        for rank, requests in enumerate(self.running):
            done = [request for request in requests if request.n_done >= request.n_output]
            for request in done:
                self.caches[rank].release(request)
            self.n_finished += len(done)
            if done:
                self.running[rank] = [request for request in requests if request.n_done < request.n_output]
        return self.n_finished - before
