"""The packages around an installed TensorRT-LLM, and the CUDA that they need."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from advisor.engines.packages import Packages, cuda_needed, read_packages
from tests.standin.fake_install import PACKAGES, VERSION, fake_install, script

PATIENCE_S = 60.0


def test_what_an_interpreter_has(tmp_path: Path) -> None:
    env = fake_install(tmp_path)
    found = read_packages(str(tmp_path / "bin" / "python3"), "tensorrt_llm", env, PATIENCE_S)
    assert found is not None
    assert found.versions == {
        "tensorrt_llm": VERSION,
        **{name.replace("huggingface-hub", "huggingface_hub"): version for name, version in PACKAGES.items()},
    }
    assert (found.python, found.prefix) == (sys.version.split()[0], str(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho 7\n", "#!/bin/sh\necho '{\"python\": 3}'\n"]
)
def test_an_interpreter_that_says_nothing_of_use(tmp_path: Path, text: str) -> None:
    python = script(tmp_path / "python3", text)
    assert read_packages(str(python), "tensorrt_llm", os.environ, PATIENCE_S) is None


@pytest.mark.parametrize(
    ("versions", "env", "expected"),
    [
        ({"nvidia-cuda-runtime-cu12": "12.8.90", "torch": "2.8.0"}, {}, "12.8"),
        ({"nvidia-cuda-runtime": "13.0.96", "torch": "2.9.1+cu130"}, {}, "13.0"),
        ({"torch": "2.9.1+cu130"}, {"CUDA_VERSION": "12.6.1"}, "13.0"),
        ({"torch": "2.7.1+cu128"}, {}, "12.8"),
        ({"torch": "2.9.0a0+145a3a7.nv25.10"}, {"CUDA_VERSION": "13.0.2.006"}, "13.0"),
        ({"torch": "2.9.1"}, {}, None),
        ({}, {"CUDA_VERSION": "none"}, None),
    ],
)
def test_the_cuda_that_pytorch_needs(
    tmp_path: Path, versions: dict[str, str], env: dict[str, str], expected: str | None
) -> None:
    packages = Packages(python="3.12.3", prefix="/usr", versions=versions)
    assert cuda_needed(packages, tmp_path, env) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"cuda": {"version": "12.9.1"}}', "12.9"), ('{"cuda": {"version": 12}}', None), ("{", None)],
)
def test_the_cuda_of_an_image(tmp_path: Path, text: str, expected: str | None) -> None:
    file = tmp_path / "usr/local/cuda/version.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert cuda_needed(Packages(python="3.12.3", prefix="/usr", versions={}), tmp_path, {}) == expected
