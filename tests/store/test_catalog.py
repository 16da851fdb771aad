"""What ships is complete: studies and spaces parse, their kernel tables exist, names are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.engines.spoken import spoken_by
from advisor.report.study_notes import kernels_text
from advisor.search.baselines import BASELINE_NAMES
from advisor.search.space import all_configs, restrict
from advisor.store import catalog


@pytest.mark.parametrize("name", catalog.study_names())
def test_a_shipped_study_is_complete(name: str) -> None:
    study = catalog.study(name)
    assert study.name == name and study.baseline in BASELINE_NAMES and study.sources
    facts = catalog.model_facts(study.deployment.model)
    study.deployment.check_model(facts)
    assert spoken_by(study.deployment).warning is None
    space = restrict(catalog.search_space(study.search_space), vary=study.vary)
    options = {repr(config.options): config.options for config in all_configs(space)}
    for each in options.values():
        deployed = study.deployment.with_options(each)
        assert catalog.step_tables(deployed).data_source == "tables", each


@pytest.mark.parametrize("name", catalog.search_space_names())
def test_a_shipped_space_can_be_searched_and_gives_its_reasons(name: str) -> None:
    space = catalog.search_space(name)
    assert space.name == name
    assert len(all_configs(restrict(space))) > 500
    assert all(len(dimension.reason) > 20 for dimension in space.dimensions)
    answers = [dimension.name for dimension in space.active if dimension.changes_answers]
    assert answers == [], "what changes answers is off by default"


def test_the_default_study_and_the_names_the_issue_asks_for_are_there() -> None:
    assert {"llama4-maverick-fp8-b200", "llama4-maverick-fp8-h200", "llama4-maverick-fp8-h100", "llama3.1-8b-h100",
            "llama3.3-70b-fp8-h200"} <= set(catalog.study_names())  # fmt: skip
    assert {"default", "low_latency", "max_throughput"} <= set(catalog.search_space_names())
    guide = catalog.study("llama4-maverick-fp8-b200")
    assert (guide.deployment.tp, guide.deployment.ep, guide.deployment.stream_interval) == (8, 8, 4)
    assert guide.deployment.attention_dp and guide.deployment.trust_remote_code and guide.baseline == "guide"
    assert set(guide.vary) == {"enable_attention_dp", "enable_chunked_prefill"}


def test_a_study_of_one_s_own_is_read_from_its_file(tmp_path: Path) -> None:
    text = Path(str(catalog._folder("studies") / "llama3.1-8b-h100.yaml")).read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: llama3.1-8b-h100", "name: mine"), encoding="utf-8")
    assert catalog.study(str(mine)).name == "mine"
    mine.write_text(text.replace("baseline:", "basline:"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"mine\.yaml.*unknown key 'basline'.*Did you mean 'baseline'"):
        catalog.study(str(mine))


def test_unknown_names_come_with_near_ones() -> None:
    with pytest.raises(BadInput, match=r"Did you mean 'llama3\.1-8b-h100'"):
        catalog.study("llama3.1-8b-h10")
    with pytest.raises(BadInput, match="Did you mean 'max_throughput'"):
        catalog.search_space("max_troughput")
    with pytest.raises(BadInput, match="Did you mean 'h100_sxm'"):
        catalog.gpu_facts("h100_sx")
    with pytest.raises(BadInput, match=r"Near it: mistralai/Mixtral-8x7B-v0\.1"):
        catalog.model_facts("mistralai/Mixtral-8x7B")


def test_instruct_and_quantised_variants_share_the_numbers_of_their_base() -> None:
    base = catalog.model_facts("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
    assert catalog.model_facts("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8") == base
    assert (base.layers, base.num_experts, base.num_kv_heads, base.vocab_size) == (48, 128, 8, 202048)


def test_what_has_no_kernel_times_is_a_roofline_and_says_so() -> None:
    study = catalog.study("llama3.1-8b-h100")
    elsewhere = study.deployment.model_copy(update={"gpu": "l40s"})
    assert catalog.step_tables(elsewhere).data_source == "roofline"


def test_a_deployment_of_vllm_has_vllms_kernel_times_where_they_are_packaged_and_else_tensorrt_llms() -> None:
    deployment = catalog.study("llama3.1-8b-h100-vllm").deployment
    assert catalog.step_tables(deployment).kernels == "vLLM 0.24.0"
    assert catalog.step_tables(changed(deployment, engine_version="0.32.0")).kernels == "vLLM 0.24.0"
    with_fp8_cache = catalog.step_tables(changed(deployment, kv_cache_dtype="fp8"))
    assert (with_fp8_cache.kernels, with_fp8_cache.key.quant.fmha) == ("vLLM 0.24.0", "bfloat16")
    experts = changed(deployment, model="openai/gpt-oss-120b", quantization="mxfp4", gpu="b200_sxm")
    assert catalog.step_tables(experts).kernels == "TensorRT-LLM 1.3.0rc20"
    unknown = catalog.step_tables(changed(deployment, gpu="l40s"))
    assert (unknown.data_source, unknown.kernels) == ("roofline", None)
    assert kernels_text("vLLM 0.24.0", deployment) == "kernel times of vLLM 0.24.0"
    assert (
        kernels_text("TensorRT-LLM 1.3.0rc20", experts) == "kernel times of TensorRT-LLM 1.3.0rc20, for want of vLLM's"
    )
