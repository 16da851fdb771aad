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
from advisor.domain.objective import Slo
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


RoomOf = Callable[[Deployment], Room]
"""The memory law of one configuration, as a function of the deployment; BadInput where it knows nothing of it."""


def memory_relaxations(
    deployment: Deployment, facts: ModelFacts, gpu: GpuFacts, room_of: RoomOf, short_gib: float, needed_tokens: int
) -> tuple[Relaxation, ...]:
    """The least number of further GPUs, and the largest smaller weights, with which the configuration should fit.

    Args:
        deployment: The one that lacks memory.
        facts: Of its model, for the tensor-parallel sizes that divide it.
        gpu: Of its GPUs, for the precisions that they have kernels for.
        room_of: The memory law. Where it was too hopeful of this deployment, it is taken to be so of others.
        short_gib: GiB that the launch lacked, or the law says that it would; 0 where only the KV pool is too small.
        needed_tokens: KV tokens of the longest request.
    """
    too_hopeful_gib = max(0.0, room_of(deployment).margin_gib + short_gib) if short_gib else 0.0

    def helps(other: Deployment) -> bool:
        try:
            room = room_of(other)
        except BadInput:
            return False
        return room.margin_gib >= too_hopeful_gib and room.kv_tokens >= needed_tokens

    wider = next(filter(helps, with_more_gpus(deployment, facts)), None)
    smaller = next(filter(helps, with_smaller_weights(deployment, gpu)), None)
    found = []
    if wider is not None:
        more = wider.gpus - deployment.gpus
        found.append(Relaxation(kind="gpus", change=f"--tp {wider.tp}", more_gpus=more))
    if smaller is not None:
        found.append(Relaxation(kind="quantization", change=f"--quant {smaller.quantization}"))
    return tuple(found)


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
    limits = [
        changed(limit, limit_ms=rounded_up(limit.limit_ms * (1 + limit.excess(metrics))))
        if limit.excess(metrics) > 0
        else limit
        for limit in slo.limits
    ]
    return Slo(limits=tuple(limits))


def rounded_up(value: float, digits: int = 3) -> float:
    """The least number of so many significant digits that is not below a positive value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    up = math.ceil(value / unit) * unit
    return float(f"{up:.{digits}g}") if float(f"{up:.{digits}g}") >= value else up


def help_text(relaxations: Sequence[Relaxation]) -> str:
    """What would help, in one sentence."""
    if not relaxations:
        return "By the memory law neither more GPUs of this kind nor smaller weights help; a shorter workload might."
    if relaxations[0].kind == "slo":
        return f"It would do with {relaxations[0].change}."
    said = [
        f"{each.change} ({each.more_gpus} more GPU{'s' if each.more_gpus > 1 else ''})"
        if each.more_gpus
        else f"{each.change} (another checkpoint)"
        for each in relaxations
    ]
    return f"By the memory law it fits with {' or '.join(said)}."
