"""Which dialect a deployment is spoken to in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from advisor.domain.deployment import Deployment
from advisor.domain.strict import unknown_name
from advisor.engines.dialect import EngineDialect
from advisor.engines.trtllm.options import every_option
from advisor.engines.trtllm.spoken import trtllm_dialect
from advisor.engines.vllm.releases import releases
from advisor.engines.vllm.spoken import vllm_dialect

_DIALECTS: Mapping[str, Callable[[str], EngineDialect]] = {
    "trtllm": trtllm_dialect,
    "vllm": vllm_dialect,
}
NEWEST: Mapping[str, str] = {"trtllm": "1.2.0", "vllm": releases()[-1].release}
"""The release that a study is about where it names another engine and none is installed."""
ENGINES_SPOKEN = tuple(_DIALECTS)  # whose files a study can be about


def spoken(engine: str, version: str) -> EngineDialect:
    """The dialect of a version of an engine, with a `warning` where it is not a release that was read.

    Raises:
        BadInput: an engine without a dialect here, not a version, or one older than all known.
    """
    if engine not in _DIALECTS:
        raise unknown_name("engine in the study", engine, ENGINES_SPOKEN)
    return _DIALECTS[engine](version)


def spoken_by(deployment: Deployment) -> EngineDialect:
    """The dialect of a deployment.

    Raises:
        BadInput: as `spoken`.
    """
    return spoken(deployment.engine, deployment.engine_version)


def engine_of(document: Mapping[str, Any]) -> str | None:
    """The engine whose keys a file has more of; None where it says nothing."""
    plain = [str(key).replace("_", "-").removeprefix("no-") for key in document]
    row = releases()[-1]
    vllm = {*row.keys.values(), *(name.replace("_", "-") for name in row.options)}
    trtllm = {option.replace("_", "-") for option in every_option()}
    n_vllm, n_trtllm = (sum(key in known for key in plain) for known in (vllm, trtllm))
    return None if n_vllm == n_trtllm else "vllm" if n_vllm > n_trtllm else "trtllm"
