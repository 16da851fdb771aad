"""The installed tensorrt_llm as judge, played by a small package on disk that behaves like it where it matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.engines.trtllm.upstream import judged_upstream, validate_with_upstream

INIT = '__version__ = "1.2.0"\nprint("[TensorRT-LLM] TensorRT-LLM version: 1.2.0")\n'
ARGS = """
from pydantic import BaseModel, ConfigDict, Field


class CudaGraphConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    max_batch_size: int = Field(default=0, ge=0)
    enable_padding: bool = False


class TorchLlmArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    enable_attention_dp: bool = False
    cuda_graph_config: CudaGraphConfig | None = None
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, init: str = INIT) -> None:
    package = folder / "tensorrt_llm" / "llmapi"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(init)
    (package / "__init__.py").touch()
    (package / "llm_args.py").write_text(ARGS)
    monkeypatch.syspath_prepend(str(folder))


def test_nothing_is_said_where_it_is_not_installed() -> None:
    assert validate_with_upstream({"enable_attention_dp": True}) is None


def test_its_own_classes_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch)
    fine = {"enable_attention_dp": True, "cuda_graph_config": {"max_batch_size": 1024, "enable_padding": True}}
    assert validate_with_upstream(fine) == []
    errors = validate_with_upstream({"cuda_graph_config": {"max_batch_size": -1, "padding_enabled": True}, "x": 1})
    assert errors is not None
    assert [error.partition(":")[0] for error in errors] == [
        "cuda_graph_config.max_batch_size",
        "cuda_graph_config.padding_enabled",
        "x",
    ]
    verdict = judged_upstream(fine)
    assert verdict is not None
    assert verdict.version == "1.2.0"
    assert capfd.readouterr() == ("", ""), "what it prints on import stays with it"


@pytest.mark.parametrize("broken", ["raise ImportError('libnvinfer.so.10')", "import os; os._exit(3)", "print(1/0)"])
def test_one_that_cannot_be_imported_says_nothing(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, broken)
    assert validate_with_upstream({}) is None
