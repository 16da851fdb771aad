"""What defaults decided: a result that a default limits, rather than somebody's choice, says so in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from advisor.app.context import ENGINE_DEFAULT, StudyContext
from advisor.app.defaults import Defaults
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import LimitedBy
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.study import Budget, SearchSpace
from advisor.domain.workload import Workload
from advisor.search.standings import Standing

STREAMING: Literal["streaming"] = "streaming"
LIMITING_SETTINGS: dict[LimitedBy, str] = {
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "kv_capacity": "kv_cache_free_gpu_memory_fraction",
    STREAMING: "stream_interval",
}
NOTABLY_FASTER = 1.1


def decided_by_default(
    context: StudyContext,
    workload: Workload,
    best: Standing,
    base: Standing | None,
    others: Sequence[Standing],
    stopped_by: str,
) -> tuple[str, ...]:
    """One sentence for each default that limits the result of a workload.

    Args:
        context: Of the study.
        workload: Whose result it is.
        best: The configuration that is recommended.
        base: The one that it is compared with.
        others: All others that keep the limits.
        stopped_by: What ended the search.
    """
    defaults = context.defaults
    is_engines_own = (
        base is not None and context.baseline.name == ENGINE_DEFAULT and base.config == context.baseline.config
    )
    return (
        *_of_load(defaults, workload, best),
        *_of_limits(defaults, best, others),
        *_of_space(defaults, context.space, best),
        *_of_streaming(context.space, best),
        *(_of_engine(context.deployment, base) if base is not None and is_engines_own else ()),
        *_of_budget(defaults, context.budget, stopped_by),
        *_of_max_seq_len(defaults, context.deployment, context.workloads),
    )


def acting_defaults(context: StudyContext) -> tuple[str, ...]:
    """Before anything is launched: which defaults will limit what a study can find, one clause each."""
    return tuple(_acting(context, context.defaults))


def _acting(context: StudyContext, defaults: Defaults) -> Iterator[str]:
    for workload in context.workloads:
        if workload.name in defaults.loads and workload.concurrency is not None:
            yield f"{workload.name} with {workload.concurrency:,} requests in flight (--concurrency)"
    if defaults.slo:
        yield "no limit on latency, so the objective alone decides (--slo)"
    if defaults.budget:
        yield f"{context.budget.max_launches} launches (--max-launches)"
    if defaults.max_seq_len:
        yield f"requests of at most {context.max_seq_len:,} tokens, the longest of the study"
    base = context.baseline
    for workload in context.workloads if base.config is not None else ():
        prediction = None if base.config is None else context.predict(base.config, workload)
        setting = None if prediction is None else LIMITING_SETTINGS.get(prediction.limited_by or "gpu")
        if base.config is not None and setting is not None:
            value = _value(context.deployment, base.config, setting)
            yield f"{setting} {value:,} of {base.name} is what limits it on {workload.name}, by the twin"


def _of_load(defaults: Defaults, workload: Workload, best: Standing) -> Iterator[str]:
    """The default concurrency, where no request waits for anything or where more load was never tried."""
    found, most = best.outcomes[-1].concurrency, workload.concurrency
    if workload.name not in defaults.loads or most is None:
        return
    if found is not None and found == most:
        yield (
            f"The default of {most:,} requests in flight is the highest load that was tried, and it keeps every limit: "
            "more may (--concurrency)."
        )
    elif found is None and best.outcomes[-1].limited_by == "concurrency":
        yield (
            f"The default of {most:,} requests in flight limits the best: no request waits. Say the load that you "
            "expect (--concurrency)."
        )


def _of_limits(defaults: Defaults, best: Standing, others: Sequence[Standing]) -> Iterator[str]:
    """No limit on latency, where another configuration that ran is faster for its users."""
    speeds = [speed for speed in map(_user_tok_per_s, others) if speed > NOTABLY_FASTER * _user_tok_per_s(best)]
    if defaults.slo and speeds:
        n_faster = "1 other configuration is" if len(speeds) == 1 else f"{len(speeds)} other configurations are"
        yield (
            f"No limit on latency was given (--slo), so the objective alone decided: {n_faster} faster for each user, "
            f"up to {max(speeds):,.1f} tok/s against {_user_tok_per_s(best):,.1f}."
        )


def _user_tok_per_s(standing: Standing) -> float:
    """Output tok/s per user, mean over the runs of a configuration."""
    speeds = [outcome.metrics.output_tok_per_s_per_user for outcome in standing.outcomes if outcome.metrics]
    return sum(speeds) / len(speeds)


def _of_space(defaults: Defaults, space: SearchSpace, best: Standing) -> Iterator[str]:
    """A setting at the end of the default search space, where it is what limits the best."""
    setting = LIMITING_SETTINGS.get(best.outcomes[-1].limited_by or "gpu")
    for dimension in space.active if defaults.space else ():
        value = best.config.flat().get(dimension.name)
        if dimension.name == setting and value == dimension.values[-1]:
            yield (
                f"{setting} {value:,} is the largest step of search space {space.name!r}, and it limits the best: a "
                "space of your own may go further (--search-space)."
            )


def _of_streaming(space: SearchSpace, best: Standing) -> Iterator[str]:
    """The streaming path, where nothing that is searched relieves it."""
    setting = LIMITING_SETTINGS[STREAMING]
    if best.outcomes[-1].limited_by == STREAMING and all(each.name != setting for each in space.active):
        yield (
            f"The server's streaming path limits the best, and search space {space.name!r} leaves {setting} as it is: "
            f"a longer one sends fewer chunks (--vary {setting})."
        )


def _of_engine(deployment: Deployment, base: Standing) -> Iterator[str]:
    """A default of the engine that limits the configuration compared with, which is the engine's own."""
    setting = LIMITING_SETTINGS.get(base.outcomes[-1].limited_by or "gpu")
    if setting is not None:
        value = _value(deployment, base.config, setting)
        yield f"The engine's own default {setting} {value:,} limits the default configuration."


def _value(deployment: Deployment, config: ServingConfig, setting: str) -> OptionValue:
    """What a configuration has for a setting that limits it, where it says nothing the deployment's."""
    if setting == LIMITING_SETTINGS[STREAMING]:
        return deployment.with_options(config.options).stream_interval
    return config.flat()[setting]


def _of_budget(defaults: Defaults, budget: Budget, stopped_by: str) -> Iterator[str]:
    """The default number of launches, where it ended the search."""
    if defaults.budget and stopped_by == "budget":
        yield f"The search ended at the default of {budget.max_launches} launches: more may find more (--max-launches)."


def _of_max_seq_len(defaults: Defaults, deployment: Deployment, workloads: tuple[Workload, ...]) -> Iterator[str]:
    """The longest request that the best server takes, where the study's workloads decided it."""
    if defaults.max_seq_len:
        yield (
            f"The best takes requests of at most {deployment.seq_len(workloads):,} tokens: by default max_seq_len is "
            "the longest of this study (max_seq_len in a study's deployment)."
        )
