"""What is known of a server besides its failure: settings and how its files spell them, the GPU, the memory law."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from advisor.domain.serving_config import OptionValue
from advisor.memory.events import LogEvent
from advisor.memory.pricing import Pricing, Setting

EngineName = Literal["trtllm", "vllm"]


class Spelling(NamedTuple):
    """A setting's neutral name, its place in the configuration file and its flag; None where it cannot be said so."""

    name: str
    path: str | None
    flag: str | None


SPELLINGS: Mapping[EngineName, Mapping[Setting, Spelling]] = {
    "trtllm": {
        "fraction": Spelling(
            "kv_cache_free_gpu_memory_fraction",
            "kv_cache_config.free_gpu_memory_fraction",
            "--kv_cache_free_gpu_memory_fraction",
        ),
        "tokens": Spelling("max_num_tokens", "max_num_tokens", "--max_num_tokens"),
        "batch": Spelling("max_batch_size", "max_batch_size", "--max_batch_size"),
        "graphs": Spelling("cuda_graph_max_batch_size", "cuda_graph_config.max_batch_size", None),
        "seq": Spelling("max_seq_len", "max_seq_len", "--max_seq_len"),
        "tp": Spelling("tensor_parallel_size", "tensor_parallel_size", "--tp_size"),
    },
    "vllm": {
        "fraction": Spelling("gpu_memory_utilization", "gpu-memory-utilization", "--gpu-memory-utilization"),
        "tokens": Spelling("max_num_batched_tokens", "max-num-batched-tokens", "--max-num-batched-tokens"),
        "batch": Spelling("max_num_seqs", "max-num-seqs", "--max-num-seqs"),
        "graphs": Spelling("max_cudagraph_capture_size", "max-cudagraph-capture-size", "--max-cudagraph-capture-size"),
        "seq": Spelling("max_model_len", "max-model-len", "--max-model-len"),
        "tp": Spelling("tensor_parallel_size", "tensor-parallel-size", "--tensor-parallel-size"),
    },
}
GRAPHS_OFF: Mapping[str, OptionValue | None] = {"cuda_graph_config": None}

Throughput = Callable[[Mapping[Setting, float]], float | None]
"""Changed settings -> output tok/s over those of the settings as they are; None where the twin cannot say."""


@dataclass(frozen=True)
class Known:
    """From the log's own lines, a configuration file, or the command line.

    Attributes:
        engine: Whose log it is.
        version: Its release.
        settings: As the server has them.
        capacity_gib: Of one GPU.
        activations_gib: Peak of a step, as profiled.
        kv_bytes: Size of the KV pool where it was given outright, so that the fraction decides nothing.
        spellings: How the files of the release spell the settings; none for the newest.
        graphs_off: Entries of its configuration file that switch CUDA graphs off.
        pricing: The memory law of this server, where enough is known for it.
        throughput: What changes cost in output tok/s, where a workload is known; an estimate of the twin.
        calibration: Launches that taught the memory law, in words.
    """

    engine: EngineName | None = None
    version: str | None = None
    settings: Mapping[Setting, float] = field(default_factory=dict)
    capacity_gib: float | None = None
    activations_gib: float | None = None
    kv_bytes: float | None = None
    spellings: Mapping[Setting, Spelling] | None = None
    graphs_off: Mapping[str, OptionValue | None] = field(default_factory=lambda: GRAPHS_OFF)
    pricing: Pricing | None = None
    throughput: Throughput | None = None
    calibration: str = "none"

    def spelling(self, setting: Setting) -> Spelling:
        """How the server's own release spells a setting."""
        return (self.spellings or SPELLINGS[self.engine or "trtllm"])[setting]

    def with_facts(self, facts: Mapping[str, LogEvent]) -> Known:
        """Complete what was said with what the log says.

        The log tells what the server really used, but its `max_seq_len` may be that of the first pass.
        """
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
        said_better = {"seq"} & set(self.settings)
        version = next((facts[name].values[name] for name in ("version", "engine") if name in facts), None)
        total, activations, given = facts.get("total"), facts.get("activations"), facts.get("kv_bytes_given")
        is_vllm = any(event.meaning.name.startswith("vllm") for event in facts.values())
        return replace(
            self,
            engine=self.engine or ("vllm" if is_vllm else "trtllm" if facts else None),
            version=self.version or version,
            settings={**self.settings, **{name: value for name, value in logged.items() if name not in said_better}},
            capacity_gib=self.capacity_gib or (total.size_gib("total") if total else None),
            activations_gib=activations.size_gib("activations") if activations else self.activations_gib,
            kv_bytes=given.number("kv_bytes_given") if given else self.kv_bytes,
        )


def yaml_text(entries: Mapping[str, OptionValue | None]) -> str:
    """Dotted paths and their plain values as YAML to merge; entries below one key stand together."""
    document: dict[str, object] = {}
    for path, value in entries.items():
        *above, last = path.split(".")
        inner = document
        for part in above:
            below = inner.setdefault(part, {})
            if not isinstance(below, dict):
                raise ValueError(f"{path} stands below a value")
            inner = below
        inner[last] = value
    return "".join(f"{line}\n" for line in _yaml_lines(document, ""))


def _yaml_lines(document: Mapping[str, object], indent: str) -> list[str]:
    lines = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *_yaml_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_yaml_word(value)}")
    return lines


def _yaml_word(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
