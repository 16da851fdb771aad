"""What one vLLM release understands, as data: a row of `releases.yaml` found by version.

Everything that differs between releases stands in that table; no code asks for a version number.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from advisor.domain.deployment import OPTION_FIELDS, GpuFacts
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed, did_you_mean, parse
from advisor.domain.units import gib
from advisor.engines.versions import version_key

BLACKWELL = (10, 0)

OptionType = Literal["bool", "int", "float", "str"]
_TYPES: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int), "str": (str,)}


class Sizes(StrictModel):
    """Default sizes on the GPUs that the row is about."""

    least_gib: float = 0.0
    only_on: str | None = None
    not_on: str | None = None
    max_num_seqs: int
    max_num_batched_tokens: int

    def apply_to(self, gpu: GpuFacts) -> bool:
        """True when the row is about a GPU."""
        named = (self.only_on or gpu.name) == gpu.name and not (self.not_on and gpu.name.startswith(self.not_on))
        return named and gib(gpu.memory_bytes) >= self.least_gib


class Release(StrictModel):
    """One row of `releases.yaml`, where each field is explained."""

    release: str
    since: str
    warning: str | None = Field(default=None, description="Set when the version asked for has no row of its own")
    no_in_file: bool
    gpu_memory_utilization: float
    sizes: tuple[Sizes, ...]
    largest_graph: int
    largest_graph_on_blackwell: int
    kv_cache_dtypes: dict[str, str]
    options: dict[str, OptionType]
    keys: dict[str, str]
    changes_answers: tuple[str, ...]


@cache
def releases() -> tuple[Release, ...]:
    """All known releases, oldest first."""
    text = files("advisor.engines.vllm").joinpath("releases.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    rows: list[Release] = []
    row: dict[str, Any] = {**{name: document[name] for name in ("keys", "changes_answers")}, "options": {}}
    for own in document["releases"]:
        options = {**row["options"], **own["options"]}
        row = {**row, **own, "options": {name: kind for name, kind in options.items() if kind is not None}}
        rows.append(parse(Release, row, "releases.yaml"))
    return tuple(rows)


def release_of(version: str) -> Release:
    """The row of a version, that of the older neighbour where it has none of its own; local parts do not matter.

    Raises:
        BadInput: not a version, or older than the oldest known release.
    """
    key, rows = version_key(version), releases()
    known = ", ".join(row.release for row in rows)
    spoken = [row for row in rows if version_key(row.since) <= key]
    if not spoken:
        raise BadInput(
            f"vLLM {version} is older than every release whose options are known here ({known}); install a newer one."
        )
    row = spoken[-1]
    if version_key(row.release) == key:
        return row
    age = "newer than every known release" if row is rows[-1] else "not one of the known releases"
    return changed(
        row, warning=f"vLLM {version} is {age} ({known}); its options are spelled as for {row.release}, unchecked."
    )


def default_config(row: Release, gpu: GpuFacts) -> ServingConfig:
    """The four settings that `vllm serve` uses on a GPU when nothing is said."""
    sizes = next(each for each in row.sizes if each.apply_to(gpu))
    largest = row.largest_graph_on_blackwell if gpu.compute_capability[0] == BLACKWELL[0] else row.largest_graph
    return ServingConfig(
        max_batch_size=sizes.max_num_seqs,
        max_num_tokens=sizes.max_num_batched_tokens,
        cuda_graph_max_batch_size=min(2 * sizes.max_num_seqs, largest),
        kv_cache_free_gpu_memory_fraction=row.gpu_memory_utilization,
    )


def canonical(row: Release, name: str) -> str:
    """The name under which advisor knows a dimension: its own, however vLLM's key is spelled."""
    plain = name.removeprefix("--").replace("_", "-")
    neutral = next((own for own, key in row.keys.items() if key == plain), name)
    if neutral in (*OPTION_FIELDS, *FOUR_SETTINGS):
        return neutral
    return plain.replace("-", "_") if plain.replace("-", "_") in row.options else name


def check_option(row: Release, name: str, value: OptionValue) -> None:
    """Refuse an option that is neither a field of the deployment nor a further one of the release.

    Raises:
        BadInput: the release has no such option, or it is of another type.
    """
    if name in OPTION_FIELDS:
        return
    wanted = row.options.get(name)
    if wanted is None:
        known = [*row.options, *OPTION_FIELDS]
        raise BadInput(
            f"vLLM {row.release} has no option {name!r} that can be set here.{did_you_mean(name, known)} "
            f"Known: {', '.join(sorted(known))}."
        )
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "bool"):
        raise BadInput(f"Option {name!r} of vLLM {row.release} takes a {wanted}, not {value!r}.")
