"""The environment of a launch: what advisor sets, and what a configuration asks for, as `environment.yaml` says."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel, parse
from advisor.engines.trtllm.dialects import Dialect, extra_options


class Variable(StrictModel):
    """One entry of the file, where each field is explained."""

    name: str
    when: Literal["always", "local_checkpoint", "asked"]
    value: str | None = None
    why: str


@cache
def variables() -> tuple[Variable, ...]:
    """What stands in the file."""
    text = files("advisor.engines.trtllm").joinpath("environment.yaml").read_text(encoding="utf-8")
    return tuple(parse(Variable, entry, "environment.yaml") for entry in yaml.safe_load(text))


def to_environment(spoken: Dialect, deployment: Deployment, config: ServingConfig) -> dict[str, str]:
    """Variables to set for a launch, beside the environment it inherits.

    Raises:
        BadInput: an option that the release does not have.
    """
    holds = {"always": True, "local_checkpoint": is_folder(deployment.model), "asked": False}
    own = {
        each.name: each.value
        for each in variables()
        if each.value is not None and holds[each.when] and f"${each.name}" in spoken.table
    }
    return {**own, **asked_environment(spoken, config)}


def asked_environment(spoken: Dialect, config: ServingConfig) -> dict[str, str]:
    """The part that changes what is measured: whoever reproduces a result must set it too.

    Raises:
        BadInput: an option that the release does not have.
    """
    asked = extra_options(spoken, config)
    return {name: str(value) for name, value in asked.items() if spoken.option_paths[name].startswith("$")}


def is_folder(model: str) -> bool:
    """True for a checkpoint that is named by its path, false for a name on the hub."""
    return model.startswith(("/", "./", "../", "~"))
