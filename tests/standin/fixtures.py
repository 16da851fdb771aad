"""The fixture through which tests hold a stand-in; nothing of it may outlive them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standin.equipment import StandIn
from tests.standin.fake_gpus import LIBRARY, load_nvml

PATIENCE_S = 5.0
"""How long the end of a worker may take that was told to."""
MakeStandIn = Callable[..., StandIn]


@pytest.fixture
def make_standin(tmp_path: Path) -> Iterator[MakeStandIn]:
    """Builds stand-ins with the arguments of `StandIn`; at the end no process of theirs is left, nor may have been."""
    made: list[StandIn] = []

    def make(*args: Any, **dials: Any) -> StandIn:
        made.append(StandIn(tmp_path / f"machine-{len(made)}", *args, **dials))
        return made[-1]

    yield make
    left = [pid for standin in made for pid in standin.leftovers(PATIENCE_S)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], f"processes of a stand-in were left: {left}"


def inhabit(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process live on the stand-in's machine: its PATH, its packages, its GPUs."""
    load_nvml(standin.folder / "lib" / LIBRARY)
    for name, value in standin.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def standin(make_standin: MakeStandIn) -> StandIn:
    """The usual one: TensorRT-LLM 1.1.0, one H100, Llama-3.1-8B."""
    return make_standin()
