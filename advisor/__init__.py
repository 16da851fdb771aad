"""Config advisor and OOM autotuner for `trtllm-serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.app.api import diagnose as diagnose
    from advisor.app.api import estimate as estimate
    from advisor.app.api import plan as plan
    from advisor.app.api import tune as tune
    from advisor.domain.deployment import Deployment as Deployment
    from advisor.domain.objective import Objective as Objective
    from advisor.domain.objective import Slo as Slo
    from advisor.domain.serving_config import ServingConfig as ServingConfig
    from advisor.domain.workload import Workload as Workload

_HOMES = {
    "Deployment": "advisor.domain.deployment",
    "Objective": "advisor.domain.objective",
    "ServingConfig": "advisor.domain.serving_config",
    "Slo": "advisor.domain.objective",
    "Workload": "advisor.domain.workload",
    "diagnose": "advisor.app.api",
    "estimate": "advisor.app.api",
    "plan": "advisor.app.api",
    "tune": "advisor.app.api",
}

__all__ = [
    "Deployment",
    "Objective",
    "ServingConfig",
    "Slo",
    "Workload",
    "__version__",
    "diagnose",
    "estimate",
    "plan",
    "tune",
]


def __getattr__(name: str) -> object:
    """Public names, loaded when they are first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("trtllm-advisor")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
