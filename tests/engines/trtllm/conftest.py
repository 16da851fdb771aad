"""Machines for the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.trtllm.rig import MakeRig, Rig
from tests.standin.fixtures import MakeStandIn, inhabit


@pytest.fixture
def make_rig(make_standin: MakeStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRig:
    """Builds machines with faults, and lets this process live on the last one."""

    def make(*faults: dict[str, Any], **dials: Any) -> Rig:
        standin = make_standin(faults=faults, **dials)
        inhabit(standin, monkeypatch)
        return Rig(standin, tmp_path)

    return make
