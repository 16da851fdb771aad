"""Which engine runs: by name, or `auto` by what is found here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import entry_points

from advisor.domain.errors import BadInput, EngineMissing
from advisor.domain.ports import Engine, EngineIdentity, EngineRef
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, unknown_name

ENGINE_GROUP = "advisor.engines"
PLANNED = {"trtllm": "trtllm-serve", "vllm": "vllm"}


class EngineEntry(StrictModel):
    """One installed engine."""

    name: str
    identity: EngineIdentity


def available() -> list[EngineEntry]:
    """The engines registered by installed packages, with their own account of themselves."""
    names = sorted(point.name for point in entry_points(group=ENGINE_GROUP))
    return [EngineEntry(name=name, identity=load_engine(EngineRef(name=name)).identity()) for name in names]


def load_engine(ref: EngineRef) -> Engine:
    """The engine registered under a name, built with plain options.

    Raises:
        BadInput: no such engine is installed, or it does not know an option.
    """
    registered = {point.name: point for point in entry_points(group=ENGINE_GROUP)}
    if ref.name not in registered:
        raise unknown_name("engine", ref.name, registered)
    factory: Callable[..., Engine] = registered[ref.name].load()
    try:
        return factory(**ref.options)
    except TypeError as error:
        raise BadInput(f"Engine {ref.name!r} does not take these options: {error}.") from None


def choose(name: str, options: dict[str, OptionValue]) -> tuple[EngineRef, str | None]:
    """The engine to run and, for `auto`, why it is the twin.

    Raises:
        EngineMissing: an engine asked for by name is not to be had; it never falls back.
    """
    registered = {point.name for point in entry_points(group=ENGINE_GROUP)}
    if name == "auto":
        if "trtllm" in registered and shutil.which("trtllm-serve"):
            return EngineRef(name="trtllm"), None
        why = "trtllm-serve is not installed here"
        if shutil.which("trtllm-serve"):
            why = "this version of advisor does not launch trtllm-serve yet"
        return EngineRef(name="twin", options=options), why
    if name not in registered and name in PLANNED:
        raise EngineMissing(
            f"Engine {name!r} is not in this version of advisor, which launches the twin only. "
            f"Use --engine twin to tune on the simulator and run the {PLANNED[name]} command it writes, "
            "or install a package that registers the engine under `advisor.engines`."
        )
    return EngineRef(name=name, options=options if name == "twin" else {}), None
