"""`advisor check-env`: look at this machine, say what is missing to launch the engine, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from advisor.app.checks import checkpoint, engine, gpu, host
from advisor.app.checks.facts import Facts
from advisor.app.checks.finding import Finding, Way, miss, warning
from advisor.app.env_facts import gather
from advisor.app.setup import Question, studied_engine
from advisor.domain.deployment import Quantization
from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel, unknown_name
from advisor.engines.spoken import ENGINES_SPOKEN, spoken
from advisor.store import catalog

AREAS = {"engine": engine, "gpu": gpu, "host": host, "checkpoint": checkpoint}


class EnvReport(StrictModel):
    """`advisor check-env --output json`: whether the engine can be launched here, and everything that says so."""

    schema_version: Literal[1] = 1
    launchable: bool = Field(description="No finding is a miss; the exit code is 0 then, else 4")
    findings: tuple[Finding, ...]
    facts: Facts


def check_env(
    question: Question, container_image: str | None, env: Mapping[str, str], root: Path = Path("/")
) -> EnvReport:
    """Look at this machine.

    Args:
        question: Of it the model, the layout, the study, the engine and its release count.
        container_image: Image that the server would run in; None: it is installed here.
        env: The environment of a launch.
        root: Of the file system that describes the host.

    Raises:
        BadInput: a study, GPU, quantization, engine or release that nobody knows.
    """
    _check_names(question)
    facts = gather(question, container_image, env, root)
    findings = tuple(judge(facts))
    return EnvReport(launchable=all(each.level != "miss" for each in findings), findings=findings, facts=facts)


def judge(facts: Facts) -> Iterator[Finding]:
    """What the facts mean, area by area; of an area that could not be looked at, only that."""
    for name, area in AREAS.items():
        trouble = facts.unread.get(name)
        if trouble is None:
            yield from area.findings(facts)
        else:
            say = warning if name == "host" else miss  # a launch reads the others itself, and would hang or fail there
            yield say(
                f"{name}.unread",
                f"This could not be looked at: {trouble}.",
                "Nothing of it was checked.",
                Way(what="Look at what hangs or fails there (`df`, `mount`, `dmesg`), and ask again."),
            )


def _check_names(question: Question) -> None:
    if question.model is not None and not question.model.strip():
        raise BadInput("--model is empty: name a model on the hub or the folder of a checkpoint.")
    if question.study is not None:
        catalog.study(question.study)
    if question.gpu is not None:
        catalog.gpu_facts(question.gpu)
    if question.engine is not None and question.engine not in ENGINES_SPOKEN:
        raise unknown_name("engine", question.engine, ENGINES_SPOKEN)
    if question.engine_version is not None:
        spoken(question.engine or studied_engine(question), question.engine_version)
    if question.quant is not None and question.quant not in get_args(Quantization):
        raise unknown_name("quantization", question.quant, get_args(Quantization))
