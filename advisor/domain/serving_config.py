"""What a trial varies: the four settings in neutral names, and any further dimension of the space."""

from __future__ import annotations

import hashlib
import json
from typing import TypeAlias

from pydantic import Field

from advisor.domain.strict import StrictModel

OptionValue: TypeAlias = bool | int | float | str

FOUR_SETTINGS = (
    "max_batch_size",
    "max_num_tokens",
    "cuda_graph_max_batch_size",
    "kv_cache_free_gpu_memory_fraction",
)

MOST_REQUESTS, MOST_TOKENS = 2**20, 2**24  # of one step; no server is near, and lists of graph sizes stay short


class ServingConfig(StrictModel):
    """The four settings, plus options.

    Under attention DP `max_batch_size`, `max_num_tokens` and the graph sizes are per rank.
    `cuda_graph_max_batch_size` 0 means that CUDA graphs are off.
    """

    max_batch_size: int = Field(ge=1, le=MOST_REQUESTS)
    max_num_tokens: int = Field(ge=1, le=MOST_TOKENS)
    cuda_graph_max_batch_size: int = Field(ge=0, le=MOST_REQUESTS)
    kv_cache_free_gpu_memory_fraction: float = Field(gt=0, lt=1)
    options: dict[str, OptionValue] = Field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """Canonical text: equal configurations have equal keys."""
        return json.dumps(self.flat(), sort_keys=True)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that name this configuration."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:8]

    def flat(self) -> dict[str, OptionValue]:
        """Settings and options in one mapping, in their usual order."""
        return {**{name: getattr(self, name) for name in FOUR_SETTINGS}, **self.options}


def config_from_flat(values: dict[str, OptionValue]) -> ServingConfig:
    """The inverse of `ServingConfig.flat`; what is not one of the four is an option."""
    options = {name: value for name, value in values.items() if name not in FOUR_SETTINGS}
    return ServingConfig.model_validate({**{name: values[name] for name in FOUR_SETTINGS}, "options": options})
