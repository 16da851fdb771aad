"""`advisor check-env` as people meet it, in real processes: with and without GPUs, an engine, a checkpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml
import pytest
from typer.testing import CliRunner

from advisor.app.checking import EnvReport
from advisor.cli.app import app
from advisor.engines.installed import PROGRAMS
from tests.end_to_end.command import advisor
from tests.standin.fake_gpus import FakeGpus, build_nvml
from tests.standin.fake_install import SYSTEM_PATH, fake_install, script
from tests.store.checkpoint_folders import LLAMA_8B, MODELOPT_FP8, checkpoint, in_cache, shard

pytestmark = pytest.mark.system

GIB = 1 << 30
SECRET = "hf_DoNotShowThisToAnybody"
CUDA_13 = "13000"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def bare(tmp_path: Path, library: Path) -> dict[str, str]:
    """No engine, no GPU driver that is loaded, no MPI, an empty home."""
    (tmp_path / "home").mkdir()
    return {
        "PATH": SYSTEM_PATH,
        "HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "home" / "hf"),
        "LD_LIBRARY_PATH": str(library.parent),
    }


@pytest.fixture
def equipped(tmp_path: Path, bare: dict[str, str], library: Path) -> tuple[dict[str, str], FakeGpus]:
    """Two H100s, and TensorRT-LLM with its MPI."""
    gpus = FakeGpus.build(tmp_path / "gpus", n_gpus=2)
    (gpus.home / "cuda").write_text(CUDA_13)
    installed = fake_install(tmp_path / "trt")
    (tmp_path / "trt/lib/libmpi.so.40").touch()
    script(tmp_path / "trt/bin/hf", "#!/bin/sh\nexit 1\n")
    return {**bare, **installed, **gpus.env(library)}, gpus


def asked(tmp_path: Path, env: dict[str, str], *argv: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Exit code, the document, and the level of each finding that is not ok."""
    done = advisor("check-env", *argv, "--output", "json", cwd=tmp_path, **env)
    assert done.stderr == ""
    assert SECRET not in done.stdout
    report = EnvReport.model_validate_json(done.stdout)
    assert (done.returncode == 0) is report.launchable
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found, {each.id: each.level for each in report.findings if each.level != "ok"}


def test_vllm_is_looked_for_where_it_is_meant(tmp_path: Path, bare: dict[str, str], library: Path) -> None:
    gpus = FakeGpus.build(tmp_path / "gpus", n_gpus=1)
    (gpus.home / "cuda").write_text(CUDA_13)
    installed = fake_install(tmp_path / "v", "0.24.0", {"torch": "2.11.0"}, PROGRAMS["vllm"])
    env = {**bare, **installed, **gpus.env(library)}
    code, found, levels = asked(tmp_path, env, "--engine", "vllm")
    assert (code, misses(levels)) == (0, set())
    assert found["facts"]["engine"]["installation"]["version"] == "0.24.0"
    assert "vllm can be launched here" in advisor("check-env", "--engine", "vllm", cwd=tmp_path, **env).stdout
    code, _, levels = asked(tmp_path, env)
    assert (code, misses(levels)) == (4, {"engine.serve"}), "without a word it is about TensorRT-LLM"


def misses(levels: dict[str, str]) -> set[str]:
    return {id_ for id_, level in levels.items() if level == "miss"}


@contextmanager
def process() -> Iterator[int]:
    """Somebody else's, by its pid."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        yield other.pid
    finally:
        other.kill()
        other.wait()


def test_a_machine_with_nothing_is_told_what_to_do(tmp_path: Path, bare: dict[str, str]) -> None:
    done = advisor("check-env", "--gpu", "b200_sxm", cwd=tmp_path, **bare)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.startswith("trtllm-serve cannot be launched here (2 misses")
    for words in (
        "trtllm-serve is not on the PATH.  [engine.serve]",
        "nvcr.io/nvidia/tensorrt-llm/release:1.2.0",
        '--clean --cuda_architectures "100-real"',
        "The NVIDIA driver is installed but not loaded",
        "advisor tune --isl 4096 --osl 1024",
    ):
        assert words in done.stdout


def test_a_machine_with_everything_can_launch(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, _ = equipped
    folder = checkpoint(tmp_path / "llama")
    code, report, levels = asked(tmp_path, {**env, "HF_TOKEN": SECRET}, "--model", str(folder))
    assert (code, misses(levels)) == (0, set())
    facts = report["facts"]
    assert facts["engine"]["packages"]["versions"]["torch"] == "2.9.1"
    assert facts["engine"]["mpi"]["library"] == str(tmp_path / "trt/lib/libmpi.so.40")
    assert [gpu["key"] for gpu in facts["gpus"]["visible"]] == ["h100_sxm", "h100_sxm"]
    assert facts["wanted"]["deployment"]["gpu"] == "h100_sxm"
    assert facts["weights"]["fit"]["n_serving"] > 0
    assert facts["weights"]["hub"]["token_from"] == "$HF_TOKEN"


def test_who_holds_memory_is_named_on_the_screen(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, gpus = equipped
    with process() as pid:
        gpus.hold(0, 20 * GIB, pid)
        done = advisor("check-env", "--tp", "2", cwd=tmp_path, **env)
    assert done.returncode == 4
    assert f"GPU 0: 20.0 of 79.6 GiB are in use, by sleep (pid {pid}, 20.0 GiB).  [gpu.memory]" in done.stdout


def test_a_driver_that_does_not_work(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, gpus = equipped
    gpus.fail(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    exit_code, report, levels = asked(tmp_path, env)
    assert (exit_code, misses(levels)) == (4, {"gpu.driver"})
    assert "was updated" in report["facts"]["gpus"]["reading"]["missing"]


def test_hidden_gpus_and_a_layout_that_is_too_large(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, _ = equipped
    _, _, levels = asked(tmp_path, {**env, "CUDA_VISIBLE_DEVICES": "1"}, "--tp", "2")
    assert misses(levels) == {"gpu.count"}
    assert levels["gpu.visible"] == "note"
    _, _, levels = asked(tmp_path, {**env, "CUDA_VISIBLE_DEVICES": ""})
    assert misses(levels) == {"gpu.visible"}


def test_checkpoints_that_a_server_would_choke_on(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, _ = equipped
    odd = {**LLAMA_8B, "architectures": ["Odd\x1b[2JForCausalLM"]}
    folder = checkpoint(tmp_path / "odd", odd, quantization=MODELOPT_FP8)
    (folder / shard(2, 3)).unlink()
    done = advisor("check-env", "--model", str(folder), cwd=tmp_path, **env)
    assert done.returncode == 4
    assert f"1 of 3 weight files missing: {shard(2, 3)}.  [checkpoint.files]" in done.stdout
    assert "fp8 (declared: FP8).  [checkpoint.quantization]" in done.stdout  # though its name does not say so
    assert "[checkpoint.architecture]" in done.stdout
    assert "\x1b" not in done.stdout
    done = advisor("check-env", "--model", str(folder), "--quant", "bf16", cwd=tmp_path, **env)
    assert "The checkpoint is fp8 (declared: FP8), but bf16 is assumed.  [checkpoint.quantization]" in done.stdout
    assert "--quant fp8" in done.stdout
    nvfp4 = {"quantization": {"quant_algo": "NVFP4"}}
    folder = checkpoint(tmp_path / "llama-nvfp4", quantization=nvfp4)
    assert misses(asked(tmp_path, env, "--model", str(folder))[2]) == {"gpu.compute"}


def test_a_model_of_the_hub_in_the_cache_and_out_of_it(
    tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]
) -> None:
    env, _ = equipped
    name = "meta-llama/Llama-3.1-8B-Instruct"
    _, report, levels = asked(tmp_path, env, "--study", "llama3.1-8b-h100")
    assert (levels["checkpoint.files"], levels["checkpoint.access"]) == ("note", "warning")
    assert 14.0 < report["facts"]["weights"]["fit"]["all_weights_gib"] < 16.0
    checkpoint(in_cache(Path(env["HF_HOME"]) / "hub", name))
    _, _, levels = asked(tmp_path, {**env, "HF_HUB_OFFLINE": "1"}, "--study", "llama3.1-8b-h100")
    assert "checkpoint.files" not in levels


def test_an_image_instead_of_an_installation(tmp_path: Path, bare: dict[str, str]) -> None:
    text = '#!/bin/sh\n[ $1 = info ] && echo \'{"Runtimes":{"nvidia":{}}}\'\nexit 0\n'
    script(tmp_path / "bin/docker", text)
    env = {**bare, "PATH": f"{tmp_path / 'bin'}:{SYSTEM_PATH}"}
    _, report, levels = asked(tmp_path, env, "--container-image", "nvcr.io/nvidia/tensorrt-llm/release:1.1.0")
    assert misses(levels) == {"gpu.driver"}
    assert report["facts"]["wanted"]["release"] == "1.1.0"
    assert not {"engine.runtime", "engine.image", "engine.version"} & set(levels)


def test_the_study_must_be_about_this_gpu(tmp_path: Path, equipped: tuple[dict[str, str], FakeGpus]) -> None:
    env, _ = equipped
    assert "gpu.kind" in misses(asked(tmp_path, env, "--study", "llama3.3-70b-fp8-h200")[2])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--gpu", "h100"), "Unknown GPU 'h100'. Did you mean"),
        (("--study", "llama"), "Unknown study"),
        (("--quant", "fp7"), "Unknown quantization 'fp7'"),
        (("--engine-version", "new"), "is not a version"),
    ],
)
def test_what_cannot_be_meant_is_refused(argv: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(app, ["check-env", *argv])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
