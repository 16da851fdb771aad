"""The log of a start that goes well, as each release words it; figures are arguments, so the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from advisor.domain.units import GIB_BYTES

BLOCK_TOKENS = 32
TOKENS_ESTIMATED = ("0.20.0", "0.21.0", "1.0.0")
WITHOUT_FRACTION, WITHOUT_TOTAL = ("0.20.0",), ("0.20.0", "0.21.0")
RELEASES = ("0.20.0", "0.21.0", "1.0.0", "1.1.0", "1.2.0", "1.3.0rc", "main")


@dataclass(frozen=True)
class Start:
    """What a server of one rank finds; GiB."""

    total: float = 79.11
    loaded: float = 28.02
    loaded_outside: float = 3.31
    activations: float = 3.10
    outside: float = 4.40
    temporary_tokens: int = 8224
    fraction: float = 0.8999999761581421
    kv_bytes: int = 131_072
    max_batch_size: int = 64
    max_num_tokens: int = 8192
    max_seq_len: int = 32_768
    first_sizes: Sequence[int] = (64, 32, 16, 8, 4, 2, 1)
    final_sizes: Sequence[int] = (64, 32, 16, 8, 4, 2, 1)
    torch_cap: float = 40.5

    @property
    def peak(self) -> float:
        return self.loaded + self.activations + self.outside

    @property
    def temporary(self) -> float:
        return self.temporary_tokens * self.kv_bytes / GIB_BYTES

    @property
    def budget(self) -> float:
        return (self.total - self.peak + self.temporary) * self.fraction

    @property
    def pool_tokens(self) -> int:
        tokens = int(self.budget * GIB_BYTES // self.kv_bytes)
        return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def start_log(start: Start, release: str = "1.1.0", rank: int | None = None) -> list[str]:
    """The lines that one rank prints from its model's load to readiness."""
    head = "[01/15/2026-10:00:00] [TRT-LLM]" + ("" if rank is None else f" [RANK {rank}]")

    def says(text: str, level: str = "I") -> str:
        return f"{head} [{level}] {text}"

    final_tokens = start.pool_tokens
    estimate = int(start.budget * GIB_BYTES // start.kv_bytes)
    estimated = (
        f"Estimated max tokens in KV cache : {estimate}"
        if release in TOKENS_ESTIMATED
        else f"Estimated max memory in KV cache : {start.budget:.2f} GiB"
    )
    loaded = "Memory used after loading model weights ({}) in memory usage profiling: {:.2f} GiB"
    outside_known = release not in ("0.20.0", "0.21.0")
    return [
        "[TensorRT-LLM] TensorRT-LLM version: " + release,
        says("Using LLM with PyTorch backend"),
        says("Use 27.92 GB for model weights."),
        "Model init total -- 24.10s",
        *_pass(start, release, says, start.temporary_tokens, start.temporary_tokens, start.first_sizes),
        says(loaded.format("inside torch", start.loaded)),
        *([says(loaded.format("outside torch", start.loaded_outside))] if outside_known else []),
        says(
            "Memory dynamically allocated during inference (inside torch) in memory usage profiling: "
            f"{start.activations:.2f} GiB"
        ),
        says(
            "Memory used outside torch (e.g., NCCL and CUDA graphs) in memory usage profiling: "
            f"{start.outside:.2f} GiB"
        ),
        says(_budget(start, release)),
        says(estimated),
        *_pass(start, release, says, estimate, final_tokens, start.final_sizes),
        says(f"Setting PyTorch memory fraction to 0.5119 ({start.torch_cap} GiB)"),
    ]  # fmt: skip


READY = [
    "INFO:     Started server process [41]",
    "INFO:     Waiting for application startup.",
    "INFO:     Application startup complete.",
]


def _budget(start: Start, release: str) -> str:
    line = (
        f"Peak memory during memory usage profiling (torch + non-torch): {start.peak:.2f} GiB, "
        f"available KV cache memory when calculating max tokens: {start.budget:.2f} GiB"
    )
    if release in WITHOUT_FRACTION:
        return line
    per_token = " per token" if release == "main" else ""
    line += f", fraction is set {start.fraction}, kv size{per_token} is {start.kv_bytes}"
    if release in WITHOUT_TOTAL:
        return line
    temporary = "temporary kv cache memory during profiling" if release == "main" else ", tmp kv_mem"
    return f"{line}. device total memory {start.total:.2f} GiB, {temporary} {start.temporary:.2f} GiB"


def _pass(
    start: Start, release: str, says: Callable[..., str], cap: int, pool_tokens: int, sizes: Sequence[int]
) -> Iterator[str]:
    pool_gib = pool_tokens * start.kv_bytes / GIB_BYTES
    length = min(start.max_seq_len, pool_tokens)
    batch = "" if release in ("0.20.0", "0.21.0") else f", max_batch_size={start.max_batch_size}"
    yield says(
        f"Both free_gpu_memory_fraction and max_tokens are set (to {start.fraction} and {cap}, respectively). "
        "The smaller value will be used.",
        "W",
    )
    if length < start.max_seq_len:
        yield says(f"Attention window size {start.max_seq_len} exceeds upper bound {length} for available blocks.", "W")
        yield says(f"Adjusted max_seq_len to {length}", "W")
    yield f"[TensorRT-LLM][INFO] Max KV cache blocks per sequence: {length // BLOCK_TOKENS}"
    yield f"[TensorRT-LLM][INFO] Number of tokens per block: {BLOCK_TOKENS}."
    yield (
        f"[TensorRT-LLM][INFO] [MemUsageChange] Allocated {pool_gib:.2f} GiB for max tokens in paged KV cache "
        f"({pool_tokens})."
    )
    yield says(
        f"max_seq_len={length}, max_num_requests={start.max_batch_size}, max_num_tokens={start.max_num_tokens}{batch}"
    )
    yield says("[Autotuner] Autotuning process starts ...")
    yield says("[Autotuner] Autotuning process ends")
    yield says(f"Creating CUDA graph instances for {len(sizes)} batch sizes.")
    for size in sizes:
        yield says(f"Run {_graph_words(release, size, length)}")


def _graph_words(release: str, size: int, length: int) -> str:
    draft = "" if release in ("0.20.0", "0.21.0") else ", draft_len=0"
    dash = "-" if release in ("1.2.0", "1.3.0rc", "main") else " "
    longest = f", max_seq_len={length}" if release == "main" else ""
    return f"generation{dash}only CUDA graph warmup for batch size={size}{draft}{longest}"
