"""From what a person asked for to a resolved study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from advisor.app.defaults import Defaults
from advisor.app.stand_in import check_known, stand_in_here
from advisor.domain.deployment import Deployment, Quantization
from advisor.domain.errors import BadInput
from advisor.domain.objective import Objective, Slo, check_objective, parse_objective, parse_slo
from advisor.domain.strict import StrictModel, changed, parse, unknown_name
from advisor.domain.study import Budget, SearchSpace, Study
from advisor.domain.workload import MOST_WORKLOADS, Workload, crossed, parse_workload, too_many
from advisor.engines.dialect import EngineDialect
from advisor.engines.dimensions import check_dimensions, spoken_space
from advisor.engines.spoken import ENGINES_SPOKEN, NEWEST, spoken_by
from advisor.search.space import restrict
from advisor.store import catalog
from advisor.store.checkpoints import declared_quantization

SPACES = {"trtllm": "default", "vllm": "vllm"}  # what a study of an engine searches unless it says otherwise
CHUNKED_BY_DEFAULT = {"trtllm": False, "vllm": True}
DEFAULT_STUDY = "llama4-maverick-fp8-b200"
_QUANT_IN_NAME = (("nvfp4", "nvfp4"), ("fp4", "nvfp4"), ("fp8", "fp8"), ("gpt-oss", "mxfp4"))


class Question(StrictModel):
    """What the command line asks, unresolved: None means not said."""

    study: str | None = None
    isl: str | None = None
    osl: str | None = None
    concurrency: str | None = None
    request_rate_per_s: float | None = Field(default=None, gt=0)
    workloads: tuple[str, ...] = ()
    slo: str = ""
    objective: str | None = None
    gpu_price_usd_per_hour: float | None = Field(default=None, gt=0)
    model: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    attention_dp: bool | None = None
    quant: str | None = None
    kv_cache_dtype: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    load_format: str | None = None
    search_space: str | None = None
    vary: tuple[str, ...] = ()
    max_answer_drift: float | None = Field(default=None, ge=0, le=1)
    max_launches: int | None = Field(default=None, ge=1)
    max_hours: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)


class Resolved(StrictModel):
    """A study with everything said on the command line worked in."""

    study: Study
    deployment: Deployment
    workloads: tuple[Workload, ...]
    space: SearchSpace
    objective: Objective
    slo: Slo
    budget: Budget
    defaults: Defaults
    vary: tuple[str, ...] = Field(default=(), description="Dimensions asked for besides those of the study")
    max_answer_drift: float
    here: bool = False

    @property
    def title(self) -> str:
        """The study's own, with what it is asked of where that is not what the title is about."""
        about, asked = self.study.deployment, self.deployment
        differs = [
            said
            for said, same in (
                (f"{asked.gpus} x {asked.gpu}", (about.gpus, about.gpu) == (asked.gpus, asked.gpu)),
                (asked.quantization, about.quantization == asked.quantization),
                (asked.engine, about.engine == asked.engine),
            )
            if not same
        ]
        return f"{self.study.title}: asked of {', '.join(differs)}" if differs else self.study.title


def resolve(question: Question, *, here: bool = False) -> Resolved:
    """The study that the question means.

    Args:
        question: What was asked.
        here: It is served on this machine, which shows what nobody described of the model and the GPU.

    Raises:
        BadInput: unknown names, impossible workloads or layouts, an empty search space.
    """
    study = _study(question, here)
    deployment = _deployment(study.deployment, question)
    substitute = stand_in_here(deployment) if here else None
    if substitute is None:
        catalog.gpu_facts(deployment.gpu)
    facts = catalog.model_facts(deployment.model) if substitute is None else substitute.facts
    deployment.check_model(facts)
    workloads = _workloads(question, study)
    for workload in workloads:
        deployment.check_workload(workload, facts)
    spoken = spoken_by(deployment)
    spoken.check_deployment(deployment)
    switched = deployment.engine != study.deployment.engine
    own_space = SPACES[deployment.engine] if switched else study.search_space
    whole = catalog.search_space(question.search_space or own_space)
    optional = question.search_space is not None or switched
    space = _space(whole, question, study, deployment, spoken, optional=optional)
    check_dimensions(space, spoken, deployment, facts)
    budget = Budget(
        max_launches=question.max_launches or study.budget.max_launches,
        max_hours=question.max_hours or study.budget.max_hours,
        gpu_hours=question.gpu_hours or study.budget.gpu_hours,
    )
    objective = changed(
        study.objective,
        metric=parse_objective(question.objective).metric if question.objective else study.objective.metric,
        gpu_price_usd_per_hour=question.gpu_price_usd_per_hour or study.objective.gpu_price_usd_per_hour,
    )
    slo = parse_slo(question.slo) if question.slo else study.slo
    check_objective(objective, slo)
    return Resolved(
        study=study,
        deployment=deployment,
        workloads=workloads,
        space=space,
        objective=objective,
        slo=slo,
        budget=budget,
        defaults=_defaults(question, study, workloads, deployment, slo),
        vary=question.vary,
        max_answer_drift=study.max_answer_drift if question.max_answer_drift is None else question.max_answer_drift,
        here=here,
    )


def _space(
    whole: SearchSpace,
    question: Question,
    study: Study,
    deployment: Deployment,
    spoken: EngineDialect,
    *,
    optional: bool,
) -> SearchSpace:
    """What is searched: the enabled dimensions, those that the study varies, and those asked for.

    `optional`: another space than the study's own need not have every dimension that the study varies.
    """
    vary = [spoken.canonical(name) for name in study.vary]
    if question.attention_dp is not None:
        vary = [name for name in vary if name != "enable_attention_dp"]
    if optional:
        own = {spoken.canonical(dimension.name) for dimension in whole.dimensions}
        vary = [name for name in vary if name in own]
    vary += [spoken.canonical(name) for name in question.vary]
    return restrict(spoken_space(whole, vary, spoken, deployment), vary=tuple(vary))


def _defaults(
    question: Question, study: Study, workloads: tuple[Workload, ...], deployment: Deployment, slo: Slo
) -> Defaults:
    """Where a default stands; a study file of one's own says as much as options do."""
    own = question.study is not None and question.study not in catalog.study_names()
    load_said = question.concurrency is not None or question.request_rate_per_s is not None
    names = question.workloads or (study.workload_names if own and question.isl is None else ())
    stated = {parse_workload(name).name for name in names if "_" in name}
    return Defaults(
        loads=() if load_said else tuple(w.name for w in workloads if w.name not in stated),
        slo=not slo.limits,
        budget=question.max_launches is None and not (own and "max_launches" in study.budget.model_fields_set),
        space=question.search_space is None and not own,
        max_seq_len=deployment.max_seq_len is None,
    )


def announced(model: str) -> str:
    """The quantization that a model's name announces, bf16 when it announces none."""
    return next((quant for word, quant in _QUANT_IN_NAME if word in model.lower()), "bf16")


def _study(question: Question, here: bool) -> Study:
    """The named study, the shipped one for this model and GPU, or a generic one."""
    if question.study is not None:
        return catalog.study(question.study)
    default = catalog.study(DEFAULT_STUDY)
    if question.model is None and question.gpu is None:
        return default
    if question.model is not None:
        check_known(question.model, here)
    found = shipped_study(question, question.gpu)
    if found is not None:
        return found
    model = question.model or default.deployment.model
    quant = _quantization(question)
    if question.gpu is None:
        raise BadInput(
            f"No shipped study is about {model!r} ({quant}); say which GPU: --gpu, one of {', '.join(catalog.gpus())}."
        )
    return _generic(model, quant, question)


def studied_engine(question: Question) -> str:
    """The engine that the study of a question is about.

    Raises:
        BadInput: nobody here knows how to speak to it.
    """
    return _spoken_engine(catalog.study(question.study or DEFAULT_STUDY).deployment)


def _spoken_engine(fixed: Deployment) -> str:
    if fixed.engine not in ENGINES_SPOKEN:
        raise unknown_name("engine in the study", fixed.engine, ENGINES_SPOKEN)
    return fixed.engine


def shipped_study(question: Question, gpu: str | None) -> Study | None:
    """The shipped study about the model of a question on a GPU (on any, if None); None when there is none."""
    default = catalog.study(DEFAULT_STUDY)
    wanted, quant = catalog.described(question.model or default.deployment.model), _quantization(question)
    found = []
    for study in map(catalog.study, catalog.study_names()):
        fixed = study.deployment
        name = catalog.model_facts(fixed.model).name
        same = wanted is not None and name == wanted.name and fixed.quantization == quant
        if same and gpu in (None, fixed.gpu):
            found.append(study)
    own_engine = [study for study in found if study.deployment.engine == (question.engine or default.deployment.engine)]
    return next(iter(own_engine or found), None)


def _quantization(question: Question) -> str:
    """As said, else as the checkpoint folder declares or the model's name announces, else that of the default study."""
    if question.quant is not None:
        return question.quant
    if question.model is None:
        return catalog.study(DEFAULT_STUDY).deployment.quantization
    if not Path(question.model).is_dir():
        return announced(question.model)
    declared, quantization = declared_quantization(Path(question.model))
    if quantization is None:
        raise BadInput(
            f"{question.model} is quantized with {declared}, of which advisor has no kernel times: say the nearest "
            f"with --quant, one of {', '.join(get_args(Quantization))}."
        )
    return quantization


def _generic(model: str, quant: str, question: Question) -> Study:
    """A study of a model that no shipped one is about: engine defaults as baseline, one GPU unless said otherwise."""
    assert question.gpu is not None
    tp = question.tp or question.gpus or 1
    slug = re.sub(r"[^a-z0-9.]+", "-", model.rstrip("/").split("/")[-1].lower()).strip("-")
    name = f"{slug}-{quant}-{question.gpu.split('_')[0]}"
    data = {
        "name": name,
        "title": f"{model} {quant} on {tp * (question.pp or 1)} x {question.gpu}",
        "description": "Made from the command line.",
        "deployment": {
            "model": model,
            "quantization": quant,
            "gpu": question.gpu,
            "gpus": tp * (question.pp or 1),
            "tp": tp,
        }
        | ({"pp": question.pp} if question.pp else {}),
        "vary": ["enable_chunked_prefill"],
        "workloads": ["1k1k"],
    }
    return parse(Study, data, "--model")


def _deployment(fixed: Deployment, question: Question) -> Deployment:
    """The study's deployment with what the command line says of it."""
    fixed = for_engine(fixed, question.engine or _spoken_engine(fixed))
    said = {
        "model": question.model,
        "gpu": question.gpu,
        "tp": question.tp,
        "pp": question.pp,
        "ep": question.ep,
        "attention_dp": question.attention_dp,
        "quantization": question.quant,
        "kv_cache_dtype": question.kv_cache_dtype,
        "engine_version": question.engine_version,
    }
    updates: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if question.gpus is not None:
        updates["gpus"] = question.gpus
        if question.tp is None and question.gpus % (question.pp or fixed.pp) == 0:
            updates["tp"] = question.gpus // (question.pp or fixed.pp)
    elif question.tp is not None or question.pp is not None:
        updates["gpus"] = (question.tp or fixed.tp) * (question.pp or fixed.pp)
    if question.load_format is not None:
        updates["engine_options"] = {**fixed.engine_options, "load_format": question.load_format}
    if "tp" in updates and question.ep is None:
        updates["ep"] = fixed.ep_at(int(updates["tp"]))
    return parse(Deployment, {**fixed.model_dump(mode="json"), **updates}, "deployment")


def for_engine(fixed: Deployment, engine: str) -> Deployment:
    """A deployment on another engine, the newest release known here; what only the first one has is left out."""
    if engine == fixed.engine:
        return fixed
    kept = fixed.model_dump(mode="json", exclude={"engine_options", "moe_backend"})
    own = {"engine": engine, "engine_version": NEWEST[engine], "chunked_prefill": CHUNKED_BY_DEFAULT[engine]}
    return parse(Deployment, {**kept, **own}, "deployment")


def _workloads(question: Question, study: Study) -> tuple[Workload, ...]:
    """The workloads asked for, else the study's own.

    Raises:
        BadInput: only one of ISL and OSL given, names twice, too many, both ways of asking mixed.
    """
    if (question.isl is None) != (question.osl is None):
        missing = "--osl" if question.osl is None else "--isl"
        raise BadInput(f"{missing} is missing: a workload needs both, as in --isl 4096 --osl 1024.")
    if question.isl is not None and question.workloads:
        raise BadInput("Give either --isl and --osl or --workload, not both.")
    if question.concurrency is not None and question.request_rate_per_s is not None:
        raise BadInput("Give either --concurrency or --request-rate, not both.")
    loads = _concurrencies(question.concurrency)
    rate = question.request_rate_per_s
    if question.isl is not None and question.osl is not None:
        found = crossed(question.isl.split(","), question.osl.split(","), loads, rate)
    else:
        found = _named_workloads(question, study, loads)
    names = [workload.name for workload in found]
    if len(set(names)) < len(names):
        raise BadInput(f"A workload is given twice among {', '.join(names)}.")
    if len(names) > MOST_WORKLOADS:
        raise BadInput(f"These are {too_many(len(names))}")
    return found


def _named_workloads(question: Question, study: Study, loads: Sequence[int | None]) -> tuple[Workload, ...]:
    """Workloads by short name, the study's where none is given; a load that is said goes to names without one.

    Raises:
        BadInput: no workload name, or a load for names that all have one.
    """
    load_said = question.concurrency is not None or question.request_rate_per_s is not None
    names = question.workloads
    if load_said and names and all("_" in name for name in names):
        raise BadInput(
            "--concurrency and --request-rate are for workloads without a load in their name, and "
            f"{', '.join(names)} {'all have' if len(names) > 1 else 'has'} one: leave one of the two out."
        )
    if not names:  # a load on the command line replaces those of the study
        shapes = [name.partition("_")[0] if load_said else name for name in study.workload_names]
        names = tuple(dict.fromkeys(shapes))
    return tuple(
        parse_workload(name, load, question.request_rate_per_s)
        for name in names
        for load in (loads if "_" not in name else (None,))
    )


def _concurrencies(text: str | None) -> tuple[int | None, ...]:
    """`64,256` as numbers; (None,) where nothing was said.

    Raises:
        BadInput: not a list of positive whole numbers.
    """
    if text is None:
        return (None,)
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise BadInput(
            f"--concurrency {text}: {wrong[0]!r} is not a number of requests. Write 256, or several as 64,256."
        )
    return tuple(map(int, parts))
