"""Rounds before the measurement: the first load after a start pays for just-in-time kernels (8-20 % on an H100).

What is made just in time depends on shapes: prompts of the workload's length, and batches up to its concurrency. One
wave meets them all, and a short output suffices, since every further decode step repeats the same kernels.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.domain.measurement import WarmUp
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.load.client import run_load
from advisor.load.requests import make_load
from advisor.load.run import LoadRun
from advisor.load.target import Target

MIN_ROUNDS, MAX_ROUNDS = 2, 5
AGREEMENT = 0.05  # of the faster of two successive rounds; just-in-time work costs more
WARM_UP_OSL = 32
OPEN_LOOP_WAVE = 64  # at once, where only a rate is given


def warm_up_workload(workload: Workload) -> Workload:
    """One wave of the workload's prompts with outputs of at most 32 tokens, as a closed loop."""
    wave = min(workload.concurrency or OPEN_LOOP_WAVE, workload.requests())
    osl = min(workload.osl, WARM_UP_OSL)
    osl_min = None if workload.osl_min is None else min(workload.osl_min, osl)
    return changed(workload, osl=osl, osl_min=osl_min, concurrency=wave, request_rate_per_s=None, n_requests=wave)


def settled(output_tok_per_s: tuple[float, ...]) -> bool:
    """True when the last two rounds agree."""
    if len(output_tok_per_s) < MIN_ROUNDS:
        return False
    slow, fast = sorted(output_tok_per_s[-2:])
    return fast - slow <= AGREEMENT * fast


def warm_up(
    target: Target,
    workload: Workload,
    runs: range,
    on_round: Callable[[int], None],
    is_dead: Callable[[], bool] = lambda: False,
) -> tuple[WarmUp, LoadRun | None]:
    """Serve rounds until two in a row agree.

    Args:
        target: The server.
        workload: What will be measured.
        runs: Numbers of the rounds on this launch, one each; also the most rounds there may be.
        on_round: Called before each round with its place, from 0.
        is_dead: See `run_load`.

    Returns:
        The rounds, and the run of one in which answers fell short: then there is nothing to warm up for.

    Raises:
        EngineFailed: see `run_load`.
    """
    wave = warm_up_workload(workload)
    rates: tuple[float, ...] = ()
    for place, run in enumerate(runs):
        on_round(place)
        load = make_load(target, wave, n_requests=wave.requests(), seed=run, run=run)
        served = run_load(target, load, lambda partial: False, is_dead=is_dead)
        if served.shortfalls:
            return WarmUp(output_tok_per_s=rates, stable=False), served
        rates = (*rates, float(load.osl.sum()) / served.duration_s)
        if settled(rates):
            return WarmUp(output_tok_per_s=rates, stable=True), None
    return WarmUp(output_tok_per_s=rates, stable=False), None
