"""TensorRT-LLM's in-flight batching scheduler (PyTorch backend) in virtual time.

One iteration: issue arrivals, admit, pick context work, one forward step, one token per running request, release.
- Capacity: GUARANTEED_NO_EVICT. A request is admitted, first come first served, when KV blocks for its whole ISL +
  OSL are free and a slot of `max_batch_size` is; nothing is ever evicted.
- Tokens: running decodes take one of `max_num_tokens` each, first; context work fills the rest in order: whole
  prompts, or with chunked prefill pieces rounded down to whole KV blocks.
- Decode-only steps replay a CUDA graph padded up to the next captured size; other steps are launched eagerly, but for
  those with prompts that a graph of vLLM is large enough for.
- Overlap scheduler: a step takes max(GPU, host), without it GPU + host.
- Attention DP: one queue, KV pool and budget per rank, requests to the least loaded rank; all ranks wait for the
  slowest rank's dense and attention part, experts see the mean tokens of all ranks.
While nothing but the KV lengths changes, runs of steps are summed in closed form (`jump=False` walks every one).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.domain.errors import BadInput
from advisor.twin.http_process import HttpProcess
from advisor.twin.simulation import Simulation
from advisor.twin.step_times import StepTimes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SchedulerSettings:
    """What the engine runs with. Batch, tokens, KV and graph sizes are per rank under attention DP."""

    max_batch_size: int
    max_num_tokens: int
    kv_tokens: int
    graph_sizes: tuple[int, ...] = ()
    graph_padding: bool = True
    chunked_prefill: bool = False
    overlap: bool = True
    n_ranks: int = 1
    tokens_per_block: int = 32
    stream_interval: int = 1
    own_http_process: bool = False
    """Requests and chunks pass a process beside the engine's steps (`HttpProcess`), not within them."""
    adp_balance_timeout_iters: int = 0
    """Attention DP: hold context work until every rank has some, at most so many iterations; 0 = off (the default)."""


@dataclass(frozen=True)
class Progress:
    """Where a running simulation stands; per request, ms of virtual time, NaN before it happens."""

    now_ms: float
    arrival_ms: Array
    first_token_ms: Array
    done_ms: Array
    n_output: NDArray[np.int64]


def simulate(
    times: StepTimes,
    settings: SchedulerSettings,
    isl: ArrayLike,
    osl: ArrayLike,
    *,
    concurrency: int | None = None,
    arrival_ms: ArrayLike | None = None,
    cached_tokens: int = 0,
    jump: bool = True,
    stop: Callable[[Progress], bool] | None = None,
) -> Simulation:
    """Serve all requests and return what each one saw.

    Args:
        times: Step times of the deployment and world.
        settings: Engine settings.
        isl: Prompt tokens per request, shape (n_requests,).
        osl: Output tokens per request, >= 1.
        concurrency: Requests in flight at most (closed loop when no arrivals are given).
        arrival_ms: Planned send times, ascending; None = as soon as concurrency allows.
        cached_tokens: Leading prompt tokens found in the KV cache (shared prefix) after the first request.
        jump: Sum runs of equal steps in closed form.
        stop: Asked about fifty times per run; True ends it with what is finished.

    Raises:
        BadInput: a request that can never be scheduled (longer than the KV pool, or its prompt than the token budget).
    """
    run = _Run(
        times, settings, np.asarray(isl, np.int64), np.asarray(osl, np.int64), concurrency, arrival_ms, cached_tokens
    )
    return run.simulate(jump, stop)


class _Run:
    """State of one simulation; lists and plain floats, because this loop is the hot path of every search."""

    def __init__(
        self,
        times: StepTimes,
        settings: SchedulerSettings,
        isl: NDArray[np.int64],
        osl: NDArray[np.int64],
        concurrency: int | None,
        arrival_ms: ArrayLike | None,
        cached_tokens: int,
    ) -> None:
        s, c = settings, times.constants
        _check_servable(s, int(isl.max()), int((isl + osl).max()))
        self.s, self.times = s, times
        self.n = len(isl)
        self.isl, self.osl = isl.tolist(), osl.tolist()
        self.need = (-(-(isl + osl) // s.tokens_per_block) * s.tokens_per_block).tolist()
        self.cached = cached_tokens
        self.limit = concurrency or self.n
        self.planned = np.zeros(self.n).tolist() if arrival_ms is None else np.asarray(arrival_ms, float).tolist()
        self.open_loop = arrival_ms is not None

        most = min(s.max_batch_size, self.n, self.limit)
        self.dense, self.moe, self.logits = times.context_ms(s.max_num_tokens + 1)
        self.decode, self.floor = times.replayed_ms(most, s.graph_sizes, s.graph_padding)
        self.host_base = c.host_base_ms
        self.host_per_seq = c.host_per_running_ms(s.stream_interval, s.own_http_process)
        self.beside_kernels = c.beside_kernels_ms(s.own_http_process)
        self.http: HttpProcess | None = None
        if s.own_http_process:
            self.http = HttpProcess(c.http_costs(s.stream_interval))
        self.eager_floor = times.eager_floor_ms
        self.graphs_hold_tokens = max(s.graph_sizes, default=0) if s.own_http_process else 0  # with prompts

        self.t = 0.0
        self.step = self.iterations = self.finished = self.issued = 0
        self.queue: deque[int] = deque()
        self.free = deque([0.0] * min(self.limit, self.n))  # when clients may send next, where HTTP has its process
        # Per rank, prompts being worked on: [request, tokens left, tokens done].
        self.context: list[deque[list[int]]] = [deque() for _ in range(s.n_ranks)]
        self.n_context = 0
        self.running, self.kv, self.reserved, self.load = ([0] * s.n_ranks for _ in range(4))
        self.due: list[int] = []
        self.finishing: dict[int, list[tuple[int, int]]] = {}
        self.arrival, self.first, self.done = ([np.nan] * self.n for _ in range(3))
        self.held_iters = 0
        self.blocked_by_kv = False
        self.n_running = self.peak = 0
        self.running_ms = self.prefill_ms = self.kv_ms = self.batch_ms = self.tokens_ms = self.host_ms = 0.0
        self.trace: list[tuple[float, int, int]] = []

    def simulate(self, jump: bool, stop: Callable[[Progress], bool] | None) -> Simulation:
        report_every = max(1, self.n // 50)
        next_report = report_every if stop else self.n + 1
        stopped = False
        while self.finished < self.n and not stopped:
            if self.http is None:
                self.issue()
            else:
                self.take_in(self.http)
            if self.queue:
                self.admit()
            if not self.n_running and not self.n_context:
                self.t = self.next_request_ms
                continue
            self.iterations += 1
            if not (self.n_context and self.may_prefill() and self.mixed_step()):
                self.decode_steps(jump)
            if self.due and self.due[0] <= self.step:
                self.finish()
                if stop and self.finished >= next_report:
                    next_report = self.finished + report_every
                    stopped = stop(self.progress())
        return self.result(stopped)

    def progress(self) -> Progress:
        fixed = self.times.constants.ttft_fixed_ms
        first, done = np.array(self.first) + fixed, np.array(self.done) + fixed
        n_output = np.where(np.isfinite(done), self.osl, 0).astype(np.int64)
        for last_step, running in self.finishing.items():
            for _, k in running:
                n_output[k] = self.osl[k] - (last_step - self.step)
        return Progress(self.seen_ms + fixed, np.array(self.arrival), first, done, n_output)

    def issue(self) -> None:
        """Requests that clients send by now: planned time reached and a place within the concurrency free."""
        t, n = self.t, min(self.n, self.finished + self.limit)
        k = self.issued
        while k < n and self.planned[k] <= t:
            self.arrival[k] = self.planned[k] if self.open_loop and self.limit == self.n else t
            self.queue.append(k)
            k += 1
        self.issued = k

    def take_in(self, http: HttpProcess) -> None:
        """The same through the HTTP process: an answer is seen when it was sent, and then the next request is."""
        while self.issued < self.n and self.free and self.planned[self.issued] <= self.t:
            k = self.issued
            self.arrival[k] = max(self.planned[k], self.free.popleft())
            http.take_in(k, self.arrival[k])
            self.issued += 1
        self.queue.extend(http.passed_on(self.t))

    @property
    def seen_ms(self) -> float:
        """When clients see what the engine has done by now."""
        return self.t if self.http is None else max(self.t, self.http.clock_ms)

    @property
    def next_request_ms(self) -> float:
        """When an idle engine gets its next one."""
        on_its_way = math.inf if self.http is None else self.http.next_ms
        return on_its_way if on_its_way < math.inf else self.planned[self.issued]

    def admit(self) -> None:
        s, queue, load = self.s, self.queue, self.load
        while queue:
            r = load.index(min(load)) if s.n_ranks > 1 else 0
            k = queue[0]
            if load[r] >= s.max_batch_size:
                self.blocked_by_kv = False
                return
            if self.reserved[r] + self.need[k] > s.kv_tokens:
                self.blocked_by_kv = True
                return
            queue.popleft()
            load[r] += 1
            self.reserved[r] += self.need[k]
            cached = min(self.cached, self.isl[k] - 1) if k else 0
            self.context[r].append([k, self.isl[k] - cached, cached])
            self.n_context += 1

    def may_prefill(self) -> bool:
        """False while attention-DP balancing holds context work back until every rank has some."""
        timeout = self.s.adp_balance_timeout_iters
        if not timeout or all(self.context) or not all(self.running) or self.held_iters >= timeout:
            self.held_iters = 0
            return True
        return False

    def mixed_step(self) -> bool:
        """One step with context work; False, and nothing done, when no prompt (or chunk) fits the token budget."""
        taken, slowest = 0, 0.0
        ended: list[tuple[int, int]] = []
        for r, waiting in enumerate(self.context):
            if waiting:
                used, ms = self.prefill_rank(r, waiting, ended)
                if used:
                    taken += used
                    slowest = max(slowest, ms)
        if not taken:
            return False
        n_ranks, t0 = self.s.n_ranks, self.t
        if n_ranks > 1:
            b = max(self.running)
            if b:
                pace = self.dense[b] + self.logits[b] + self.times.decode_attention_ms(b, max(self.kv) / b)
                slowest = max(slowest, pace)
        else:
            b = self.running[0]
        rank_tokens = (taken + self.n_running + n_ranks - 1) // n_ranks
        gpu = slowest + self.moe[rank_tokens]
        ms = gpu if rank_tokens <= self.graphs_hold_tokens else max(gpu, self.eager_floor)
        host = self.host_base + self.host_per_seq * b
        wall = self.beside_kernels + (max(ms, host) if self.s.overlap else ms + host)
        self.t = t0 + wall
        self.step += 1
        self.host_ms += wall - gpu
        self.prefill_ms += wall
        self.account(wall, 1)
        if self.http is not None:
            self.http.send(self.n_running + len(ended), t0, wall)
        for r, running in enumerate(self.running):
            self.kv[r] += running
        for r, k in ended:
            self.start_decode(r, k)
        return True

    def prefill_rank(self, r: int, waiting: deque[list[int]], ended: list[tuple[int, int]]) -> tuple[int, float]:
        """Context work of one rank within its token budget: (tokens taken, ms of its dense and attention part)."""
        s, b = self.s, self.running[r]
        budget, rows, attention = s.max_num_tokens - b, b, 0.0
        while waiting:
            item = waiting[0]
            k, left, past = item
            if left <= budget:
                waiting.popleft()
                self.n_context -= 1
                ended.append((r, k))
                rows += 1
                chunk = left
            elif s.chunked_prefill and budget >= s.tokens_per_block:
                chunk = budget // s.tokens_per_block * s.tokens_per_block
                item[1], item[2] = left - chunk, past + chunk
            else:
                break
            attention += self.times.prefill_attention_ms(chunk, past)
            budget -= chunk
            if chunk < left:
                break
        used = s.max_num_tokens - b - budget
        if not used:
            return 0, 0.0
        if b:
            attention += self.times.decode_attention_ms(b, self.kv[r] / b)
        return used, self.dense[used + b] + attention + self.logits[rows]

    def start_decode(self, r: int, k: int) -> None:
        """The prompt is done and its first token out."""
        self.first[k] = self.seen_ms
        self.running[r] += 1
        self.n_running += 1
        self.kv[r] += self.isl[k] + 1
        at = self.step + self.osl[k] - 1
        if at in self.finishing:
            self.finishing[at].append((r, k))
        else:
            self.finishing[at] = [(r, k)]
            heappush(self.due, at)
        if self.n_running > self.peak:
            self.peak = self.n_running

    def decode_steps(self, jump: bool) -> None:
        """Decode-only steps up to the next event: a completion, an arrival or the end of a balancing wait."""
        b = max(self.running)
        kv_len = max(self.kv) / b
        steady, host = self.decode[b], self.host_base + self.host_per_seq * b
        least, extra = (max(self.floor[b], host), 0.0) if self.s.overlap else (self.floor[b], host)
        n = self.steps_to_event(jump, steady + self.times.decode_attention_ms(b, kv_len), least, extra)
        gpu, wall = self.times.decode_run_ms(b, kv_len, n, steady, least)
        wall += n * extra
        self.held_iters += n if self.n_context else 0
        if self.http is not None:
            self.http.send(self.n_running, self.t, wall / n, n)
        self.t += wall
        self.step += n
        self.host_ms += max(0.0, wall - gpu)
        self.account(wall, n)
        for r, running in enumerate(self.running):
            self.kv[r] += n * running

    def steps_to_event(self, jump: bool, gpu_ms: float, least: float, extra: float) -> int:
        if not jump:
            return 1
        steps = self.due[0] - self.step
        # Attention grows on the way: fall short of an arrival, then look again.
        wall = 1.02 * max(gpu_ms, least) + extra
        if self.http is not None and self.http.next_ms < math.inf:
            steps = min(steps, max(1, int((self.http.next_ms - self.t) / wall)))
        if self.issued < self.n and self.open_loop and self.issued < self.finished + self.limit:
            steps = min(steps, max(1, int((self.planned[self.issued] - self.t) / wall)))
        if self.n_context and self.s.adp_balance_timeout_iters:
            steps = min(steps, max(1, self.s.adp_balance_timeout_iters - self.held_iters))
        return steps

    def account(self, wall: float, steps: int) -> None:
        self.running_ms += wall * self.n_running
        if self.n_context:
            self.tokens_ms += wall
        elif self.queue:
            if self.blocked_by_kv:
                self.kv_ms += wall
            else:
                self.batch_ms += wall
        self.trace.append((self.t, steps, self.n_running))

    def finish(self) -> None:
        """Release what is complete at this step."""
        for r, k in self.finishing.pop(heappop(self.due)):
            self.running[r] -= 1
            self.load[r] -= 1
            self.kv[r] -= self.isl[k] + self.osl[k]
            self.reserved[r] -= self.need[k]
            self.done[k] = self.seen_ms
            self.free.append(self.done[k])
            self.n_running -= 1
            self.finished += 1

    def result(self, stopped: bool) -> Simulation:
        seen, total = self.progress(), self.t or 1.0
        trace = np.array(self.trace, dtype=np.float64).reshape(-1, 3)
        return Simulation(
            arrival_ms=seen.arrival_ms,
            first_token_ms=seen.first_token_ms,
            done_ms=seen.done_ms,
            n_output=np.where(np.isfinite(seen.done_ms), self.osl, 0).astype(np.int64),
            n_finished=self.finished,
            stopped=stopped,
            duration_ms=seen.now_ms,
            n_steps=self.step,
            n_iterations=self.iterations,
            peak_running=self.peak,
            mean_running=self.running_ms / total,
            prefill_share=self.prefill_ms / total,
            kv_share=self.kv_ms / total,
            batch_share=self.batch_ms / total,
            tokens_share=self.tokens_ms / total,
            host_share=self.host_ms / total,
            http_share=self.http.busy_ms / seen.now_ms if self.http and seen.now_ms else None,
            step_end_ms=trace[:, 0],
            step_count=trace[:, 1].astype(np.int64),
            step_running=trace[:, 2].astype(np.int64),
        )


def _check_servable(s: SchedulerSettings, longest_isl: int, longest: int) -> None:
    if not s.chunked_prefill and longest_isl > s.max_num_tokens:
        raise BadInput(
            f"A prompt of {longest_isl:,} tokens never fits max_num_tokens {s.max_num_tokens:,} without chunked "
            "prefill; raise max_num_tokens or enable chunked prefill."
        )
    if -(-longest // s.tokens_per_block) * s.tokens_per_block > s.kv_tokens:
        raise BadInput(f"A request of {longest:,} tokens never fits the KV cache of {s.kv_tokens:,} tokens per rank.")
