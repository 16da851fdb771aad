"""Which engine runs a study, and what the machine says about the questions that were left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.app.engines import load_engine
from advisor.app.setup import Question, Resolved, resolve, shipped_study, studied_engine
from advisor.domain.errors import BadInput, EngineMissing
from advisor.domain.ports import Engine, EngineRef
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import changed
from advisor.engines.spoken import ENGINES_SPOKEN, spoken
from advisor.host.gpus import find_gpus, visible

TWIN = "twin"
_SAYS_MORE = {"trtllm": "`advisor check-env` says more; "}


@dataclass(frozen=True)
class Chosen:
    """The engine of a study, the study as it runs on it and, for `auto`, why it is the twin."""

    ref: EngineRef
    engine: Engine
    resolved: Resolved
    why_twin: str | None = None


def choose(
    question: Question, name: str, options: Mapping[str, Mapping[str, OptionValue]], env: Mapping[str, str]
) -> Chosen:
    """The engine to run.

    Args:
        question: What was asked.
        name: An engine by name, which never falls back, or `auto`: that of the study where it can run, else the twin.
        options: Plain options by engine; those of other engines must not have been said.
        env: The environment, for the GPUs that it leaves visible.

    Raises:
        BadInput: anything that cannot be meant.
        EngineMissing: an engine asked for by name cannot run here.
    """
    if name == "auto":
        first = studied_engine(question)
        real = _chosen(question, first, options, env)
        why = real.engine.missing(real.resolved.deployment)
        if why is None:
            _check_options(first, options)
            return real
        if options.get(first):
            raise EngineMissing(f"The launch was described, but it cannot be made here: {why}.")
        twin = _chosen(question, TWIN, options, env)
        return Chosen(twin.ref, twin.engine, twin.resolved, why_twin=why)
    chosen = _chosen(question, name, options, env)
    for other, said in options.items():
        foreign = [option for option in said if option not in options.get(name, {})]
        if foreign:
            raise BadInput(f"--{foreign[0].replace('_', '-')} means nothing to engine {name!r}; it is for {other}.")
    why = chosen.engine.missing(chosen.resolved.deployment)
    if why is not None:
        raise EngineMissing(
            f"Engine {name!r} cannot run here: {why}. {_SAYS_MORE.get(name, '')}--engine {TWIN} simulates instead."
        )
    return chosen


def _check_options(name: str, options: Mapping[str, Mapping[str, OptionValue]]) -> None:
    for other, said in options.items():
        foreign = [option for option in said if option not in options.get(name, {})]
        if foreign:
            flag = "--twin-world" if other == TWIN else f"--{foreign[0].replace('_', '-')}"
            raise BadInput(f"{flag} means nothing to engine {name!r}; use --engine {other}.")


def _chosen(
    question: Question, name: str, options: Mapping[str, Mapping[str, OptionValue]], env: Mapping[str, str]
) -> Chosen:
    ref = EngineRef(name=name, options=dict(options.get(name, {})))
    engine = load_engine(ref)
    if name in ENGINES_SPOKEN:
        question = changed(question, engine=name)
    if engine.identity().source != "measured":
        return Chosen(ref, engine, resolve(question))
    return Chosen(ref, engine, resolve(_as_found_here(question, engine, env), here=True))


def _as_found_here(question: Question, engine: Engine, env: Mapping[str, str]) -> Question:
    """What was left open is answered by the machine: the GPUs, where a study knows them, and the engine's release.

    Raises:
        BadInput: files for one release were asked for, and another one is installed.
    """
    found: dict[str, str] = {}
    systems = {gpu.system for gpu in visible(find_gpus().gpus, env)}
    key = next(iter(systems)) if len(systems) == 1 else None
    is_open = question.gpu is None and question.study is None
    if key is not None and is_open and (question.model is not None or shipped_study(question, key) is not None):
        found["gpu"] = key
    version = engine.identity().version
    if version and question.engine_version is None:
        found["engine_version"] = version
    elif version and question.engine_version is not None:
        asked, here = (spoken(engine.identity().name, each).release for each in (question.engine_version, version))
        if asked != here:
            raise BadInput(
                f"--engine-version {question.engine_version} was asked for, but {version} is installed here, and it "
                "speaks another dialect: leave the option out, or simulate with --engine twin."
            )
    return changed(question, **found) if found else question
