"""What a question leaves open is taken from where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.app.setup import Question, resolve
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.engines.spoken import spoken_by
from advisor.engines.vllm.releases import releases
from advisor.engines.words import as_mapping
from advisor.store import catalog
from tests.store.checkpoint_folders import LLAMA_8B, MODELOPT_FP8, checkpoint


@pytest.mark.parametrize(
    ("folder", "quantization", "expected"),
    [
        ("mine", MODELOPT_FP8, "fp8"),
        ("mine", {"quantization": {"quant_algo": "NVFP4"}}, "nvfp4"),
        ("mine", None, "bf16"),
        ("called-FP8-and-is-not", None, "bf16"),
    ],
)
def test_a_checkpoint_folder_knows_its_quantization_better_than_its_name(
    tmp_path: Path, folder: str, quantization: dict[str, Any] | None, expected: str
) -> None:
    model = str(checkpoint(tmp_path / folder, quantization=quantization))
    assert resolve(Question(model=model, gpu="b200_sxm")).deployment.quantization == expected
    said = resolve(Question(model=model, gpu="b200_sxm", quant="mxfp4"))
    assert said.deployment.quantization == "mxfp4"


def test_a_quantization_without_kernel_times_is_named_and_another_may_be_said(tmp_path: Path) -> None:
    model = str(checkpoint(tmp_path / "awq", config=LLAMA_8B | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(BadInput, match=r"awq is quantized with AWQ, .*nearest with --quant, one of bf16, fp8,"):
        resolve(Question(model=model, gpu="h100_sxm"))
    assert resolve(Question(model=model, gpu="h100_sxm", quant="nvfp4")).deployment.quantization == "nvfp4"


STUDY = """\
schema_version: 1
name: mine
title: t
description: d
deployment: {model: meta-llama/Llama-3.1-8B-Instruct, quantization: bf16, gpu: h100_sxm, gpus: 1, tp: 1}
"""


def test_a_study_file_may_hold_a_matrix_beside_its_workloads(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY + "workloads: [1k1k_c8]\nmatrix: {isl: [1024, '2k'], osl: [1024], concurrency: [8, 16]}\n")
    names = [workload.name for workload in resolve(Question(study=str(path))).workloads]
    assert names == ["1k1k_c8", "1k1k_c16", "2k1k_c8", "2k1k_c16"]
    said = resolve(Question(study=str(path), concurrency="4,5"))
    assert [workload.name for workload in said.workloads] == ["1k1k_c4", "1k1k_c5", "2k1k_c4", "2k1k_c5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no workload: name some under 'workloads', or give a 'matrix'"),
        ("matrix: {isl: [1024], osl: []}", "'matrix.osl' is empty"),
        ("matrix: {isl: [1024], osl: [0]}", "matrix: '0' is not a token count"),
        ("matrix: {isl: [1, 2, 3, 4, 5], osl: [1, 2, 3, 4, 5]}", "25 workloads"),
        ("matrix: {isl: [1], ols: [1]}", "Did you mean 'osl'"),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY + text + "\n")
    with pytest.raises(BadInput, match=words):
        resolve(Question(study=str(path)))


def test_loads_go_to_names_without_one() -> None:
    names = [w.name for w in resolve(Question(workloads=("1k1k", "4k1k_c7"), concurrency="64,128")).workloads]
    assert names == ["1k1k_c64", "1k1k_c128", "4k1k_c7"]


def test_more_ranks_of_a_dense_model_have_no_experts_to_spread() -> None:
    deployment = resolve(Question(study="llama3.1-8b-h100", tp=2)).deployment
    assert (deployment.tp, deployment.gpus, deployment.ep) == (2, 2, 1)


def test_a_study_of_one_engine_can_be_run_on_another_with_that_engines_space_and_newest_release() -> None:
    moved = resolve(Question(study="llama3.1-8b-h100", engine="vllm"))
    assert (moved.deployment.engine, moved.deployment.engine_version) == ("vllm", releases()[-1].release)
    assert moved.deployment.chunked_prefill, "vLLM's own default"
    assert moved.space.name == "vllm"
    back = resolve(Question(study="llama3.1-8b-h100-vllm", engine="trtllm"))
    assert (back.deployment.engine, back.space.name) == ("trtllm", "default")
    assert "stream_interval" in {dimension.name for dimension in back.space.active}, "both spaces have it"


def test_a_title_says_what_a_study_is_asked_of_where_that_is_not_what_it_is_about() -> None:
    name = "llama3.1-8b-h100-vllm"
    own = catalog.study(name).title
    assert resolve(Question(study=name)).title == own
    assert resolve(Question(study=name, gpu="h200_sxm")).title == f"{own}: asked of 1 x h200_sxm"
    moved = resolve(Question(study=name, gpu="b200_sxm", quant="fp8", engine="trtllm"))
    assert moved.title == f"{own}: asked of 1 x b200_sxm, fp8, trtllm"


def test_the_engine_picks_among_shipped_studies_of_one_model() -> None:
    asked = Question(model="meta-llama/Llama-3.1-8B-Instruct", gpu="h100_sxm")
    assert resolve(asked).study.name == "llama3.1-8b-h100"
    assert resolve(changed(asked, engine="vllm")).study.name == "llama3.1-8b-h100-vllm"


def test_options_of_the_engine_are_checked_against_its_release_and_stated_in_every_launch() -> None:
    dummy = resolve(Question(study="llama3.1-8b-h100-vllm", load_format="dummy")).deployment
    assert dummy.engine_options == {"load_format": "dummy"}
    config = spoken_by(dummy).default_config(catalog.gpu_facts(dummy.gpu))
    assert as_mapping(spoken_by(dummy).entries(dummy, config, 1280))["load-format"] == "dummy"
    trtllm = resolve(Question(study="llama3.1-8b-h100", load_format="dummy")).deployment
    assert as_mapping(spoken_by(trtllm).entries(trtllm, config, 1280))["load_format"] == "dummy"
