"""`advisor explain` as people and scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advisor.app.explaining import Explanation
from advisor.cli.app import app
from advisor.engines.explained import meanings
from advisor.engines.spoken import engine_of
from advisor.engines.trtllm.dialects import dialects
from advisor.engines.trtllm.options import every_option
from advisor.engines.trtllm.spellings import ways_to_say
from advisor.engines.vllm.releases import releases

H100 = ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "h100_sxm", "--no-transfer"]
WORKLOAD = ["--workload", "1k1k_c16"]
TRTLLM = """\
max_batch_size: 512
stream_intervall: 4
cuda_graph_config: {max_batch_size: 64, padding_enabled: true}
kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.85}
"""
VLLM = """\
max_num_seqs: 256
max-num-seq: 3
gpu-memory-utilization: 0.9
enable-prefix-caching: false
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yml"
    path.write_text(TRTLLM)
    return path


def run(*argv: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["explain", *argv])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def document(*argv: str) -> dict[str, Any]:
    code, out, err = run(*argv, "--output", "json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_json_explains_every_key_and_has_the_published_fields(file: Path) -> None:
    found = document(str(file), *H100, *WORKLOAD)
    assert set(found) == set(Explanation.model_fields)
    keys = {key["path"]: key for key in found["keys"]}
    assert {path: key["standing"] for path, key in keys.items() if key["standing"] != "obeyed"} == {
        "stream_intervall": "illegal",
        "cuda_graph_config.padding_enabled": "illegal",
        "max_num_tokens": "default",
    }
    said = {each["about"]: each["message"] for each in found["findings"] if each["severity"] == "error"}
    assert "Did you mean 'stream_interval'?" in said["stream_intervall"]
    assert "Write cuda_graph_config.enable_padding." in said["cuda_graph_config.padding_enabled"]
    assert not found["starts"]
    assert any("share of what profiling leaves free" in each for each in found["changes"])


def test_costs_are_those_of_estimate(file: Path) -> None:
    found = document(str(file), *H100, *WORKLOAD)
    takes = {key["name"]: key["takes_gib"] for key in found["keys"] if key["takes_gib"] is not None}
    memory = found["estimates"][0]["memory_gib"]
    assert takes["max_num_tokens"] == pytest.approx(memory["activations"])
    assert takes["cuda_graph_max_batch_size"] == pytest.approx(memory["cuda_graphs"])
    assert takes["kv_cache_free_gpu_memory_fraction"] == pytest.approx(memory["kv_pool"])
    gained = {key["name"]: key["kv_tokens_gained"] for key in found["keys"]}
    assert gained["kv_cache_dtype"] == pytest.approx(found["estimates"][0]["kv_tokens"] / 2, rel=0.01)


def test_a_vllm_file_is_told_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text(VLLM)
    found = document(str(path), *H100, *WORKLOAD, "--engine-version", "0.24.0")
    assert found["engine"] == "vllm"
    assert any("drops 'enable-prefix-caching: false'" in each for each in found["changes"])
    assert any("share of the whole GPU" in each for each in found["changes"])
    doubtful = [each["message"] for each in found["findings"] if each["about"] == "max-num-seq"]
    assert doubtful == ["Not among the keys of vLLM 0.24.0 that are known here. Did you mean 'max-num-seqs'?"]
    newer = document(str(path), *H100, *WORKLOAD, "--engine-version", "0.32.0")
    assert not any("drops" in each for each in newer["changes"])


def test_layout_of_the_file_and_sizes_that_a_release_ignores(tmp_path: Path) -> None:
    path = tmp_path / "old.yml"
    path.write_text("tensor_parallel_size: 2\nmax_num_tokens: 100\nbuild_config: {max_batch_size: 4}\n")
    found = document(str(path), *H100, *WORKLOAD, "--engine-version", "0.20.0")
    assert (found["deployment"]["tp"], found["deployment"]["gpus"]) == (2, 2)
    assert found["serving_config"]["max_num_tokens"] == 8192
    assert any("max_num_tokens has no effect" in each for each in found["changes"])
    ignored = next(key for key in found["keys"] if key["path"] == "max_num_tokens")
    assert (ignored["standing"], ignored["takes_gib"]) == ("ignored", None)


def test_a_value_that_cannot_be_meant_is_explained_without_a_prediction(tmp_path: Path) -> None:
    path = tmp_path / "percent.yml"
    path.write_text("kv_cache_config: {free_gpu_memory_fraction: 90}\n")
    found = document(str(path), *H100, *WORKLOAD)
    assert (found["starts"], found["serving_config"], found["estimates"]) == (False, None, [])


def test_absurd_values_are_explained_too(tmp_path: Path) -> None:
    path = tmp_path / "absurd.yml"
    for text in (
        "max_num_tokens: 2\nenable_chunked_prefill: true\n",
        "max_num_tokens: 16000000\n",
        "kv-cache-dtype: [fp8]\nmax-num-seqs: 8\n",
    ):
        path.write_text(text)
        code, out, _ = run(str(path), *H100, *WORKLOAD)
        assert code == 0
        assert "it would not serve" in " ".join(out.split())


def test_text_shows_what_a_hostile_file_holds_and_obeys_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text('max-num-seqs: 16\n"[red]\\e[2J\\nadvisor: fine": "\\x9b31m[/]"\n')
    code, out, _ = run(str(path), *H100, *WORKLOAD)
    assert code == 0
    assert not set(out) & set("\x1b\x9b\r")
    assert "[red]\N{SYMBOL FOR ESCAPE}[2J\N{SYMBOL FOR NEWLINE}advisor: fine" in out


def test_what_is_no_configuration_file_is_refused(tmp_path: Path) -> None:
    many = tmp_path / "many.yml"
    many.write_text("".join(f"key_{number}: 1\n" for number in range(1000)))
    large = tmp_path / "large.yml"
    large.write_text(f"stream_interval: {10**400}\n")
    assert "beyond" in run(str(large))[2]
    for path, words in ((tmp_path, "Is a directory"), (tmp_path / "none.yml", "no file"), (many, "1,000 keys")):
        code, out, err = run(str(path))
        assert (code, out) == (2, "")
        assert words in err
    assert run(str(many), "--engine", "twin")[0] == 2


def test_the_engine_by_its_keys() -> None:
    assert engine_of({"max_num_tokens": 1, "kv_cache_config": {}}) == "trtllm"
    assert engine_of({"max_num_seqs": 1, "no-enable-prefix-caching": True}) == "vllm"
    assert engine_of({"trust_remote_code": True}) is None


def test_meanings_are_of_keys_that_exist() -> None:
    known = meanings()
    paths = {path for row in dialects() for path in row.table}
    assert {path for path in known.trtllm if path not in paths} == set()
    assert {path for path in known.trtllm if path in every_option() and ways_to_say(path)[0] != path} == set()
    vllm = {name.replace("_", "-") for row in releases() for name in (*row.options, *row.keys.values())}
    further = {"compilation-config", "disable-uvicorn-access-log", "enforce-eager", "model"}
    assert set(known.vllm) <= vllm | further
    assert set(known.names) >= {name for row in dialects() for name in row.names} | set(releases()[-1].keys)
