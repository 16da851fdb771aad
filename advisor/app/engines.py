"""Engines by name: what is registered here, and whether it can run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from pydantic import Field

from advisor.domain.errors import BadInput
from advisor.domain.ports import Engine, EngineIdentity, EngineRef
from advisor.domain.strict import StrictModel, unknown_name

ENGINE_GROUP = "advisor.engines"


class EngineEntry(StrictModel):
    """One installed engine."""

    name: str
    identity: EngineIdentity
    missing: str | None = Field(description="Why it cannot launch anything here; null when it can")


def registered() -> list[str]:
    """Names of the engines that installed packages bring."""
    return sorted({point.name for point in entry_points(group=ENGINE_GROUP)})


def available() -> list[EngineEntry]:
    """The registered engines with their own account of themselves."""
    found = [(name, load_engine(EngineRef(name=name))) for name in registered()]
    return [EngineEntry(name=name, identity=engine.identity(), missing=engine.missing(None)) for name, engine in found]


def load_engine(ref: EngineRef) -> Engine:
    """The engine registered under a name, built with plain options.

    Raises:
        BadInput: no such engine is installed, or it does not know an option.
    """
    points = {point.name: point for point in entry_points(group=ENGINE_GROUP)}
    if ref.name not in points:
        raise unknown_name("engine", ref.name, points)
    factory: Callable[..., Engine] = points[ref.name].load()
    try:
        return factory(**ref.options)
    except TypeError as error:
        raise BadInput(f"Engine {ref.name!r} does not take these options: {error}.") from None
