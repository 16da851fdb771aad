"""Static rules of vLLM: what it refuses at its start, and what it would do other than meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import Workload
from advisor.engines.dialect import Violation
from advisor.engines.vllm.command import to_yaml
from advisor.engines.vllm.releases import Release
from advisor.twin.graphs import captured_sizes


def validate(
    row: Release, deployment: Deployment, config: ServingConfig, workloads: Iterable[Workload], max_seq_len: int
) -> tuple[Violation, ...]:
    """Static rules that can be checked without any GPU, errors first.

    Source: vLLM `config/scheduler.py` (`verify_max_model_len`), and the messages of recorded launches.
    """
    deployed = deployment.with_options(config.options)
    longest = max((workload.max_tokens_per_request for workload in workloads), default=0)
    seqs, tokens = config.max_batch_size, config.max_num_tokens
    found = []
    if tokens < seqs:
        message = (
            f"max_num_batched_tokens {tokens:,} is below max_num_seqs {seqs:,}, and vLLM refuses to start: every "
            "running request needs one token of each step. Raise it, or lower max_num_seqs."
        )
        found.append(_violation("max_num_batched_tokens_below_max_num_seqs", message, seqs / tokens - 1))
    if not deployed.chunked_prefill and tokens < max_seq_len:
        message = (
            f"max_num_batched_tokens {tokens:,} is below max_model_len {max_seq_len:,} and chunked prefill is off: "
            "vLLM refuses to start. Raise it, or turn enable_chunked_prefill on."
        )
        found.append(_violation("max_num_batched_tokens_below_max_model_len", message, max_seq_len / tokens - 1))
    if longest > max_seq_len:
        message = (
            f"max_model_len {max_seq_len:,} is below the longest request of {longest:,} tokens, which would be "
            "refused. Raise it."
        )
        found.append(_violation("max_model_len_below_request", message, longest / max_seq_len - 1))
    if not found:
        try:
            to_yaml(row, deployment, config, max_seq_len)
        except BadInput as refusal:
            found.append(_violation("release", str(refusal)))
    if deployed.engine_options.get("kv_cache_memory_bytes") is not None:
        message = "kv_cache_memory_bytes sets the KV cache, so gpu_memory_utilization decides nothing."
        found.append(_violation("fraction_ignored", message, severity="warning"))
    return tuple(found)


def adjustments(deployment: Deployment, config: ServingConfig) -> tuple[str, ...]:
    """What the server changes without saying so, in words."""
    sizes = captured_sizes(
        config.cuda_graph_max_batch_size,
        padding=deployment.graph_padding,
        rule="vllm",
        max_batch_size=config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
    )
    if sizes and sizes[-1] < config.cuda_graph_max_batch_size:
        return (
            f"The largest CUDA graph is {sizes[-1]:,}, not {config.cuda_graph_max_batch_size:,}: sizes go in steps and "
            "end at max-num-batched-tokens.",
        )
    return ()


def _violation(
    rule: str, message: str, excess: float = 1.0, severity: Literal["error", "warning"] = "error"
) -> Violation:
    return Violation(rule=rule, message=message, severity=severity, excess=excess)
