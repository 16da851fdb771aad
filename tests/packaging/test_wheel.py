"""The wheel: what is in it, and that it does the main job from an empty environment."""

from __future__ import annotations

import configparser
import subprocess
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
import yaml

from tests.packaging.environment import CONSTRAINTS, ROOT, Environment, contents

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("packaging-wheel")]

DATA_FOLDERS = ("search_spaces", "studies")
MAX_WHEEL_MB = 15
MAX_ENVIRONMENT_MIB = 250
HEAVY = {"torch", "pandas", "scipy", "tensorrt-llm", "kaleido", "optuna-dashboard"}


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and what it needs, at the pinned versions."""
    made = Environment(tmp_path_factory.mktemp("installed") / "venv")
    made.install("--constraint", str(CONSTRAINTS), str(wheel))
    return made


def dist_info(wheel: Path) -> dict[str, bytes]:
    """Files of the wheel's metadata folder, by name inside it."""
    return {name.split("/", 1)[1]: data for name, data in contents(wheel).items() if ".dist-info/" in name}


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    return BytesParser().parsebytes(dist_info(wheel)["METADATA"])


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_MB * 1e6


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "advisor").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for folder in DATA_FOLDERS:
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "evidence" not in path.parts]
        assert files, f"{folder}/ is empty"
        expected |= {f"advisor/{path.relative_to(ROOT)}" for path in files}
    assert names == expected
    assert "advisor/py.typed" in names


def test_sdist_builds_the_same_wheel(wheel: Path, sdist_wheel: Path) -> None:
    direct, by_sdist = contents(wheel), contents(sdist_wheel)
    assert set(direct) == set(by_sdist)
    assert [name for name in direct if direct[name] != by_sdist[name]] == []


def test_metadata(wheel: Path) -> None:
    fields = metadata(wheel)
    assert fields["Name"] == "trtllm-advisor"
    assert fields["License-Expression"] == "Apache-2.0"
    assert set(fields["Requires-Python"].split(",")) == {">=3.10", "<3.14"}
    assert {"trtllm", "aic", "images", "dashboard", "dev"} <= set(fields.get_all("Provides-Extra", []))
    files = dist_info(wheel)
    assert b"Apache License" in files["licenses/LICENSE"]
    assert b"AIConfigurator" in files["licenses/NOTICE"]
    entry_points = configparser.ConfigParser()
    entry_points.read_string(files["entry_points.txt"].decode())
    assert entry_points["console_scripts"]["advisor"] == "advisor.cli.main:main"
    assert entry_points["advisor.engines"]["twin"] == "advisor.engines.simulated:SimulatedEngine"


def test_installation_is_light(environment: Environment) -> None:
    assert HEAVY & set(environment.freeze()) == set()
    assert environment.conflicts() == []
    assert environment.size_mib() <= MAX_ENVIRONMENT_MIB


def test_installed_command_knows_the_shipped_studies(environment: Environment) -> None:
    shown = environment.advisor("studies", "--output", "json", folder=environment.folder)
    for study in (ROOT / "studies").glob("*.yaml"):
        assert f'"{study.stem}"' in shown


@pytest.mark.parametrize("space", sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml")))
def test_installed_command_finds_search_spaces_by_name(environment: Environment, space: str, tmp_path: Path) -> None:
    flags = ("--isl", "256", "--osl", "64", "--engine", "twin", "--dry-run", "--search-space", space)
    assert environment.advisor("tune", *flags, "--out", str(tmp_path), folder=tmp_path)


def test_main_job_from_an_empty_environment(environment: Environment, tmp_path: Path) -> None:
    document = environment.tune(isl=4096, osl=1024, out=tmp_path / "results")
    assert document["source"] == "simulated"
    (written,) = (tmp_path / "results").rglob("4k1k_*/extra-llm-api-config.yml")
    text = written.read_text()
    assert "simulated by the twin" in text
    settings = yaml.safe_load(text)
    assert settings["cuda_graph_config"]["max_batch_size"] > 0
    assert 0 < settings["kv_cache_config"]["free_gpu_memory_fraction"] < 1


def test_the_dashboard_is_an_extra_and_says_how_to_get_it(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "ledger.journal").touch()
    advisor = [str(environment.python.parent / "advisor"), "dashboard", str(tmp_path)]
    said = subprocess.run(advisor, capture_output=True, text=True, check=False, timeout=300)
    assert said.returncode == 2
    assert "pip install 'trtllm-advisor[dashboard]'" in said.stderr
