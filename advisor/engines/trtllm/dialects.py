"""What one TensorRT-LLM release understands, as data: a row of `releases.yaml` found by version.

Everything that differs between releases stands in that table; no code asks for a version number.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field

from advisor.domain.deployment import OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed, did_you_mean, parse
from advisor.engines.trtllm.versions import version_key
from advisor.twin.graphs import LadderRule

OptionType = Literal["bool", "int", "float", "str"]

_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int), "str": (str,)}


class Defaults(StrictModel):
    """What `trtllm-serve` uses where neither flag nor YAML speaks."""

    max_batch_size: int
    max_num_tokens: int
    cuda_graph_max_batch_size: int
    kv_cache_free_gpu_memory_fraction: float


class Dialect(StrictModel):
    """One row of `releases.yaml`, where each field is explained."""

    release: str
    warning: str | None = Field(default=None, description="Set when the version asked for has no row of its own")
    flags: dict[str, str]
    keys: dict[str, str]
    graphs_on: dict[str, bool | None]
    graphs_off: dict[str, bool | None]
    size_limits_in_yaml: bool
    kv_cache_config_merges: bool
    explicit_flag_wins: bool
    graph_ladder: LadderRule
    kv_cache_dtypes: dict[str, str]
    moe_backends: tuple[str, ...]
    defaults: Defaults
    options: dict[str, OptionType]
    structured: tuple[str, ...]


@cache
def dialects() -> tuple[Dialect, ...]:
    """All known releases, oldest first."""
    text = files("advisor.engines.trtllm").joinpath("releases.yaml").read_text(encoding="utf-8")
    return tuple(parse(Dialect, row, "releases.yaml") for row in yaml.safe_load(text)["releases"])


def dialect(version: str) -> Dialect:
    """The dialect of a release; with a `warning` where the version has no row of its own.

    A version between two rows speaks the older one: its spelling is the one both understand. A version newer than all
    rows speaks the newest.

    Raises:
        BadInput: not a version, or older than the oldest known release.
    """
    rows = dialects()
    key = version_key(version)
    spoken = [row for row in rows if version_key(row.release) <= key]
    known = ", ".join(row.release for row in rows)
    if not spoken:
        raise BadInput(
            f"TensorRT-LLM {version} is older than every release whose options are known here; "
            f"name one of {known} with --engine-version, or later."
        )
    row = spoken[-1]
    if version_key(row.release) == key:
        return row
    age = "newer than every known release" if row is rows[-1] else "not one of the known releases"
    warning = f"TensorRT-LLM {version} is {age} ({known}); its options are spelled as for {row.release}, unchecked."
    return changed(row, warning=warning)


def default_config(spoken: Dialect) -> ServingConfig:
    """The four settings that the release uses when nothing is said."""
    return ServingConfig(**spoken.defaults.model_dump())


def extra_options(spoken: Dialect, config: ServingConfig) -> dict[str, OptionValue]:
    """Options of a configuration that are no field of the deployment: further top-level keys of the release.

    Raises:
        BadInput: the release has no such key, or the value has the wrong type.
    """
    extra = {name: value for name, value in config.options.items() if name not in OPTION_FIELDS}
    for name, value in extra.items():
        check_option(spoken, name, value)
    return extra


def check_option(spoken: Dialect, name: str, value: OptionValue) -> None:
    """Refuse an option that is neither a field of the deployment nor a further top-level key of the release.

    Raises:
        BadInput: the release has no such key, or the value has the wrong type.
    """
    if name in OPTION_FIELDS:
        return
    wanted = spoken.options.get(name)
    if wanted is None:
        known = [*spoken.options, *OPTION_FIELDS]
        raise BadInput(
            f"TensorRT-LLM {spoken.release} has no option {name!r} that can be set here."
            f"{did_you_mean(name, known)} Known: {', '.join(sorted(known))}."
        )
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "bool"):
        raise BadInput(f"Option {name!r} of TensorRT-LLM {spoken.release} takes a {wanted}, not {value!r}.")


def kv_dtype_can_be_had(spoken: Dialect, deployment: Deployment) -> bool:
    """True when the release has a word for the KV type, or `auto` already means it for this checkpoint."""
    wanted = deployment.kv_cache_dtype
    return wanted in spoken.kv_cache_dtypes or changed(deployment, kv_cache_dtype="auto").kv_dtype == wanted


def kv_dtype_refusal(spoken: Dialect, deployment: Deployment) -> str:
    """Why that KV type cannot be had, and the way out."""
    return (
        f"TensorRT-LLM {spoken.release} cannot be told to keep a {deployment.kv_cache_dtype} KV cache for this "
        f"{deployment.quantization} checkpoint: it accepts {', '.join(sorted(spoken.kv_cache_dtypes))} only. Use auto."
    )
