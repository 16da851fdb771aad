"""What each setting of one server costs in GiB and KV tokens: the memory law with this server's own figures in it.

Facts of a log beat predictions: weights, activation peak, KV bytes per token and what stays outside PyTorch enter the
law's terms as profiled. Only differences between settings are taken from it, so what the log does not tell of the
failure need not be known either. What launches taught about the law's constants comes with the frontier, which also
says how sure a price is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from advisor.domain.measurement import ProfiledMemory
from advisor.domain.strict import StrictModel
from advisor.memory.constants import MemoryConstants
from advisor.memory.frontier import PRIOR, Array, Frontier, Law, Quantity, shifted
from advisor.memory.law import MemoryBudget, graphs_gib, memory_budget
from advisor.memory.profiled import beside_torch
from advisor.memory.terms import MemoryLoad, MemorySettings, MemoryTerms

Setting = Literal["fraction", "tokens", "batch", "graphs", "seq", "tp"]
Captured = Callable[[int, int, int], Collection[int]]
"""(largest graph asked for, max_batch_size, max_num_tokens) -> batch sizes that get a graph."""


class Price(StrictModel):
    """What one step of a setting is worth, one GPU."""

    setting: str
    step: str
    gib: float = Field(description="GiB of one GPU that the step takes: of the KV pool, else of everything beside it")
    gib_sd: float = Field(ge=0, description="Standard deviation of it, after all launches that are known")
    kv_tokens: int = Field(description="KV tokens that the step gives; below zero what it costs")
    kv_tokens_sd: int = Field(ge=0, description="Standard deviation of it")


class Step(NamedTuple):
    """One step of a setting: from `below` up to its present value, in words."""

    setting: Setting
    below: float
    words: str


@dataclass(frozen=True)
class Pricing:
    """The memory law of one server.

    Attributes:
        terms: Of its deployment, with the log's figures where it has them.
        constants: Of the law, nominal.
        settings: `fraction`, `tokens`, `batch` and `graphs` as they are.
        captured: The release's ladder of graph sizes.
        tokens_per_block: Of the KV cache.
        load: What the workload asks of one rank at most; None = a full batch.
        frontier: What launches taught about the constants.
    """

    terms: MemoryTerms
    constants: MemoryConstants
    settings: Mapping[Setting, float]
    captured: Captured
    tokens_per_block: int = 32
    load: MemoryLoad | None = None
    frontier: Frontier = PRIOR

    def budget(self, changes: Mapping[Setting, float] | None = None) -> MemoryBudget:
        """The law with some settings changed."""
        return self.law(changes)(self.frontier.constants(self.constants))

    def law(self, changes: Mapping[Setting, float] | None = None) -> Law:
        """The same as a function of its constants, whatever launches taught."""
        values = {**self.settings, **(changes or {})}
        sizes = self.captured(int(values["graphs"]), int(values["batch"]), int(values["tokens"]))
        settings = MemorySettings(
            max_batch_size=values["batch"],
            max_num_tokens=values["tokens"],
            kv_fraction=values["fraction"],
            n_graphs=len(sizes),
            largest_graph=max(sizes, default=0),
            tokens_per_block=self.tokens_per_block,
        )
        return functools.partial(memory_budget, self.terms, settings, load=self.load)

    def frees_gib(self, stage: int, changes: Mapping[Setting, float]) -> float:
        """GiB that the changes add to the margin of a stage, an index into `law.STAGES`."""
        return float(self.budget(changes).margin_gib[stage] - self.budget().margin_gib[stage])

    def kv_tokens(self, changes: Mapping[Setting, float] | None = None) -> int:
        """KV tokens of the pool with some settings changed."""
        return int(self.budget(changes).kv_tokens)

    def steps(self) -> Iterator[Step]:
        """A step down of every setting that has one left."""
        now = self.settings
        if now["fraction"] > 0.01:
            yield Step("fraction", now["fraction"] - 0.01, "0.01")
        if now["tokens"] > 1024:
            yield Step("tokens", now["tokens"] - 1024, "1,024 tokens")
        sizes = sorted(self.captured(int(now["graphs"]), int(now["batch"]), int(now["tokens"])))
        if sizes:
            below = sizes[-2] if len(sizes) > 1 else 0
            yield Step("graphs", below, f"the largest size, {below:,} to {sizes[-1]:,}")
        if now["batch"] > 1 and self.terms.vocab_size:  # without it nobody knows what a row of logits takes
            below = 2 ** (math.ceil(math.log2(now["batch"])) - 1)
            yield Step("batch", below, f"{below:,} to {int(now['batch']):,} requests")

    def prices(self, name_of: Callable[[Setting], str]) -> tuple[Price, ...]:
        """What a step of each setting takes and gives, spelled as told."""
        return tuple(self.price(step, name_of(step.setting)) for step in self.steps())

    def price(self, step: Step, name: str) -> Price:
        """What a step takes and gives."""
        after, before = (shifted(self.law(changes), self.constants) for changes in (None, {step.setting: step.below}))

        def more(quantity: Quantity) -> tuple[float, float]:
            (at, J), (at_below, J_below) = after.slopes(quantity), before.slopes(quantity)
            mean, sd = self.frontier.expected(J - J_below, at - at_below)
            return float(mean), float(sd)

        gib_taken, gib_sd = more(_pool_gib if step.setting == "fraction" else _beside_pool_gib)
        kv_tokens, kv_tokens_sd = more(_kv_tokens)
        return Price(
            setting=name,
            step=step.words,
            gib=round(gib_taken, 4),
            gib_sd=round(gib_sd, 4),
            kv_tokens=round(kv_tokens),
            kv_tokens_sd=round(kv_tokens_sd),
        )


def _pool_gib(budget: MemoryBudget) -> Array:
    return budget.kv_pool_gib


def _beside_pool_gib(budget: MemoryBudget) -> Array:
    return budget.beside_pool_gib


def _kv_tokens(budget: MemoryBudget) -> Array:
    return budget.kv_tokens.astype(np.float64)


def terms_of(
    profiled: ProfiledMemory,
    settings: Mapping[Setting, float],
    captured: Captured,
    constants: MemoryConstants,
    predicted: MemoryTerms | None = None,
    capacity_gib: float | None = None,
) -> MemoryTerms | None:
    """The law's terms for one server: as its log profiled them, else as predicted; None where one is neither.

    Args:
        profiled: As far as the log came.
        settings: `tokens`, `batch` and `graphs` of the launch that was profiled.
        captured: The release's ladder of graph sizes.
        constants: Of the law.
        predicted: For the deployment, where it is known.
        capacity_gib: Of the GPU, where the log does not say it.
    """
    stays, runtime = beside_torch(profiled), None
    if stays is not None:
        sizes = captured(int(settings["graphs"]), int(settings["batch"]), int(settings["tokens"]))
        graphs = float(graphs_gib(len(sizes), max(sizes, default=0), constants))
        runtime = max(0.0, stays - graphs) / constants.runtime_factor + constants.graphs_in_runtime_gib
    per_token = None if profiled.activations is None else profiled.activations / settings["tokens"]
    own = {
        "weights_gib": _over(profiled.weights, constants.weights_factor),
        "activations_gib_per_token": _over(per_token, constants.activations_factor),
        "activations_floor_gib": None if per_token is None else 0.0,
        "runtime_gib": runtime,
        "comm_gib": None if stays is None else 0.0,
        "kv_bytes_per_token": profiled.kv_bytes_per_token,
        "capacity_gib": profiled.total or capacity_gib,
    }
    said: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if predicted is not None:
        return replace(predicted, **said)
    return MemoryTerms(**said) if len(said) == len(own) else None


def profiled_constants(profiled: ProfiledMemory) -> tuple[str, ...]:
    """Constants of the law that `terms_of` takes from a log: nothing about them is in doubt."""
    said = {
        "weights_factor": profiled.weights,
        "activations_factor": profiled.activations,
        "runtime_factor": beside_torch(profiled),
    }
    return tuple(name for name, value in said.items() if value is not None)


def _over(value: float | None, factor: float) -> float | None:
    return None if value is None else value / factor
