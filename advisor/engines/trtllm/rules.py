"""Static rules of a release: what it refuses, what it warns about, and what it changes without saying so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import did_you_mean
from advisor.domain.workload import Workload
from advisor.engines.dialect import Violation
from advisor.engines.trtllm.command import not_in_release, to_yaml
from advisor.engines.trtllm.dialects import Dialect, kv_dtype_can_be_had, kv_dtype_refusal
from advisor.twin.graphs import captured_sizes, graph_rule


def validate(
    spoken: Dialect, deployment: Deployment, config: ServingConfig, workloads: Iterable[Workload], max_seq_len: int
) -> tuple[Violation, ...]:
    """Static rules of the release that can be checked without any GPU, errors first.

    Ranges of single values (fraction below 1, graph size not negative ...) are already kept by the models themselves.
    """
    deployment = deployment.with_options(config.options)
    workloads = tuple(workloads)
    found = []
    longest_prompt = max((workload.isl for workload in workloads), default=0)
    longest_request = max((workload.max_tokens_per_request for workload in workloads), default=0)
    if not deployment.chunked_prefill and longest_prompt > config.max_num_tokens:
        message = (
            f"max_num_tokens {config.max_num_tokens:,} is below the longest prompt of {longest_prompt:,} tokens and "
            "chunked prefill is off: the server would refuse such prompts (HTTP 400). Raise it, or turn "
            "enable_chunked_prefill on."
        )
        found.append(_violation("max_num_tokens_below_isl", message, longest_prompt / config.max_num_tokens - 1))
    if longest_request > max_seq_len:
        message = (
            f"max_seq_len {max_seq_len:,} is below the longest request of {longest_request:,} tokens: "
            "outputs would be cut short silently. Raise it."
        )
        found.append(_violation("max_seq_len_below_request", message, longest_request / max_seq_len - 1))
    if not kv_dtype_can_be_had(spoken, deployment):
        found.append(_violation("kv_cache_dtype", kv_dtype_refusal(spoken, deployment)))
    found += [_violation("not_in_release", message) for message in not_in_release(spoken, deployment)]
    moe_backends = spoken.moe_backends
    if deployment.moe_backend is not None and moe_backends and deployment.moe_backend not in moe_backends:
        message = (
            f"TensorRT-LLM {spoken.release} has no MoE backend {deployment.moe_backend!r}."
            f"{did_you_mean(deployment.moe_backend, moe_backends)} Known: {', '.join(moe_backends)}."
        )
        found.append(_violation("moe_backend", message))
    if config.max_batch_size > config.max_num_tokens:
        message = (
            f"max_batch_size {config.max_batch_size:,} is above max_num_tokens {config.max_num_tokens:,}: "
            "no step can hold that many requests, and the largest CUDA graph shrinks to it."
        )
        excess = config.max_batch_size / config.max_num_tokens - 1
        found.append(_violation("max_batch_size_above_max_num_tokens", message, excess, "warning"))
    if all(each.severity == "warning" for each in found):
        try:
            to_yaml(spoken, deployment, config, max_seq_len)
        except BadInput as refusal:
            found.insert(0, _violation("release", str(refusal)))
    return tuple(found)


def adjustments(spoken: Dialect, deployment: Deployment, config: ServingConfig) -> tuple[str, ...]:
    """What the server changes without saying so, in words."""
    deployment = deployment.with_options(config.options)
    said = []
    cap = min(config.max_batch_size, config.max_num_tokens)
    sizes = graph_sizes(spoken, deployment, config)
    if config.cuda_graph_max_batch_size > cap:
        said.append(
            f"CUDA graphs above {cap:,} (the smaller of max_batch_size and max_num_tokens) are dropped; "
            f"the largest captured is {sizes[-1]:,}."
        )
    elif sizes and sizes[-1] < cap:
        said.append(f"Decode batches above {sizes[-1]:,} run without a CUDA graph.")
    if deployment.attention_dp and deployment.tp > 1:
        said.append(
            f"Under attention DP max_batch_size counts per rank: {deployment.tp} ranks x {config.max_batch_size:,} = "
            f"{deployment.system_batch(config.max_batch_size):,} requests at once."
        )
    return tuple(said)


def graph_sizes(spoken: Dialect, deployment: Deployment, config: ServingConfig) -> tuple[int, ...]:
    """Batch sizes that get a CUDA graph under this release, ascending."""
    return captured_sizes(
        config.cuda_graph_max_batch_size,
        padding=deployment.graph_padding,
        rule=graph_rule(config.options, spoken.graph_ladder),
        max_batch_size=config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
    )


def _violation(
    rule: str, message: str, excess: float = 1.0, severity: Literal["error", "warning"] = "error"
) -> Violation:
    return Violation(rule=rule, message=message, severity=severity, excess=excess)
