"""The installed tensorrt_llm as judge, played by a small package on disk that behaves like it where it matters."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from advisor.engines.trtllm.upstream import UpstreamJudge

INIT = '__version__ = "1.2.0"\nprint("[TensorRT-LLM] TensorRT-LLM version: 1.2.0")\n'
ARGS = """
from pydantic import BaseModel, ConfigDict, Field, model_validator


class CudaGraphConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    max_batch_size: int = Field(default=0, ge=0)
    enable_padding: bool = False


class TorchLlmArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    enable_attention_dp: bool = False
    max_batch_size: int = 2048
    cuda_graph_config: CudaGraphConfig | None = None
    load_format: str = "auto"

    @model_validator(mode="after")
    def slow_and_deadly(self):
        import os, time
        if self.load_format == "slow":
            time.sleep(60)
        if self.load_format == "deadly":
            os._exit(3)
        return self
"""
# As upstream: every flag into a dict, the file over it, then the engine, which touches the GPU. `main` and the error
# behave like those of click, which need not be installed here.
SERVE = """
import argparse, os
import yaml


class UsageError(Exception):
    def format_message(self):
        return f"Usage: {self}"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


def launch_server(host, port, llm_args, metadata_server_cfg=None):
    raise RuntimeError("a GPU was touched")


class serve:
    @staticmethod
    def main(args, standalone_mode):
        parser = Parser()
        parser.add_argument("model")
        parser.add_argument("--host", default="localhost")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--max_batch_size", type=int, default=2048)
        parser.add_argument("--extra_llm_api_options", "--config")
        asked = parser.parse_args(args)
        if os.environ.get("NO_GPU"):
            raise ValueError("No GPU devices found on the node")
        llm_args = {"model": asked.model, "max_batch_size": asked.max_batch_size, "build_config": object()}
        with open(asked.extra_llm_api_options) as file:
            document = yaml.safe_load(file) or {}
        launch_server(asked.host, asked.port, llm_args | document, metadata_server_cfg=None)
"""
ARGV = ("trtllm-serve", "a/model", "--max_batch_size", "64", "--extra_llm_api_options", "not/there.yml", "--port", "1")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, init: str = INIT, serve: str | None = None) -> None:
    package = folder / "tensorrt_llm"
    (package / "llmapi").mkdir(parents=True)
    (package / "__init__.py").write_text(init)
    (package / "llmapi" / "__init__.py").touch()
    (package / "llmapi" / "llm_args.py").write_text(ARGS)
    if serve is not None:
        (package / "commands").mkdir()
        (package / "commands" / "__init__.py").touch()
        (package / "commands" / "serve.py").write_text(serve)
    monkeypatch.syspath_prepend(str(folder))


def test_it_is_unavailable_where_nothing_is_installed() -> None:
    with UpstreamJudge() as judge:
        verdict = judge.verdict((), {"enable_attention_dp": True})
    assert (verdict.status, verdict.reason) == ("unavailable", "tensorrt_llm is not installed beside advisor.")


def test_its_own_classes_judge_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch)
    with UpstreamJudge() as judge:
        fine = judge.verdict((), {"enable_attention_dp": True, "cuda_graph_config": {"max_batch_size": 1024}})
        bad = judge.verdict((), {"cuda_graph_config": {"max_batch_size": -1, "padding_enabled": True}, "x": 1})
        without_serve = judge.verdict(ARGV, {})
    assert (fine.status, fine.version, fine.errors, fine.through) == ("accepted", "1.2.0", (), "class")
    assert fine.effective["cuda_graph_config.max_batch_size"] == 1024
    assert bad.status == "refused"
    assert [error.partition(":")[0] for error in bad.errors] == [
        "cuda_graph_config.max_batch_size",
        "cuda_graph_config.padding_enabled",
        "x",
    ]
    assert (without_serve.status, without_serve.through) == ("accepted", "class")
    assert capfd.readouterr() == ("", ""), "what it prints on import stays with it"


def test_command_line_and_file_meet_as_upstream_merges_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, serve=SERVE)
    with UpstreamJudge() as judge:
        flag = judge.verdict(ARGV, {"enable_attention_dp": True})
        file = judge.verdict((*ARGV[:1], "serve", *ARGV[1:]), {"max_batch_size": 32})
        illegal = judge.verdict(ARGV, {"max_batchsize": 32})
        unknown_flag = judge.verdict((*ARGV, "--max_batches", "3"), {})
        no_file_named = judge.verdict(("trtllm-serve", "a/model"), {"max_batch_size": 16})
    assert (flag.status, flag.through, flag.effective["max_batch_size"]) == ("accepted", "command_line", 64)
    assert file.effective["max_batch_size"] == 32
    assert illegal.errors == ("max_batchsize: Extra inputs are not permitted",)
    assert (unknown_flag.status, "--max_batches" in unknown_flag.errors[0]) == ("refused", True)
    assert no_file_named.effective["max_batch_size"] == 16


def test_without_any_gpu_the_file_is_judged_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, serve=SERVE)
    monkeypatch.setenv("NO_GPU", "1")
    with UpstreamJudge() as judge:
        verdict = judge.verdict(ARGV, {"max_batch_size": 16})
    assert (verdict.status, verdict.through, verdict.effective["max_batch_size"]) == ("accepted", "class", 16)


def test_one_process_imports_once_and_equal_questions_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = tmp_path / "imports"
    install(tmp_path, monkeypatch, INIT + f"import os\nopen({str(imports)!r}, 'a').write(f'{{os.getpid()}}\\n')\n")
    with UpstreamJudge() as judge:
        first = [judge.verdict((), {"max_batch_size": size}) for size in (1, 2, 1)]
        judge.close()
        assert judge.verdict((), {"max_batch_size": 2}) == first[1], "what was answered needs no process"
        assert len(imports.read_text().split()) == 1
        judge.verdict((), {"max_batch_size": 3})
    pids = [int(pid) for pid in imports.read_text().split()]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("raise ImportError('libnvinfer.so.10')", "ImportError: libnvinfer.so.10"),
        ("raise SystemExit(2)", "SystemExit: 2"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
    ],
)
def test_one_that_cannot_be_imported_says_why_and_is_not_tried_again(
    broken: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, broken)
    with UpstreamJudge() as judge:
        first = judge.verdict((), {})
        (tmp_path / "tensorrt_llm" / "__init__.py").write_text(INIT)
        again = judge.verdict((), {})
    assert first == again
    assert (first.status, words in (first.reason or "")) == ("unavailable", True)


def test_import_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "import time; time.sleep(60)")
    with UpstreamJudge(start_timeout_s=0.5) as judge:
        assert judge.verdict((), {}).reason == "tensorrt_llm cannot be imported: no answer within 0.5 s."


def test_verdict_has_a_deadline_and_a_dead_process_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    with UpstreamJudge(verdict_timeout_s=0.5) as judge:
        slow = judge.verdict((), {"load_format": "slow"})
    with UpstreamJudge() as judge:
        deadly = judge.verdict((), {"load_format": "deadly"})
        after = judge.verdict((), {})
    assert slow.reason == "tensorrt_llm 1.2.0 gave no verdict: no answer within 0.5 s."
    assert deadly.reason == "tensorrt_llm 1.2.0 gave no verdict: it ended with code 3."
    assert after.status == "accepted"


def test_another_interpreter_has_its_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={os.pathsep.join(sys.path)} exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(tmp_path)])
    with UpstreamJudge(str(other)) as judge:
        assert judge.verdict((), {}).version == "1.2.0"
    with UpstreamJudge(str(tmp_path / "nowhere")) as judge:
        assert "cannot be started" in (judge.verdict((), {}).reason or "")
