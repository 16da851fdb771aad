"""What is refused before it costs a launch: rules that no server can break, then the memory forecast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from advisor.domain.deployment import Deployment
from advisor.domain.outcome import Rejected
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import Role
from advisor.domain.workload import Workload

GIB_PER_UNIT = 4.0  # a lack of memory is counted in steps of 4 GiB, beside latencies in units of their limits
MEMORY_RULE = "memory"
LEAST_P_FITS = 0.5
LEAST_SHORTFALL_GIB = 0.05  # a refusal is never a shortfall of nothing
MOST_EXCESS = 10.0  # beyond ten limits nothing is learnt from the number

Rule = Callable[[ServingConfig, Deployment, Sequence[Workload]], "Rejected | None"]
"""One rule of an engine, over the configuration, the deployment as the trial runs it, and the workloads."""


@dataclass(frozen=True)
class Forecast:
    """What the memory law and the frontier expect of one configuration."""

    p_fits: float
    shortfall_gib: float
    kv_tokens: int


def admit(
    config: ServingConfig,
    deployment: Deployment,
    workloads: Sequence[Workload],
    forecast: Callable[[], Forecast] | None,
    role: Role = "search",
    engine_rules: Sequence[Rule] = (),
) -> Rejected | None:
    """Why a configuration should not be launched, or None.

    What a person asked for is launched whatever we think of it: the baseline, and a winner again for its confirmation.

    Args:
        config: The proposal.
        deployment: The study's; the options of `config` are applied here.
        workloads: Of the study.
        forecast: Called once, and only when no static rule refuses; none where nothing can be predicted.
        role: Of the trial.
        engine_rules: What the engine's dialect refuses at start.
    """
    if role in ("baseline", "confirmation", "reference"):
        return None
    as_run = deployment.with_options(config.options)
    for rule in (prompt_fits, *engine_rules):
        refusal = rule(config, as_run, workloads)
        if refusal is not None:
            return refusal
    if forecast is None:
        return None
    expected = forecast()
    return memory_fits(expected) or one_request_fits(workloads, expected)


def prompt_fits(config: ServingConfig, deployment: Deployment, workloads: Sequence[Workload]) -> Rejected | None:
    """Without chunked prefill the server refuses prompts that do not fit one step."""
    longest = max(workload.isl for workload in workloads)
    if deployment.chunked_prefill or config.max_num_tokens >= longest:
        return None
    return _rejected(
        "prompt_fits",
        f"max_num_tokens {config.max_num_tokens:,} is below the longest prompt ({longest:,} tokens) "
        "and chunked prefill is off, so the server would refuse it.",
        longest / config.max_num_tokens - 1,
    )


def one_request_fits(workloads: Sequence[Workload], forecast: Forecast) -> Rejected | None:
    """The KV pool must hold the longest request whole."""
    longest = max(workload.max_tokens_per_request for workload in workloads)
    if forecast.kv_tokens >= longest:
        return None
    return _rejected(
        "one_request_fits",
        f"The KV pool would hold {forecast.kv_tokens:,} tokens, the longest request needs {longest:,}.",
        longest / max(forecast.kv_tokens, 1) - 1,
    )


def memory_fits(forecast: Forecast) -> Rejected | None:
    """More likely out of memory than not."""
    if forecast.p_fits >= LEAST_P_FITS:
        return None
    short_gib = max(forecast.shortfall_gib, LEAST_SHORTFALL_GIB)
    return _rejected(
        MEMORY_RULE,
        f"About {short_gib:.1f} GiB of GPU memory would be missing (probability that it fits: {forecast.p_fits:.0%}).",
        short_gib / GIB_PER_UNIT,
    )


def _rejected(rule: str, reason: str, excess: float) -> Rejected:
    return Rejected(rule=rule, reason=reason, excess=float(min(excess, MOST_EXCESS)))
