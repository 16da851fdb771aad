"""What differs between two sets of launches, metric by metric, and which of it is more than noise."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.results import Result, ResultEntry
from advisor.domain.measurement import EffectiveSettings, MemoryReport, Metrics
from advisor.domain.objective import LATENCIES, Objective
from advisor.metrics.confidence import NoisePrior
from advisor.metrics.verdict import TAIL_NOISE, VERIFY_NOISE, Change, change, size_change

RATES = ("output_tok_per_s", "output_tok_per_s_per_user", "request_per_s", "goodput")
STATISTICS = ("mean", "p50", "p95", "p99")
TOLD = (*RATES, *(f"{latency}:{statistic}" for latency in LATENCIES for statistic in STATISTICS))
MEMORY = ("weights", "activations", "cuda_graphs", "kv_pool", "other", "headroom")
SAME_GIB = 0.1  # between starts of one configuration: fragmentation and NCCL
SAME_KV = 0.01  # of the tokens: what the pool gets is what profiling leaves


def runs_of(entry: ResultEntry) -> tuple[Metrics, ...]:
    """One measurement a launch; of results of an older advisor their mean alone, which counts as one."""
    return entry.repeats or (entry.metrics,)


def reference_of(result: Result) -> tuple[Metrics, ...]:
    """What a verification of a result (one with a best) compares with, one a launch."""
    assert result.best is not None
    return (*runs_of(result.best), *(launch.metrics for launch in result.reference))


def others_of(result: Result) -> tuple[tuple[Metrics, ...], ...]:
    """Repeats of the study's other configurations, which tell of its noise."""
    assert result.best is not None
    entries = [result.baseline.compared, *result.top]
    found = {each.serving_config.key: each.repeats for each in entries if each is not None}
    own = result.best.serving_config.key
    return tuple(runs for key, runs in found.items() if key != own and len(runs) > 1)


def values_of(metric: str, runs: Sequence[Metrics]) -> list[float]:
    """A metric, one value a launch; empty where one of them has none."""
    values = [Objective(metric=metric).value(each) for each in runs]
    return [value for value in values if value is not None] if None not in values else []


def gains_of(metric: str, runs: Sequence[Metrics]) -> list[float]:
    """A metric, one value a launch, larger is better; empty where it is not defined or zero."""
    values, objective = values_of(metric, runs), Objective(metric=metric)
    return [objective.gain(value, 1.0) for value in values] if all(value > 0 for value in values) else []


def metric_changes(
    before: Sequence[Metrics], after: Sequence[Metrics], others: Sequence[Sequence[Metrics]]
) -> tuple[Change, ...]:
    """Every metric that both have.

    Args:
        before: One a launch.
        after: The same later, or elsewhere.
        others: Repeats of further configurations, which tell of the noise.
    """
    pairs = [(name, values_of(name, before), values_of(name, after)) for name in TOLD]
    both = [(name, a, b) for name, a, b in pairs if a and b]
    return tuple(
        change(name, a, b, [values_of(name, runs) for runs in others], len(both), _noise(name)) for name, a, b in both
    )


def _noise(metric: str) -> NoisePrior:
    """What is expected of a metric from launch to launch."""
    return TAIL_NOISE if metric.startswith("ttft") or metric.endswith(("p95", "p99")) else VERIFY_NOISE


def memory_changes(
    before: tuple[MemoryReport | None, EffectiveSettings | None],
    after: tuple[MemoryReport | None, EffectiveSettings | None],
) -> tuple[Change, ...]:
    """GiB by component, and KV-cache tokens, where both tell them."""
    (gib, settings), (gib_after, settings_after) = before, after
    found = []
    for name in MEMORY if gib is not None and gib_after is not None else ():
        a, b = getattr(gib, name), getattr(gib_after, name)
        if a is not None and b is not None:
            found.append(size_change(f"{name}_gib", a, b, SAME_GIB))
    if settings is not None and settings_after is not None:
        a, b = settings.kv_tokens, settings_after.kv_tokens
        found.append(size_change("kv_tokens", a, b, SAME_KV * a))
    return tuple(found)
