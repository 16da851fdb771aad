"""Nearest published configuration: a published one is its own nearest, and names of one model meet."""

from __future__ import annotations

import math
import re

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.workload import Workload
from advisor.search.curated import CuratedConfig, curated_configs, differences, family, nearest
from advisor.search.shapes import octaves
from advisor.store.catalog import curated

PUBLISHED = curated()


def deployment(config: CuratedConfig) -> Deployment | None:
    """The deployment a published configuration describes, where it states enough."""
    if config.quant is None or not re.match(r"[HBG][BH]?\d+", "".join(config.gpus[:1])) or config.concurrency is None:
        return None
    tp, pp, ep = config.tp or 1, config.pp or 1, config.ep or 1
    if tp % ep or config.isl is None or config.osl is None:
        return None
    return Deployment.model_validate(
        {
            "model": config.model,
            "quantization": config.quant,
            "gpu": f"{config.gpus[0].lower()}_sxm",
            "gpus": tp * pp,
            "tp": tp,
            "pp": pp,
            "ep": ep,
            "attention_dp": config.attention_dp or False,
        }
    )


def test_every_published_configuration_is_its_own_nearest() -> None:
    asked = [(config, own) for config in PUBLISHED if (own := deployment(config)) is not None]
    assert len(asked) > 200
    for config, own in asked:
        assert config.isl
        assert config.osl
        workload = Workload(isl=config.isl, osl=config.osl, concurrency=config.concurrency)
        found = nearest(PUBLISHED, own, workload)
        assert found is not None
        assert octaves(found, workload) == 0.0
        assert (family(found.model), found.tp or 1, found.quant) == (family(config.model), own.tp, config.quant)
        assert not set(differences(found, own, workload).split()) & {"tp", "GPU", "ISL", "OSL", "concurrency"}


@pytest.mark.parametrize(
    "names",
    [
        ("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"),
        ("llama_v4_scout_17b_16e_instruct_fp8", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
        ("llama_v3.3_70b_instruct_fp8", "nvidia/Llama-3.3-70B-Instruct-FP4", "meta-llama/Llama-3.1-70B"),
        ("llama_v3.1_8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("DeepSeek-R1 (alias dsr1)", "nvidia/DeepSeek-R1-0528-FP4-V2", "deepseek_r1_fp8"),
        ("openai/gpt-oss-120b", "gpt_oss_120b_fp4"),
        ("Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-235B-A22B-FP8", "qwen3_235b_a22b_fp4"),
        ("Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-32B"),
    ],
)
def test_names_of_one_architecture_meet(names: tuple[str, ...]) -> None:
    assert len({family(name) for name in names}) == 1


def test_names_of_different_architectures_do_not_meet() -> None:
    names = (
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.3-70B",
        "nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8",
        "llama_v4_scout_17b_16e_instruct_fp8",
        "deepseek-ai/DeepSeek-R1-0528",
        "DeepSeek-V3.2 NVFP4",
        "deepseek-ai/DeepSeek-V4-Pro",
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen3-235B-A22B",
        "Qwen3.5-397B-A17B NVFP4",
        "openai/gpt-oss-20b",
        "openai/gpt-oss-120b",
        "GLM-5 NVFP4",
    )
    assert len({family(name) for name in names}) == len(names)


def config(**fields: object) -> CuratedConfig:
    return CuratedConfig.model_validate(
        {"source": "a/b c.yaml@1", "scenario": "test", "model": "llama-3.1-8b", **fields}
    )


def test_gpu_comes_before_layout_and_layout_before_workload() -> None:
    own = Deployment(model="meta-llama/Llama-3.1-8B", quantization="fp8", gpu="h200_sxm", gpus=2, tp=2)
    workload = Workload(isl=1024, osl=1024, concurrency=64)
    exact = {"gpus": ("H200",), "tp": 2, "quant": "fp8", "isl": 1024, "osl": 1024, "concurrency": 64}
    ordered = [
        config(**exact),
        config(**{**exact, "concurrency": 8}),
        config(**{**exact, "quant": "bf16"}),
        config(**{**exact, "attention_dp": True}),
        config(**{**exact, "tp": 1}),
        config(**{**exact, "gpus": ("Hopper",)}),
        config(**{**exact, "gpus": ("B200",)}),
        config(**{**exact, "model": "openai/gpt-oss-120b"}),
    ]
    for i in range(len(ordered) - 1):
        assert nearest(list(reversed(ordered[i:])), own, workload) == ordered[i]
    assert nearest(ordered[-1:], own, workload) is None


def test_distance_is_in_factors_of_two_and_silence_costs_two_of_them() -> None:
    workload = Workload(isl=1024, osl=1024, concurrency=64)
    assert octaves(config(isl=4096, osl=1024, concurrency=64), workload) == pytest.approx(2.0)
    assert octaves(config(isl=2048, osl=512, concurrency=64), workload) == pytest.approx(math.sqrt(2))
    assert octaves(config(isl=1024, osl=1024), workload) == pytest.approx(2.0)
    rate = Workload(isl=1024, osl=1024, request_rate_per_s=5.0)
    assert octaves(config(isl=1024, osl=1024, concurrency=7), rate) == 0.0


def test_cell_that_cannot_be_meant_names_its_row() -> None:
    with pytest.raises(BadInput, match=r"a/b x\.yaml.*tp"):
        curated_configs([{"source": "a/b x.yaml", "scenario": "s", "model": "m", "gpu": "B200", "tp": "eight"}])
