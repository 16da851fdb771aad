"""Fake GPUs for the tests of the host room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standin.fake_gpus import FakeGpus, build_nvml, load_nvml


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Two H100s that this process's pynvml sees."""
    load_nvml(nvml_library)
    home = tmp_path / "gpus"
    monkeypatch.setenv("FAKE_NVML_HOME", str(home))
    return FakeGpus.build(home, n_gpus=2)
