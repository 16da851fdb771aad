"""What each setting of one server costs in GiB and KV tokens: the memory law with this server's own figures in it.

Facts of a log beat predictions: weights, activation peak, KV bytes per token and what stays outside PyTorch enter the
law's terms as profiled. Only differences between settings are taken from it, so what the log does not tell of the
failure need not be known either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from advisor.domain.measurement import ProfiledMemory
from advisor.domain.strict import StrictModel
from advisor.memory.constants import MemoryConstants
from advisor.memory.law import MemoryBudget, MemoryLoad, MemorySettings, MemoryTerms, graphs_gib, memory_budget
from advisor.memory.profiled import beside_torch

Setting = Literal["fraction", "tokens", "batch", "graphs", "seq", "tp"]
Captured = Callable[[int, int, int], Collection[int]]
"""(largest graph asked for, max_batch_size, max_num_tokens) -> batch sizes that get a graph."""


class Price(StrictModel):
    """What one step of a setting is worth, one GPU."""

    setting: str
    step: str
    gib: float = Field(description="GiB of one GPU that the step takes: of the KV pool, else of everything beside it")
    kv_tokens: int = Field(description="KV tokens that the step gives; below zero what it costs")


@dataclass(frozen=True)
class Pricing:
    """The memory law of one server.

    Attributes:
        terms: Of its deployment, with the log's figures where it has them.
        constants: Of the law.
        settings: `fraction`, `tokens`, `batch` and `graphs` as they are.
        captured: The release's ladder of graph sizes.
        tokens_per_block: Of the KV cache.
        load: What the workload asks of one rank at most; None = a full batch.
    """

    terms: MemoryTerms
    constants: MemoryConstants
    settings: Mapping[Setting, float]
    captured: Captured
    tokens_per_block: int = 32
    load: MemoryLoad | None = None

    def budget(self, changes: Mapping[Setting, float] | None = None) -> MemoryBudget:
        """The law with some settings changed."""
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
        return memory_budget(self.terms, settings, self.constants, self.load)

    def frees_gib(self, stage: int, changes: Mapping[Setting, float]) -> float:
        """GiB that the changes add to the margin of a stage, an index into `law.STAGES`."""
        return float(self.budget(changes).margin_gib[stage] - self.budget().margin_gib[stage])

    def kv_tokens(self, changes: Mapping[Setting, float] | None = None) -> int:
        """KV tokens of the pool with some settings changed."""
        return int(self.budget(changes).kv_tokens)

    def price(self, setting: Setting, down_to: float, name: str, step: str) -> Price:
        """What the step from `down_to` up to the present value takes and gives."""
        now, below = self.budget(), self.budget({setting: down_to})
        taken = [
            float(
                each.kv_pool_gib
                if setting == "fraction"
                else each.activations_gib + each.graphs_gib + each.logits_gib + each.fragmentation_gib
            )
            for each in (now, below)
        ]
        return Price(
            setting=name,
            step=step,
            gib=round(taken[0] - taken[1], 4),
            kv_tokens=int(now.kv_tokens) - int(below.kv_tokens),
        )


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


def _over(value: float | None, factor: float) -> float | None:
    return None if value is None else value / factor
