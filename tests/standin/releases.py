"""What differs between the releases that the stand-in plays, as data: one row a release.

An independent reading of the outside contract of `trtllm-serve`. It must not import `advisor.engines.trtllm`: the
dialects would be tested against themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MARK = "+standin"
"""Carried by every version this equipment reports, so that no number of it passes as measured on TensorRT-LLM."""


@dataclass(frozen=True)
class Release:
    """One row; `key` names the schema file."""

    key: str
    number: str
    """As the program prints it, less the mark."""
    ladder: Literal["floor", "ceil"]
    """How log2 of the largest CUDA graph is rounded when its ladder is built."""
    graphs: Literal["nested", "flat", "object"]
    """Where the graph keys stand: under `pytorch_backend_config`, at top level, or in `cuda_graph_config` (on)."""
    needs_backend: bool
    """Without `--backend pytorch` this release takes the C++ path."""
    sizes: Literal["build_config", "patched", "plain"]
    """Whence the size limits: `build_config` alone; it, patched by top-level keys; or the merged top-level keys."""
    merges_kv: bool
    """A partial `kv_cache_config` is merged with the command line's fraction instead of replacing it."""
    friendly_names: bool
    """The memory report lists components by their friendly names."""
    first_kv_name: str
    graph_line: str
    estimate_in_tokens: bool
    binds_first: bool
    """The port is bound before the model is loaded."""
    checks_prompt: bool
    """A prompt above `max_num_tokens` without chunked prefill is answered with 400; else it is never scheduled."""
    refuses_long_prompt: bool
    """A prompt that leaves no room for an output is refused with the deduced numbers; else the C++ assertion is."""
    dies_with_loop: bool
    """The process ends when its executor loop does; else it stays, answering /health."""
    tells_decoding: bool = False
    """Choices of `/v1/completions` and results of the benchmark say how many tokens an iteration made."""
    keeps_ids: bool = False
    """All events of a stream have one id; else each has its own."""
    skips_graphs: bool = False
    """Capture goes on with smaller batches when one has no room in the KV pool; else it ends there, silently."""

    @property
    def version(self) -> str:
        """As reported everywhere."""
        return f"{self.number}{MARK}"

    @property
    def product(self) -> str:
        """How the memory report calls the program."""
        return "TensorRT-LLM" if self.friendly_names else "TensorRT LLM"


_OLD_KV = "Initial KV cache (temporary for KV cache size estimation)"
_NEW_KV = "Initial KV Cache (temporary for KV cache size estimation)"
_OLD_GRAPH = "Run warmup for batch size={size}"
_GRAPH = "Run generation only CUDA graph warmup for batch size={size}, draft_len=0"
_NEW_GRAPH = "Run generation-only CUDA graph warmup for batch size={size}, draft_len=0"
_LONG_GRAPH = _NEW_GRAPH + ", max_seq_len={max_seq_len}"

RELEASES: dict[str, Release] = {
    row.key: row
    for row in (
        Release(
            "0.20.0", "0.20.0", "floor", "nested", True, "build_config", False, True, _OLD_KV, _OLD_GRAPH, True,
            binds_first=False, checks_prompt=False, refuses_long_prompt=False, dies_with_loop=False,
        ),
        Release(
            "0.21.0", "0.21.0", "floor", "flat", True, "build_config", False, True, _OLD_KV, _OLD_GRAPH, True,
            binds_first=False, checks_prompt=True, refuses_long_prompt=False, dies_with_loop=False,
        ),
        Release(
            "1.0.0", "1.0.0", "floor", "object", False, "build_config", False, True, _OLD_KV, _GRAPH, True,
            binds_first=False, checks_prompt=True, refuses_long_prompt=False, dies_with_loop=False,
        ),
        Release(
            "1.1.0", "1.1.0", "ceil", "object", False, "patched", False, True, _NEW_KV, _GRAPH, False,
            binds_first=False, checks_prompt=True, refuses_long_prompt=False, dies_with_loop=False,
        ),
        Release(
            "1.2.0", "1.2.0", "ceil", "object", False, "plain", True, False, _NEW_KV, _NEW_GRAPH, False,
            binds_first=True, checks_prompt=True, refuses_long_prompt=True, dies_with_loop=False, tells_decoding=True,
        ),
        Release(
            "1.3.0rc", "1.3.0rc1", "ceil", "object", False, "plain", True, False, _NEW_KV, _LONG_GRAPH, False,
            binds_first=True, checks_prompt=True, refuses_long_prompt=True, dies_with_loop=True, tells_decoding=True,
            keeps_ids=True, skips_graphs=True,
        ),
    )
}  # fmt: skip


def released(version: str) -> Release:
    """The row of a version as this equipment reports it."""
    return next(row for row in RELEASES.values() if row.version == version)
