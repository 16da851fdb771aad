"""The measurer over HTTP: warm up, measure, check every answer, and say whether the numbers count.

Rounds of one wave meet every shape before the measurement. A measurement that shows all the same that the server got
faster on the way is made anew, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from advisor.domain.answers import GreedyAnswers
from advisor.domain.errors import EngineFailed
from advisor.domain.measurement import LimitedBy, Metrics, RefereeReport, ServerReport, WarmUp, WorkloadOutcome
from advisor.domain.ports import (
    EvidenceStore,
    MemoryInUse,
    OnEvent,
    PartialResult,
    RunningServer,
    Stop,
    TrialEvent,
)
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.load.checks import expected_hit_rates, hit_rate_note, shortfall_note
from advisor.load.client import run_load
from advisor.load.greedy import greedy_answers
from advisor.load.pulse import ClientLimits
from advisor.load.referee import compared
from advisor.load.requests import Load, make_load
from advisor.load.run import LoadRun
from advisor.load.target import Target
from advisor.load.warm_up import MAX_ROUNDS, warm_up
from advisor.metrics.confidence import batch_means_interval, batch_size, batch_sums
from advisor.metrics.definitions import compute, spread
from advisor.metrics.limits import limit_of
from advisor.metrics.settling import Settling
from advisor.metrics.warming import n_warming

RUNS_PER_SEED = 8  # the measurement twice, up to five rounds before it, and the question whether the server answers
STILL_THERE_S = 30.0


@runtime_checkable
class HttpServer(Protocol):
    """What the measurer needs of a running server beside `RunningServer`."""

    @property
    def target(self) -> Target: ...
    @property
    def dying(self) -> bool:
        """True when it is known to be dead, whatever it answers; asked often."""
        ...

    def stats(self) -> dict[str, Any]:
        """What was seen of the server since the last call.

        `kv_cache_hit_rate`, `limited_by`, `n_iterations` and `http_cpu_share` are read if they are there.
        """
        ...

    def memory_in_use(self) -> MemoryInUse | None:
        """How full its fullest GPU is; None where nobody tells."""
        ...

    def energy_j(self) -> float | None:
        """Joule that all GPUs of the launch have used since their driver was loaded; None where that is not told."""
        ...


Referee = Callable[[RunningServer, Workload, int, EvidenceStore], RefereeReport]
"""Runs the engine's own benchmark once; see `referee.run_referee`."""


class HttpMeasurer:
    """Measures workloads on one launch after another, each with advisor's own client."""

    def __init__(self, referee: Referee | None = None, limits: ClientLimits | None = None) -> None:
        self._referee = referee
        self._limits = limits or ClientLimits()
        self._measured: dict[str, Metrics] = {}

    def measure(
        self,
        server: RunningServer,
        workload: Workload,
        seed: int,
        stop: Stop,
        on_event: OnEvent,
        evidence: EvidenceStore,
    ) -> WorkloadOutcome:
        """Benchmark one workload.

        Args:
            server: A healthy server that is also an `HttpServer`.
            workload: What to send.
            seed: Not used before on this launch.
            stop: May end the measurement early.
            on_event: Sees the phase once, then progress.
            evidence: Takes the samples of every request, and the spread of the gaps.

        Raises:
            EngineFailed: the server hung up, fell silent or cannot be reached; whether it is dead, it must be asked.
            BadInput: prompts that cannot be all different.
        """
        assert isinstance(server, HttpServer)
        target, runs = server.target, range(seed * RUNS_PER_SEED, (seed + 1) * RUNS_PER_SEED)
        self._measured.pop(workload.name, None)

        def on_round(place: int) -> None:
            said = f"{workload.name}: warm-up round {place + 1}"
            on_event(TrialEvent(kind="progress", phase="serve", detail=said, fraction_done=0.0))

        on_event(TrialEvent(kind="phase", phase="serve", detail=workload.name))
        rounds, broken = warm_up(
            target,
            workload,
            runs[1 : 1 + MAX_ROUNDS],
            on_round,
            lambda: server.dying,
        )
        if broken is not None:
            _ask_again(server, workload, broken, runs[-1])
            return _fell_short(workload, seed, broken, rounds, "while warming up, ")
        for number in (runs[0], runs[1 + MAX_ROUNDS]):
            load = make_load(target, workload, n_requests=workload.requests(), seed=seed, run=number)
            on_look = _on_look(Settling(workload, load.n_requests), server, on_event)
            server.stats()
            before_j = server.energy_j()
            run = run_load(target, load, stop, on_look, lambda: server.dying)
            after_j = server.energy_j()
            told = server.stats()
            evidence.write_samples(workload.name, {**run.samples(), "itl_ms": spread(run.itl_ms())})
            if run.shortfalls:
                _ask_again(server, workload, run, runs[-1])
                return _fell_short(workload, seed, run, rounds)
            used_j = None if before_j is None or after_j is None else after_j - before_j
            benchmark = _Benchmark(target, workload, seed, load, run, rounds, used_j)
            if number != runs[0] or not benchmark.n_warming():
                break
            # What still warmed up was itself a round of warming up.
            rounds = changed(rounds, discarded_tok_per_s=benchmark.metrics().output_tok_per_s)
        outcome = _outcome(benchmark, told, self._limits)
        if outcome.metrics is not None:
            self._measured[workload.name] = outcome.metrics
        return outcome

    def referee(
        self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore
    ) -> RefereeReport | None:
        """The engine's own benchmark, and how far it is from what was measured here for the same workload."""
        if self._referee is None:
            return None
        return compared(self._referee(server, workload, seed, evidence), self._measured.get(workload.name))

    def answers(self, server: RunningServer, repeats: bool) -> GreedyAnswers | None:
        """Its greedy answers to fixed prompts.

        Raises:
            EngineFailed: it does not answer.
        """
        assert isinstance(server, HttpServer)
        return greedy_answers(server.target, repeats)


def _on_look(settling: Settling, server: HttpServer, on_event: OnEvent) -> Callable[[PartialResult], None]:
    """Tells of each look at a run."""
    return lambda partial: on_event(settling.look(partial, server.memory_in_use()))


def _ask_again(server: HttpServer, workload: Workload, run: LoadRun, number: int) -> None:
    """After an answer that looks like a dying server, ask for one more token; any answer says that it lives.

    Raises:
        EngineFailed: none comes.
    """
    if not run.alarmed:
        return
    target, told = server.target, shortfall_note(run.shortfalls.values(), len(run.records))
    patience_s = min(STILL_THERE_S, target.silence_timeout_s)
    impatient = changed(target, silence_timeout_s=patience_s, request_timeout_s=patience_s)
    load = make_load(impatient, changed(workload, osl=1, osl_min=None), n_requests=1, seed=number, run=number)
    try:
        run_load(impatient, load, lambda partial: False, is_dead=lambda: server.dying)
    except EngineFailed as error:
        raise EngineFailed(f"{told}; asked again, it did not answer: {error}") from None


@dataclass(frozen=True)
class _Benchmark:
    """One measurement: what was sent, and what came."""

    target: Target
    workload: Workload
    seed: int
    load: Load
    run: LoadRun
    rounds: WarmUp
    energy_j: float | None

    def metrics(self) -> Metrics:
        """By the definitions that the twin goes by too."""
        samples, itl_ms = self.run.samples(), self.run.itl_ms()
        return compute(
            samples["sent_ms"],
            samples["first_token_ms"],
            samples["done_ms"],
            samples["n_output"],
            self.target.n_gpus,
            slo=self.target.slo,
            itl_ms=itl_ms if itl_ms.size else None,
            gaps_ms=self.run.gaps_ms(),
            energy_j=self.energy_j,
        )

    def ci95(self) -> tuple[float, float] | None:
        """Of output tok/s, by batches of one wave each."""
        interval = batch_means_interval(*self._ends())
        return (interval.low, interval.high) if interval else None

    def n_warming(self) -> int:
        """Batches after the ramp-up in which the server was slower than it got; 0 where the run was stopped."""
        if self.run.ended_by is not None:
            return 0
        tokens, seconds = batch_sums(*self._ends())
        return n_warming(tokens[1:-1] / np.maximum(seconds[1:-1], 1e-6))

    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], int]:
        samples = self.run.samples()
        per_batch = batch_size(self.workload.concurrency, self.load.n_requests)
        return samples["sent_ms"], samples["done_ms"], samples["n_output"], per_batch

    def expected_hit_rates(self) -> tuple[float, float]:
        """Of the KV cache, least and most."""
        return expected_hit_rates(
            self.load.isl,
            self.workload.shared_prefix_tokens,
            self.target.kv_block_tokens,
            self.target.block_reuse,
        )


def _fell_short(workload: Workload, seed: int, run: LoadRun, rounds: WarmUp, when: str = "") -> WorkloadOutcome:
    """The server answered wrongly: no metrics, whatever else was measured."""
    note = when + shortfall_note(run.shortfalls.values(), len(run.records))
    n_unsent = len(run.records) - run.n_finished
    if n_unsent:
        note += f"; the run ended there, {n_unsent} requests were not answered or not sent"
    return WorkloadOutcome(
        workload=workload.name, metrics=None, seed=seed, n_short=len(run.shortfalls), note=note, warm_up=rounds
    )


def _outcome(benchmark: _Benchmark, told: dict[str, Any], limits: ClientLimits) -> WorkloadOutcome:
    """Metrics of a run without a wrong answer, or why they do not count.

    Args:
        benchmark: What was sent and what came.
        told: What the server counted meanwhile.
        limits: Of the client.
    """
    workload, load, run = benchmark.workload, benchmark.load, benchmark.run
    rounds = changed(benchmark.rounds, n_warming=benchmark.n_warming())
    stopped = run.ended_by == "stop"
    client, reasons = run.judged(load.nominal_open, limits)
    hit_rate: float | None = told.get("kv_cache_hit_rate")
    behind: LimitedBy | None = told.get("limited_by")
    if behind is None and told.get("n_iterations"):  # nothing waited inside the server, so the load is the limit
        behind = "request_rate" if workload.request_rate_per_s is not None else "concurrency"
    http_cpu_share: float | None = told.get("http_cpu_share")
    troubles = [
        f"stopped early after {run.n_finished:,} of {load.n_requests:,} requests" if stopped else None,
        f"the client was the limit: {', '.join(reasons)}" if reasons else None,
        None if stopped else hit_rate_note(hit_rate, benchmark.expected_hit_rates()),
    ]
    note = "; ".join(trouble for trouble in troubles if trouble)
    unsettled = "" if rounds.stable else f"not settled after {len(rounds.output_tok_per_s)} rounds of warm-up"
    if rounds.n_warming:
        unsettled = f"still warming up in its first {rounds.n_warming} batches, though it was measured anew"
    return WorkloadOutcome(
        workload=workload.name,
        metrics=None if note else benchmark.metrics(),
        limited_by=limit_of(behind, http_cpu_share=http_cpu_share, client_saturated=client.saturated),
        ci95=None if note else benchmark.ci95(),
        seed=benchmark.seed,
        stopped_early=stopped,
        note=note or unsettled or None,
        warm_up=rounds,
        client=client,
        server=None if http_cpu_share is None else ServerReport(http_cpu_share=http_cpu_share),
        kv_cache_hit_rate=hit_rate,
    )
