"""How a study was asked for, and the command line that asks the same again."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version

from advisor.app.context import StudyContext
from advisor.domain.study import Study
from advisor.store import catalog
from advisor.store.run_card import AsAsked


def as_asked(context: StudyContext, study: Study) -> AsAsked:
    """How a study was asked for, with the command that repeats it.

    Args:
        context: The study as it is run.
        study: The study as its file says.
    """
    return AsAsked(
        title=context.title,
        gpu_title=context.gpu.title,
        command=tuple(tune_argv(context, study, catalog.study_names())),
        advisor_version=version("trtllm-advisor"),
        space=context.space,
        n_configs=context.space_size,
        max_seq_len=context.max_seq_len,
        budget=context.budget,
        sampler=context.sampler,
        seed=context.seed,
    )


def tune_argv(context: StudyContext, study: Study, shipped: Collection[str]) -> list[str]:
    """`advisor tune ...` that resolves to this context: the study by name, and what differs from it.

    Args:
        context: The study as it was run.
        study: The study as its file says.
        shipped: Names that `--study` knows; a study made from the command line is spelled by its model and GPU.
    """
    named = study.name in shipped
    argv = ["advisor", "tune", *(["--study", study.name] if named else [])]
    for workload in context.workloads:
        argv += ["--workload", workload.name]
    argv += _deployment(context, study, named)
    if context.space.name != study.search_space:
        argv += ["--search-space", context.space.name]
    for name in context.vary:
        argv += ["--vary", name]
    if context.max_answer_drift != study.max_answer_drift:
        argv += ["--max-answer-drift", f"{context.max_answer_drift:g}"]
    if context.objective.metric != study.objective.metric:
        argv += ["--objective", context.objective.metric]
    price = context.objective.gpu_price_usd_per_hour
    if price is not None and price != study.objective.gpu_price_usd_per_hour:
        argv += ["--gpu-price", f"{price:g}"]
    if context.slo != study.slo:
        argv += ["--slo", context.slo.text]
    for name in context.launched_baselines[1:]:
        argv += ["--baseline", name]
    argv += ["--engine", context.engine.name]
    if "world" in context.engine.options:
        argv += ["--twin-world", str(context.engine.options["world"])]
    argv += ["--sampler", context.sampler, "--seed", str(context.seed)]
    argv += ["--max-launches", str(context.budget.max_launches)]
    if context.budget.max_hours is not None:
        argv += ["--max-hours", f"{context.budget.max_hours:g}"]
    if context.budget.gpu_hours is not None:
        argv += ["--gpu-hours", f"{context.budget.gpu_hours:g}"]
    return [*argv, "--verifiable"] if context.verifiable else argv


def _deployment(context: StudyContext, study: Study, named: bool) -> list[str]:
    ours, theirs = context.deployment, study.deployment
    argv: list[str] = []
    said = (("--model", "model"), ("--gpu", "gpu"), ("--quant", "quantization"), ("--kv-cache-dtype", "kv_cache_dtype"))
    for flag, name in said:
        if not named or getattr(ours, name) != getattr(theirs, name):
            argv += [flag, str(getattr(ours, name))]
    layout = ("gpus", "tp", "pp", "ep")  # each follows from the others where it is not said: all or none
    if not named or any(getattr(ours, name) != getattr(theirs, name) for name in layout):
        for name in layout:
            argv += [f"--{name}", str(getattr(ours, name))]
    varied = any(dimension.name == "enable_attention_dp" for dimension in context.space.active)
    if ours.attention_dp != theirs.attention_dp or ("enable_attention_dp" in study.vary and not varied):
        argv.append("--attention-dp" if ours.attention_dp else "--no-attention-dp")
    if not named or ours.engine_version != theirs.engine_version:
        argv += ["--engine-version", ours.engine_version]
    load_format = ours.engine_options.get("load_format")
    if load_format is not None and load_format != theirs.engine_options.get("load_format"):
        argv += ["--load-format", str(load_format)]
    return argv
