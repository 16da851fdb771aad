"""The smallest change that would make an infeasible study feasible: a looser limit, more GPUs, smaller weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from advisor.domain.deployment import (
    LEAST_CAPABILITY,
    Deployment,
    GpuFacts,
    ModelFacts,
    Quantization,
    divisors,
)
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics
from advisor.domain.objective import Slo, SloLimit, latency_ms
from advisor.domain.strict import StrictModel, changed

MOST_TP = 64
SMALLER: dict[Quantization, tuple[Quantization, ...]] = {
    "bf16": ("fp8", "nvfp4"),
    "fp8": ("nvfp4",),
    "fp8_block": ("nvfp4",),
}
"""Weights of fewer bytes, the nearest first; each is another checkpoint."""


class Relaxation(StrictModel):
    """One change that would help, by itself."""

    kind: Literal["slo", "gpus", "quantization"]
    change: str = Field(description="As on the command line")
    more_gpus: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Room:
    """What the memory law leaves one configuration: GiB at the tightest moment, and tokens of the KV pool."""

    margin_gib: float
    kv_tokens: int


RoomsOf = Callable[[Deployment], Sequence[Room]]
"""The memory law of some configurations, as a function of the deployment; BadInput where it knows nothing of it."""


def memory_relaxations(
    deployment: Deployment,
    facts: ModelFacts,
    gpu: GpuFacts,
    rooms_of: RoomsOf,
    too_hopeful_gib: float,
    needed_tokens: int,
) -> tuple[Relaxation, ...]:
    """The least number of further GPUs, and the largest smaller weights, with which a configuration should fit.

    Args:
        deployment: The one that lacks memory.
        facts: Of its model, for the tensor-parallel sizes that divide it.
        gpu: Of its GPUs, for the precisions that they have kernels for.
        rooms_of: The memory law of the configurations that may be taken there; one that fits is enough.
        too_hopeful_gib: How far the law was too hopeful of this deployment, and so is taken to be of others.
        needed_tokens: KV tokens of the longest request.
    """

    def helps(other: Deployment) -> bool:
        try:
            rooms = rooms_of(other)
        except BadInput:
            return False
        return any(room.margin_gib >= too_hopeful_gib and room.kv_tokens >= needed_tokens for room in rooms)

    wider = next(filter(helps, with_more_gpus(deployment, facts)), None)
    smaller = next(filter(helps, with_smaller_weights(deployment, gpu)), None)
    found = []
    if wider is not None:
        more = wider.gpus - deployment.gpus
        found.append(Relaxation(kind="gpus", change=f"--tp {wider.tp}", more_gpus=more))
    if smaller is not None:
        found.append(Relaxation(kind="quantization", change=f"--quant {smaller.quantization}"))
    return tuple(found)


def gpus_for_slo(
    deployment: Deployment,
    facts: ModelFacts,
    slo: Slo,
    came_to: Metrics,
    predict: Callable[[Deployment], Metrics | None],
) -> tuple[Relaxation, ...]:
    """The least number of further GPUs with which a configuration should keep every limit; empty where none does.

    Args:
        deployment: The one that is too slow.
        facts: Of its model.
        slo: The limits.
        came_to: What the configuration came to there.
        predict: What the twin says of it, by deployment. Only ratios of predictions are used: its level may be off.
    """
    here = predict(deployment)
    if here is None:
        return ()

    def keeps(limit: SloLimit, there: Metrics) -> bool:
        value, before, after = (latency_ms(each, limit.latency, limit.statistic) for each in (came_to, here, there))
        return value is None or before is None or after is None or value * after / before <= limit.limit_ms

    for other in with_more_gpus(deployment, facts):
        there = predict(other)
        if there is not None and all(keeps(limit, there) for limit in slo.limits):
            return (Relaxation(kind="gpus", change=f"--tp {other.tp}", more_gpus=other.gpus - deployment.gpus),)
    return ()


def with_more_gpus(deployment: Deployment, facts: ModelFacts) -> Iterator[Deployment]:
    """The deployment at each larger tensor-parallel size that the model can be cut into, ascending."""
    for tp in divisors(facts.num_heads):
        if not deployment.tp < tp <= MOST_TP:
            continue
        other = changed(deployment, tp=tp, gpus=tp * deployment.pp, ep=deployment.ep_at(tp))
        try:
            other.check_model(facts)
        except BadInput:
            continue
        yield other


def with_smaller_weights(deployment: Deployment, gpu: GpuFacts) -> Iterator[Deployment]:
    """The deployment with each smaller quantization that the GPU has kernels for."""
    for quantization in SMALLER.get(deployment.quantization, ()):
        if gpu.compute_capability >= LEAST_CAPABILITY[quantization]:
            yield changed(deployment, quantization=quantization)


def loosened(slo: Slo, metrics: Metrics) -> Slo:
    """The limits with each broken one at what these metrics would keep, rounded up to three digits."""
    return Slo(limits=tuple(_loosened(limit, metrics) for limit in slo.limits))


def _loosened(limit: SloLimit, metrics: Metrics) -> SloLimit:
    value_ms = latency_ms(metrics, limit.latency, limit.statistic)
    if value_ms is None or value_ms <= limit.limit_ms:
        return limit
    return changed(limit, limit_ms=rounded_up(value_ms))


def rounded_up(value: float, digits: int = 3) -> float:
    """The least number of so many significant digits that is not below a positive value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    up = math.ceil(value / unit) * unit
    return float(f"{up:.{digits}g}") if float(f"{up:.{digits}g}") >= value else up


def help_text(relaxations: Sequence[Relaxation]) -> str:
    """What would help, in one sentence or two."""
    if not relaxations:
        return "By the memory law neither more GPUs of this kind nor smaller weights help; a shorter workload might."
    first, *others = relaxations
    if first.kind == "slo":
        expected = f" The twin expects {_said(others[0])} to keep the limits as they are." if others else ""
        return f"It would do with {first.change}.{expected}"
    return f"By the memory law it fits with {' or '.join(map(_said, relaxations))}."


def _said(relaxation: Relaxation) -> str:
    if not relaxation.more_gpus:
        return f"{relaxation.change} (another checkpoint)"
    return f"{relaxation.change} ({relaxation.more_gpus} more GPU{'s' if relaxation.more_gpus > 1 else ''})"
