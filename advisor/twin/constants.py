"""Every constant of the twin that is assumed or fitted rather than read from a table, in one place.

`assumed` = nobody measured it for this purpose; `fitted` = chosen on the published rows named.
`KNOWN_ERROR` states how wrong each may be: one standard deviation, relative for factors and sizes (drawn log-normally)
and absolute for tilts. `worlds.py` draws within it; nothing that proposes, admits or estimates may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from advisor.domain.outcome import Phase
from advisor.memory.constants import CACHED_ERROR, MEMORY_ERROR, MemoryConstants
from advisor.twin.http_process import HttpCosts


@dataclass(frozen=True)
class TwinConstants(MemoryConstants):
    """Nominal values; times in ms. The memory law's constants come with it: `advisor/memory/constants.py`."""

    # Step times: multipliers on the measured kernel tables. The tables meet published TPOT within 5-8 % (dense models).
    dense_factor: float = 1.0
    moe_factor: float = 1.0
    attention_factor: float = 1.0
    prefill_factor: float = 1.0
    # Smooth error over batch size: decode times are multiplied by (batch / 64) ** decode_tilt.
    decode_tilt: float = 0.0
    # Fitted on Llama-3.1-70B FP4 rows (B200; TPOT error 20 % without, 3 % with, 3 % on left-out layouts): NVFP4 GEMMs
    # of few rows run faster in the engine than the kernel tables say.
    # Decode GEMM times are divided by exp(gain x (1 - log2(batch) / log2(rows))) below `rows`.
    nvfp4_small_batch_gain: float = 0.4
    nvfp4_small_batch_rows: float = 1024.0
    # Above 128 tokens of all ranks the NVFP4 expert tables change to a kernel that takes twice as long; published
    # DeepSeek rows show no such jump. Decode experts go on growing as tokens ** growth, as the tables do from 64 to 128
    # (0.2-0.35). TPOT error of DeepSeek FP4 falls from 19 % to 11 %, also on left-out layouts.
    nvfp4_experts_growth: float = 0.3

    # Host side of one step. Base fitted on TensorRT-LLM 1.0 rows of Llama-3.1-8B on H100.
    host_base_ms: float = 3.0
    # Assumed. With the streaming cost below 0.012 ms per running request at stream_interval 1; newer releases publish
    # rates that need <= 0.015. (0.04 fits the 1.0 rows up to batch 128 and must not be extrapolated.)
    host_per_seq_ms: float = 0.008
    # Assumed: detokenizing and queueing one streamed chunk; paid once every stream_interval tokens of a request.
    stream_per_chunk_ms: float = 0.004
    # Fitted, of vLLM's HTTP process (`twin/http_process.py`), on 87 benchmarks of vLLM 0.24.0 with Llama-3.1-8B on
    # H100s and H200s (docs/decisions/http-process.md): the tokens of a step cost it a fixed time, each of them little.
    http_per_chunk_ms: float = 0.05
    http_per_token_ms: float = 0.02
    http_per_request_ms: float = 0.35
    http_per_step_ms: float = 20.0
    # Assumed: half of that at 16 streams. Two show none of it (TPOT 6.5 ms, measured), 64 nearly all.
    http_step_half_at: float = 16.0
    # Fitted on the same: times of such a step that a request needs to get to the engine while streams run.
    http_request_turns: float = 18.0
    # Fitted on the same, of vLLM: what a step with prompts takes beside its kernels, since no graph replays it. Steps
    # of 1,024 and 2,048 tokens show it; TensorRT-LLM's lies within the host's time.
    prompt_step_ms: float = 4.0
    # Assumed: CPU launch time of one layer in a step that is not replayed from a CUDA graph (0.2 fits best, weakly).
    eager_ms_per_layer: float = 0.2
    # Fitted on the 87 benchmarks of vLLM, and seen: decode steps whose batch no graph holds take 17 to 32 ms whatever
    # their kernels (docs/decisions/http-process.md).
    vllm_eager_ms_per_layer: float = 0.85
    # Assumed: HTTP, tokenizer, detokenizer and one overlapped step.
    ttft_fixed_ms: float = 20.0

    def host_per_running_ms(self, stream_interval: int, own_http_process: bool) -> float:
        """Host time of a step for each running request; streaming is part of it unless a process of its own does it."""
        return self.host_per_seq_ms + (0.0 if own_http_process else self.stream_per_chunk_ms / stream_interval)

    def eager_layer_ms(self, own_http_process: bool) -> float:
        """Least time of one layer in a step that no graph replays; vLLM launches it from Python."""
        return self.vllm_eager_ms_per_layer if own_http_process else self.eager_ms_per_layer

    def beside_kernels_ms(self, own_http_process: bool) -> float:
        """What a step with prompts takes beside its kernels; of vLLM, which has an HTTP process of its own."""
        return self.prompt_step_ms if own_http_process else 0.0

    def http_costs(self, stream_interval: int) -> HttpCosts:
        """What the HTTP process has to do."""
        return HttpCosts(
            request_ms=self.http_per_request_ms,
            token_ms=self.http_per_token_ms + self.http_per_chunk_ms / stream_interval,
            step_ms=self.http_per_step_ms,
            half_at=self.http_step_half_at,
            request_turns=self.http_request_turns,
        )


NOMINAL = TwinConstants()

KNOWN_ERROR: dict[str, float] = {
    "dense_factor": 0.08,
    "moe_factor": 0.10,
    "attention_factor": 0.08,
    "prefill_factor": 0.10,
    "decode_tilt": 0.03,
    "nvfp4_small_batch_gain": 0.25,
    "nvfp4_small_batch_rows": 0.25,
    "nvfp4_experts_growth": 0.3,
    "host_base_ms": 0.15,
    "host_per_seq_ms": 0.30,
    "stream_per_chunk_ms": 0.30,
    "eager_ms_per_layer": 0.20,
    "ttft_fixed_ms": 0.25,
    **{name: sigma for name, sigma in MEMORY_ERROR.items() if name != "compiling_factor"},
    # Last, so that the worlds drawn before these were known stay as they are.
    "http_per_chunk_ms": 0.30,
    "http_per_token_ms": 0.30,
    "http_per_request_ms": 0.50,
    **{name: sigma for name, sigma in CACHED_ERROR.items() if name != "cached_attention_factor"},
    "http_per_step_ms": 0.15,
    "http_step_half_at": 0.5,
    "compiling_factor": MEMORY_ERROR["compiling_factor"],
    "prompt_step_ms": 0.30,
    "vllm_eager_ms_per_layer": 0.20,
    "http_request_turns": 0.30,
    "cached_attention_factor": CACHED_ERROR["cached_attention_factor"],
}

ABSOLUTE_ERROR = frozenset({"decode_tilt"})
"""Fields of `KNOWN_ERROR` whose spread is absolute (drawn normally around the nominal value)."""

TIME_ERROR = {name: sigma for name, sigma in KNOWN_ERROR.items() if name not in {**MEMORY_ERROR, **CACHED_ERROR}}


def off_by(constants: TwinConstants, deviates: Mapping[str, float]) -> TwinConstants:
    """Constants with some of them off by so many standard deviations of `KNOWN_ERROR`."""

    def moved(name: str, deviate: float) -> float:
        at, shift = getattr(constants, name), deviate * KNOWN_ERROR[name]
        return float(at + shift if name in ABSOLUTE_ERROR else at * np.exp(shift))

    return replace(constants, **{name: moved(name, deviate) for name, deviate in deviates.items()})


MEASUREMENT_NOISE = 0.01
"""Relative standard deviation between repeats of one benchmark; repeated published cells agree within 1 %."""


@dataclass(frozen=True)
class StartupSeconds:
    """Virtual seconds that the phases of a start take: they shape the budget of a study, never a metric.

    Assumed from published start logs of 8B to 120B models, rounded; real starts take two to ten minutes.
    """

    launch_s: float = 25.0  # imports, MPI workers, NCCL
    load_per_gib_s: float = 1.5  # reading, converting and copying weights of one GPU
    kv_estimate_s: float = 20.0  # autotuner and profiling forward
    kv_allocate_s: float = 2.0
    graph_capture_s: float = 0.6  # one captured size, in each of the two passes
    warm_up_s: float = 15.0

    def seconds(self, phase: Phase, weights_gib: float, n_graphs: int) -> float:
        """Duration of one phase of a start."""
        capture_s = self.graph_capture_s * n_graphs
        return {
            "launch": self.launch_s,
            "load": self.load_per_gib_s * weights_gib,
            "kv_estimate": self.kv_estimate_s + capture_s,
            "kv_allocate": self.kv_allocate_s,
            "warm_up": self.warm_up_s + capture_s,
        }.get(phase, 0.0)

    def total_s(self, weights_gib: float, n_graphs: int) -> float:
        """Duration of a whole start."""
        phases: tuple[Phase, ...] = ("launch", "load", "kv_estimate", "kv_allocate", "warm_up")
        return sum(self.seconds(phase, weights_gib, n_graphs) for phase in phases)


STARTUP = StartupSeconds()
