"""The wheel beside TensorRT-LLM's pins (numpy<2): nothing installed changes, and the twin runs there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.packaging.environment import Environment

PINS = Path(__file__).parent / "trtllm_pins.txt"

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("packaging-trtllm"),
    pytest.mark.skipif(
        sys.version_info >= (3, 13), reason="TensorRT-LLM and numpy 1.26 have no builds for Python 3.13"
    ),
]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment that holds what a TensorRT-LLM container holds of our dependencies."""
    made = Environment(tmp_path_factory.mktemp("container") / "venv")
    made.install("--requirement", str(PINS))
    return made


def test_installing_changes_no_installed_package_and_the_twin_runs(
    container: Environment, wheel: Path, tmp_path: Path
) -> None:
    before = container.freeze()
    assert before["numpy"].startswith("1.26.")
    container.install(str(wheel))
    after = container.freeze()
    assert {name: after.get(name) for name in before} == before
    assert "trtllm-advisor" in after
    assert container.conflicts() == []
    document = container.tune(isl=256, osl=64, out=tmp_path / "results")
    assert document["source"] == "simulated"
    assert list((tmp_path / "results").rglob("extra-llm-api-config.yml"))
