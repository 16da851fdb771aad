"""The scheduler's long-run behaviour in closed form, for whole grids of settings at once: a ranking, not a simulation.

Symbols, per rank, arrays of the settings' shape:
    R  requests running together: the least of max_batch_size, concurrency, what the KV pool holds and, without chunked
       prefill, what the token budget leaves room for beside a whole prompt
    P  prompts (or shares of one) that fit into one step beside R decodes
    M  steps with context work in one generation of R requests: R / P
A generation of R requests takes max(OSL, M) steps, M of them mixed; a run of w waves adds the ramp of its first and
last. Where M exceeds OSL prompts arrive slower than they finish, every step is mixed and R falls to P x OSL.
`benchmarks/twin_speed.py` prints how well this ranks against the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advisor.twin.graphs import ladder
from advisor.twin.step_tables import interp
from advisor.twin.step_times import StepTimes

Array = NDArray[np.float64]

TOGETHER = 2.6  # fitted to the scheduler: how lateness keeps the requests of a closed loop together


@dataclass(frozen=True)
class SteadySettings:
    """Settings to rank; per rank under attention DP. Numbers or arrays of one shape."""

    max_batch_size: ArrayLike
    max_num_tokens: ArrayLike
    graph_max: ArrayLike
    kv_tokens: ArrayLike
    chunked_prefill: ArrayLike = False
    graph_padding: bool = True
    ladder_rule: str = "ceil"
    overlap: bool = True
    n_ranks: int = 1
    tokens_per_block: int = 32
    stream_interval: int = 1
    own_http_process: bool = False


@dataclass(frozen=True)
class SteadyLoad:
    """What is asked: mean lengths in tokens, and either a concurrency or a request rate over all ranks."""

    isl: float
    osl: float
    concurrency: int | None = None
    request_rate_per_s: float | None = None
    ranged: bool = False
    """Lengths vary, so that requests do not finish in step."""
    n_requests: int = 8192
    """Requests of the run, whose ramps count."""


@dataclass(frozen=True, eq=False)
class SteadyState:
    """Estimates per setting; NaN where the longest request can never be scheduled."""

    output_tok_per_s: Array
    ttft_ms: Array
    tpot_ms: Array
    running: Array
    """Requests running together on one rank."""


def steady_state(times: StepTimes, settings: SteadySettings, load: SteadyLoad) -> SteadyState:
    """Estimate every setting under one load."""
    model = _Model(times, settings, load)
    if load.concurrency is not None:
        return model.closed_loop(np.minimum(model.most, np.ceil(load.concurrency / settings.n_ranks)), load.concurrency)
    return model.open_loop(float(load.request_rate_per_s or 0.0))


@dataclass(frozen=True, eq=False)
class _Generation:
    """One generation at R: mixed steps, all steps, and the ms of each kind."""

    running: Array
    mixed: Array
    steps: Array
    mixed_ms: Array
    decode_ms: Array

    @property
    def wall_ms(self) -> Array:
        return np.asarray(self.mixed * self.mixed_ms + (self.steps - self.mixed) * self.decode_ms)


class _Model:
    def __init__(self, times: StepTimes, settings: SteadySettings, load: SteadyLoad) -> None:
        self.times, self.s, self.load = times, settings, load
        names = ("max_batch_size", "max_num_tokens", "graph_max", "kv_tokens", "chunked_prefill")
        arrays = np.broadcast_arrays(*(np.asarray(getattr(settings, name), np.float64) for name in names))
        self.batch, self.tokens, self.graph_max, self.kv, chunked = arrays
        self.chunked = chunked > 0
        block = settings.tokens_per_block
        need = np.ceil((load.isl + load.osl) / block) * block
        room = np.where(self.chunked, np.maximum(1.0, self.tokens - block), self.tokens - load.isl + 1)
        self.most = np.minimum(np.minimum(self.batch, np.floor(self.kv / need)), room)
        self.impossible = self.most < 1
        self.most = np.maximum(1.0, self.most)
        self.kv_len = load.isl + load.osl / 2
        self.cap = np.minimum(self.batch, self.tokens)
        self.ladders = tuple(map(self.ladder, np.unique(self.graph_max[self.graph_max > 0])))

    def ladder(self, graph_max: float) -> tuple[NDArray[np.bool_], Array]:
        """Where a largest graph is set, and the sizes up to it."""
        sizes = ladder(int(graph_max), padding=self.s.graph_padding, rule=self.s.ladder_rule)
        return self.graph_max == graph_max, np.asarray(sizes, np.float64)

    def generation(self, running: Array) -> _Generation:
        """Steps and times while `running` requests per rank are served."""
        s, load, osl = self.s, self.load, self.load.osl
        # Where prompts come in slower than requests finish, tokens settle at isl : osl of the budget.
        running = np.minimum(running, np.maximum(1.0, self.tokens * osl / (load.isl + osl)))
        budget = np.maximum(1.0, self.tokens - running)
        whole = np.maximum(1.0, np.floor(budget / load.isl))
        pieces = np.maximum(s.tokens_per_block, np.floor(budget / s.tokens_per_block) * s.tokens_per_block) / load.isl
        prompts = np.minimum(np.where(self.chunked, pieces, whole), running)
        running = np.minimum(running, prompts * osl)
        mixed = running / prompts
        if load.ranged:  # completions, and with them prefills, spread over the steps
            spread = osl * -np.expm1(-s.n_ranks * running / osl)
            mixed = np.maximum(mixed, spread)
        prompts = running / mixed
        return _Generation(
            running=running,
            mixed=mixed,
            steps=np.maximum(osl + 1, mixed),
            mixed_ms=self.mixed_ms(running, prompts),
            decode_ms=self.decode_ms(running),
        )

    def mixed_ms(self, running: Array, prompts: Array) -> Array:
        """One step with `prompts` prompts (or shares) beside `running` decodes; the slowest rank has at least one."""
        t, c, isl = self.times.tables, self.times.constants, self.load.isl
        slowest = np.where(self.chunked, prompts, np.maximum(1.0, prompts)) if self.s.n_ranks > 1 else prompts
        dense = c.dense_factor * c.prefill_factor * interp(t.tokens, t.ctx_dense_ms, slowest * isl + running)
        moe = c.moe_factor * c.prefill_factor * interp(t.tokens, t.ctx_moe_ms, prompts * isl + running)
        logits = c.dense_factor * interp(t.batches, t.logits_ms, running + slowest)
        # A prompt cut into n chunks has its attention cut likewise; the sum over chunks is about that of the whole.
        attention = c.attention_factor * c.prefill_factor * slowest * float(t.prefill_attention_ms(isl, 0))
        gpu = dense + moe + logits + attention + self.decode_attention(running)
        held = prompts * isl + running <= self.graph_max if self.s.own_http_process else False
        least = np.where(held, 0.0, self.times.eager_floor_ms)
        return c.beside_kernels_ms(self.s.own_http_process) + self.wall(np.maximum(gpu, least), running)

    def decode_ms(self, running: Array) -> Array:
        rows = np.ceil(running)
        padded, eager = self.padded(rows)
        steady = self.times.decode_ms(int(padded.max()))[padded.astype(np.intp)]
        gpu = steady + self.decode_attention(running)
        return self.wall(np.where(eager, np.maximum(gpu, self.times.eager_floor_ms), gpu), running)

    def decode_attention(self, running: Array) -> Array:
        c = self.times.constants
        tilt = (np.maximum(running, 1.0) / 64.0) ** c.decode_tilt
        return np.asarray(c.attention_factor * tilt * self.times.tables.decode_attention_ms(running, self.kv_len))

    def padded(self, rows: Array) -> tuple[Array, NDArray[np.bool_]]:
        """The batch size that each decode step runs at, and whether it runs eagerly."""
        out, eager = np.array(rows), np.ones(rows.shape, dtype=bool)
        for here, sizes in self.ladders:
            wanted = out[here]
            at = np.minimum(np.searchsorted(sizes, wanted), len(sizes) - 1)
            size = np.minimum(sizes[at], self.cap[here])
            replayed = (wanted <= sizes[-1]) & (size >= wanted if self.s.graph_padding else size == wanted)
            out[here], eager[here] = np.where(replayed, size, wanted), ~replayed
        return out, eager

    def wall(self, gpu_ms: Array, running: Array) -> Array:
        c = self.times.constants
        host = c.host_base_ms + c.host_per_running_ms(self.s.stream_interval, self.s.own_http_process) * running
        return np.asarray(np.maximum(gpu_ms, host) if self.s.overlap else gpu_ms + host)

    def through_http(self, g: _Generation, queued: Array) -> tuple[Array, Array]:
        """Of an engine whose HTTP is a process beside it: ms of a generation, and how far its requests stay together.

        A generation lasts as long as the slower of both processes needs for it. On its way from a client to the engine
        a request leaves its place empty, and decode steps wait for answers that are sent late, as far as no other
        request queues for the place. Those that come back meanwhile are served together.

        Args:
            g: The generation.
            queued: Requests that wait for a place, in generations.
        """
        costs, n = self.times.constants.http_costs(self.s.stream_interval), self.s.n_ranks * g.running
        work_ms, way_ms, decodes = costs.of_step(n), costs.request_turns * costs.turn_ms(n), g.steps - g.mixed
        late_ms = decodes * np.maximum(0.0, work_ms - g.decode_ms)
        missed = np.clip(1.0 - queued * g.wall_ms / np.maximum(way_ms + late_ms, 1e-9), 0.0, 1.0)
        lateness = (way_ms + late_ms) / (g.mixed * np.maximum(g.decode_ms, work_ms))
        generation_ms = np.maximum(g.wall_ms, g.steps * work_ms)
        alone_ms = np.maximum(g.wall_ms + late_ms, generation_ms) + way_ms / 2
        return generation_ms + missed * (alone_ms - generation_ms), -missed * np.expm1(-TOGETHER * lateness)

    def closed_loop(self, running: Array, concurrency: int) -> SteadyState:
        g, osl, s = self.generation(running), self.load.osl, self.s
        tpot = g.wall_ms / g.steps
        n_requests = self.load.n_requests
        waves = max(1.0, n_requests / concurrency)
        generations = np.maximum(n_requests / (s.n_ranks * g.running), 1.0)
        # The last generation's first requests end while its last ones still decode: one more ramp of M steps.
        ramp = np.where(g.mixed < osl, g.mixed * self.decode_ms(g.running / 2), osl * self.decode_ms(g.running / 2))
        queued = np.maximum(0.0, concurrency - s.n_ranks * g.running) / (s.n_ranks * g.running)
        together = np.zeros(g.running.shape)
        generation_ms = g.wall_ms
        if s.own_http_process:
            generation_ms, together = self.through_http(g, queued)
        bursts = 1.0 + together * (waves - 1.0)
        duration = generations * generation_ms + (1.0 - together) * ramp + self.times.constants.ttft_fixed_ms
        first_burst = np.minimum(concurrency / (s.n_ranks * g.running), 1.0) * g.mixed * g.mixed_ms / 2
        # The burst at the start is waited out once, the queue for a slot on every request but those of the first fill.
        ttft = g.mixed_ms + first_burst * bursts / waves + queued * generation_ms * (1.0 - 0.5 / waves)
        return self.result(1e3 * n_requests * osl / duration, ttft, tpot, g.running)

    def open_loop(self, rate_per_s: float) -> SteadyState:
        per_ms = rate_per_s / 1e3 / self.s.n_ranks
        running = np.ones_like(self.most)
        # Little's law: requests running = rate x time in service; monotone, settles in a few rounds.
        for _ in range(12):
            g = self.generation(running)
            service = g.wall_ms / g.steps * self.load.osl
            running = np.clip(0.5 * running + 0.5 * per_ms * service, 1.0, self.most)
        g = self.generation(running)
        full = self.generation(self.most)
        capacity = 1e3 * self.s.n_ranks * full.running / full.wall_ms
        served = np.minimum(rate_per_s, capacity)
        backlog_ms = 1e3 * self.load.n_requests * (1.0 / capacity - 1.0 / rate_per_s)
        overload = np.maximum(0.0, backlog_ms) / 2
        ttft, tpot = g.mixed_ms + overload, g.wall_ms / g.steps
        drain_ms = g.mixed_ms + tpot * self.load.osl  # the last request is served after the last arrival
        duration = 1e3 * self.load.n_requests / served + drain_ms
        return self.result(1e3 * self.load.n_requests * self.load.osl / duration, ttft, tpot, g.running)

    def result(self, output_tok_per_s: Array, ttft_ms: Array, tpot_ms: Array, running: Array) -> SteadyState:
        def masked(values: Array) -> Array:
            return np.where(self.impossible, np.nan, values)

        fixed = self.times.constants.ttft_fixed_ms
        return SteadyState(masked(output_tok_per_s), masked(ttft_ms + fixed), masked(tpot_ms), masked(running))
