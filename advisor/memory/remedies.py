"""What to change after a failure, by how much, what it frees and what it costs; cheapest first.

Sizes follow the engines' own formulas: the KV pool is a fraction of what is free (of the whole GPU in vLLM), activations
and the allocation that failed grow with the tokens of a step, and one change must cover the shortfall with a margin,
because the allocation that failed first is rarely the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ConfigDict, Field

from advisor.domain.outcome import Phase
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel
from advisor.memory.advice import ADVICE, PROBES, Advice
from advisor.memory.events import Kind, LogEvent

MARGIN = 1.25  # of the first shortfall
FRACTION_STEP = 0.05
LEAST_TOKENS, LEAST_BATCH = 256, 1
SAFE_SHARE = 0.9  # of a GPU that weights and pools together may take

EngineName = Literal["trtllm", "vllm"]
Setting = Literal["fraction", "tokens", "batch", "graphs", "seq", "tp"]

# Neutral name, and where the engine's configuration file has it.
NAMES: Mapping[EngineName, Mapping[Setting, tuple[str, str]]] = {
    "trtllm": {
        "fraction": ("kv_cache_free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction"),
        "tokens": ("max_num_tokens", "max_num_tokens"),
        "batch": ("max_batch_size", "max_batch_size"),
        "graphs": ("cuda_graph_max_batch_size", "cuda_graph_config.max_batch_size"),
        "seq": ("max_seq_len", "max_seq_len"),
        "tp": ("tensor_parallel_size", "tensor_parallel_size"),
    },
    "vllm": {
        "fraction": ("gpu_memory_utilization", "gpu-memory-utilization"),
        "tokens": ("max_num_batched_tokens", "max-num-batched-tokens"),
        "batch": ("max_num_seqs", "max-num-seqs"),
        "graphs": ("max_cudagraph_capture_size", "max-cudagraph-capture-size"),
        "seq": ("max_model_len", "max-model-len"),
        "tp": ("tensor_parallel_size", "tensor-parallel-size"),
    },
}
DEFAULT_FRACTION = 0.9  # of both engines' usual releases


class Remedy(StrictModel):
    """One change. `to` is None where only a direction can be given."""

    model_config = ConfigDict(populate_by_name=True)

    setting: str
    from_: OptionValue | None = Field(default=None, alias="from")
    to: OptionValue | None = None
    frees_gib: float | None = Field(default=None, description="GiB of one GPU, an estimate")
    why: str
    confidence: Literal["high", "medium", "low"]
    yaml_patch: str | None = Field(default=None, description="To merge into the server's configuration file")


@dataclass(frozen=True)
class Known:
    """What is known of settings and GPU: from the log's own lines, a configuration file, or the command line."""

    engine: EngineName | None = None
    version: str | None = None
    settings: Mapping[Setting, float] = field(default_factory=dict)
    capacity_gib: float | None = None
    activations_gib: float | None = None

    def with_facts(self, facts: Mapping[str, LogEvent]) -> Known:
        """Complete what was said with what the log says; what was said wins."""
        names: dict[str, Setting] = {
            "kv_fraction": "fraction",
            "max_num_tokens": "tokens",
            "max_batch_size": "batch",
            "max_seq_len": "seq",
            "tp": "tp",
        }
        logged = {
            setting: value
            for name, setting in names.items()
            if name in facts and (value := facts[name].number(name)) is not None
        }
        version = next((facts[name].values[name] for name in ("version", "engine") if name in facts), None)
        total, activations = facts.get("total"), facts.get("activations")
        is_vllm = any(event.meaning.name.startswith("vllm") for event in facts.values())
        return replace(
            self,
            engine=self.engine or ("vllm" if is_vllm else "trtllm" if facts else None),
            version=self.version or version,
            settings={**logged, **self.settings},
            capacity_gib=self.capacity_gib or (total.size_gib("total") if total else None),
            activations_gib=activations.size_gib("activations") if activations else self.activations_gib,
        )


@dataclass(frozen=True)
class Symptom:
    """What a remedy is for."""

    kind: Kind
    stage: Phase | None
    detail: str = ""
    component: str | None = None
    advice: str = ""
    cause: LogEvent | None = None
    tried_gib: float | None = None
    free_gib: float | None = None
    total_gib: float | None = None
    shared_gpu: bool = False
    free_before_pool_gib: float | None = None

    @property
    def missing_gib(self) -> float | None:
        """Tried minus free, where both are known."""
        if self.tried_gib is None or self.free_gib is None:
            return None
        return max(0.0, self.tried_gib - self.free_gib)


def remedies(symptom: Symptom, known: Known) -> tuple[Remedy, ...]:
    """Remedies for a symptom, cheapest first; what cannot be changed any further is left out."""
    found = [] if not symptom.shared_gpu else [_advised(ADVICE["one_gpu_a_rank"], symptom)]
    found += [_advised(each, symptom) for each in ADVICE.get(symptom.advice, ())] if symptom.advice in ADVICE else []
    for maker in _MAKERS.get((symptom.kind, _variant(symptom)), ()):
        made = maker(symptom, known)
        if made is not None:
            found.append(made)
    return tuple(found)


def next_probe(symptom: Symptom) -> str | None:
    """What to look at next where the log does not settle it."""
    return PROBES.get(symptom.advice)
