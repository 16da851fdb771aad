"""The fixture through which tests hold a stand-in; nothing of it may outlive them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standin.equipment import StandIn

MakeStandIn = Callable[..., StandIn]


@pytest.fixture
def make_standin(tmp_path: Path) -> Iterator[MakeStandIn]:
    """Builds stand-ins with the arguments of `StandIn`; at the end no process and no GiB of theirs is left."""
    made: list[StandIn] = []

    def make(*args: Any, **dials: Any) -> StandIn:
        made.append(StandIn(tmp_path / f"machine-{len(made)}", *args, **dials))
        return made[-1]

    yield make
    for standin in made:
        left = standin.leftovers()
        assert left == [], f"processes of a stand-in were left: {left}"
        held = {name for index in range(standin.n_gpus) for name in standin.gpus.holders(index)}
        assert {name for name in held if not name.startswith("leak-")} == set(), "GPU memory was left"


@pytest.fixture
def standin(make_standin: MakeStandIn) -> StandIn:
    """The usual one: TensorRT-LLM 1.1.0, one H100, Llama-3.1-8B."""
    return make_standin()
