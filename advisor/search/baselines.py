"""Named configurations to compare with: what people use without a tuner, each with where it comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from advisor.domain.deployment import OPTION_FIELDS, Deployment, GpuFacts, ModelFacts
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, unknown_name
from advisor.domain.workload import Workload
from advisor.search.curated import CuratedConfig, differences, nearest
from advisor.search.shapes import octaves
from advisor.search.sizing import Sizing, aiconfigurator_sizing, trtllm_bench_sizing

PUBLISHED_FOR = "trtllm"  # all but the default are about it
BASELINE_NAMES = ("default", "guide", "trtllm-bench", "aiconfigurator", "curated")


class Baseline(StrictModel):
    """A named configuration; `config` is None where it does not apply, and `why` says why."""

    name: str
    config: ServingConfig | None
    why: str


class Recipe(StrictModel):
    """What NVIDIA's deployment guide recommends for one model."""

    pattern: str
    max_batch_size: int
    max_num_tokens: int
    cuda_graph_max_batch_size: int
    kv_cache_free_gpu_memory_fraction: float
    attention_dp: bool
    stream_interval: int = 1
    written_for: str
    source: str


RECIPES = (
    Recipe(
        pattern=r"llama-4-maverick",
        max_batch_size=1024,
        max_num_tokens=8192,  # not stated: the engine's default
        cuda_graph_max_batch_size=1024,
        kv_cache_free_gpu_memory_fraction=0.9,
        attention_dp=True,
        stream_interval=4,
        written_for="FP8 on 8 B200, tp 8, ep 8, ISL 1,024, OSL 2,048, concurrency 1,024",
        source="examples/models/core/llama4/README.md, first revision (later ones halve the batch and the graphs)",
    ),
    Recipe(
        pattern=r"llama-4-scout",
        max_batch_size=1024,
        max_num_tokens=2048,
        cuda_graph_max_batch_size=1024,
        kv_cache_free_gpu_memory_fraction=0.9,
        attention_dp=False,
        written_for="FP8 and NVFP4, tp 1, ISL 1,024, OSL 1,024",
        source="quick-start recipe for Llama-4-Scout, 1.0.0rc6",
    ),
    Recipe(
        pattern=r"llama-3\.[13]-70b",
        max_batch_size=1024,
        max_num_tokens=2048,
        cuda_graph_max_batch_size=1024,
        kv_cache_free_gpu_memory_fraction=0.9,
        attention_dp=False,
        written_for="FP8, tp 1, ISL 1,024, OSL 1,024",
        source="quick-start recipe for Llama-3.3-70B, 1.0.0rc6",
    ),
    Recipe(
        pattern=r"gpt-oss-120b",
        max_batch_size=720,
        max_num_tokens=16384,
        cuda_graph_max_batch_size=720,
        kv_cache_free_gpu_memory_fraction=0.9,
        attention_dp=True,
        stream_interval=10,
        written_for="maximum throughput, tp 8, ep 8",
        source="deployment guide for gpt-oss-120b",
    ),
    Recipe(
        pattern=r"deepseek-(?:r1|v3(?:\.1)?)(?!\.\d|-distill)",
        max_batch_size=1024,
        max_num_tokens=3200,
        cuda_graph_max_batch_size=128,
        kv_cache_free_gpu_memory_fraction=0.8,
        attention_dp=True,
        stream_interval=10,
        written_for="throughput, tp 8, ep 8 (its multi-token prediction is left out)",
        source="examples/configs/curated/deepseek-r1-throughput.yaml",
    ),
)


def baselines(
    deployment: Deployment,
    facts: ModelFacts,
    gpu: GpuFacts,
    workload: Workload,
    default: ServingConfig,
    curated: Sequence[CuratedConfig],
) -> tuple[Baseline, ...]:
    """All named baselines, in the order of `BASELINE_NAMES`.

    Args:
        deployment: The study's; options that a baseline sets otherwise are in its configuration.
        facts: Architecture of the model.
        gpu: The GPU system.
        workload: The workload to size for; a study with several takes its longest.
        default: The four settings that the engine release uses when nothing is said.
        curated: Published configurations, from `curated_configs`.
    """
    said = f"what {deployment.engine} {deployment.engine_version} does when the four settings are left out"
    own = Baseline(name="default", config=default, why=said)
    if deployment.engine != PUBLISHED_FOR:
        why = f"published for {PUBLISHED_FOR}, not for {deployment.engine}"
        return (own, *(Baseline(name=name, config=None, why=why) for name in BASELINE_NAMES[1:]))
    return (
        own,
        _guide(deployment, workload),
        _sized("trtllm-bench", trtllm_bench_sizing(deployment, facts, gpu.memory_bytes, workload)),
        _sized("aiconfigurator", aiconfigurator_sizing(deployment, workload)),
        _curated(deployment, workload, default, curated),
    )


def baseline_named(name: str, known: Sequence[Baseline]) -> Baseline:
    """One of the baselines by name.

    Raises:
        BadInput: unknown name.
    """
    for baseline in known:
        if baseline.name == name:
            return baseline
    raise unknown_name("baseline", name, [baseline.name for baseline in known])


def _guide(deployment: Deployment, workload: Workload) -> Baseline:
    recipe = next((recipe for recipe in RECIPES if re.search(recipe.pattern, deployment.model, re.IGNORECASE)), None)
    if recipe is None:
        return Baseline(name="guide", config=None, why=f"NVIDIA's guides have no recipe for {deployment.model}")
    why = f"{recipe.source}; written for {recipe.written_for}"
    max_num_tokens, raised = _room_for_prompts(recipe.max_num_tokens, deployment.chunked_prefill, workload)
    config = ServingConfig(
        max_batch_size=recipe.max_batch_size,
        max_num_tokens=max_num_tokens,
        cuda_graph_max_batch_size=recipe.cuda_graph_max_batch_size,
        kv_cache_free_gpu_memory_fraction=recipe.kv_cache_free_gpu_memory_fraction,
        options=_options(
            deployment, {"enable_attention_dp": recipe.attention_dp, "stream_interval": recipe.stream_interval}
        ),
    )
    return Baseline(name="guide", config=config, why=why + raised)


def _sized(name: str, sizing: Sizing) -> Baseline:
    settings = sizing.model_dump(exclude={"why"})
    config = None if None in settings.values() else ServingConfig(**settings)
    return Baseline(name=name, config=config, why=sizing.why)


def _curated(
    deployment: Deployment, workload: Workload, default: ServingConfig, curated: Sequence[CuratedConfig]
) -> Baseline:
    found = nearest(curated, deployment, workload)
    if found is None:
        return Baseline(name="curated", config=None, why=f"no published configuration for {deployment.model}")
    chunked = found.chunked_prefill or False
    max_num_tokens, raised = _room_for_prompts(found.max_num_tokens or default.max_num_tokens, chunked, workload)
    wanted: dict[str, OptionValue | None] = {
        "enable_attention_dp": found.attention_dp or False,
        "stream_interval": found.stream_interval or 1,
        "enable_chunked_prefill": chunked,
    }
    config = ServingConfig(
        max_batch_size=found.max_batch_size or default.max_batch_size,
        max_num_tokens=max_num_tokens,
        cuda_graph_max_batch_size=found.cuda_graph_max_batch_size or default.cuda_graph_max_batch_size,
        kv_cache_free_gpu_memory_fraction=found.kv_fraction or default.kv_cache_free_gpu_memory_fraction,
        options=_options(deployment, wanted),
    )
    far = differences(found, deployment, workload)
    far_octaves = octaves(found, workload)
    why = f"nearest published configuration: {found.place} ({found.scenario}), {far_octaves:.1f} octaves away"
    return Baseline(name="curated", config=config, why=why + (f": {far}" if far else "") + raised)


def _room_for_prompts(max_num_tokens: int, chunked_prefill: bool, workload: Workload) -> tuple[int, str]:
    """The guides ask for a `max_num_tokens` that covers the longest prompt; say so where theirs did not have to."""
    if chunked_prefill or max_num_tokens >= workload.isl:
        return max_num_tokens, ""
    return workload.isl, f"; max_num_tokens raised from {max_num_tokens:,} to the longest prompt"


def _options(deployment: Deployment, wanted: dict[str, OptionValue | None]) -> dict[str, OptionValue]:
    """Options that differ from what the study fixes."""
    return {
        name: value
        for name, value in wanted.items()
        if value is not None and getattr(deployment, OPTION_FIELDS[name]) != value
    }
