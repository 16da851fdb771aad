"""Deployments, configurations and workloads to spell, plain and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import changed
from advisor.engines.trtllm.dialects import dialect

DATA = Path(__file__).parents[2] / "data" / "trtllm"
FACTS: dict[str, Any] = json.loads((DATA / "schema_facts.json").read_text(encoding="utf-8"))["releases"]
WITH_FACTS = tuple(FACTS)
RELEASES = ("1.0.0", "1.1.0", "1.2.0", "1.3.0rc", "1.3.0rc24", "main")
EXPLICIT_FLAG_WINS = ("1.3.0rc24", "main")
WITHOUT_STREAM_INTERVAL = ("0.20.0", "0.21.0")
EVERY_RELEASE = (*WITHOUT_STREAM_INTERVAL, "1.0.0rc1", *RELEASES)

MAVERICK = Deployment(
    model="nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8",
    quantization="fp8",
    gpu="b200_sxm",
    gpus=8,
    tp=8,
    ep=8,
    attention_dp=True,
    stream_interval=4,
    trust_remote_code=True,
)
GUIDE = ServingConfig(
    max_batch_size=1024,
    max_num_tokens=8192,
    cuda_graph_max_batch_size=1024,
    kv_cache_free_gpu_memory_fraction=0.9,
)

configs = st.builds(
    ServingConfig,
    max_batch_size=st.integers(1, 4096),
    max_num_tokens=st.integers(1, 65536),
    cuda_graph_max_batch_size=st.integers(0, 4096),
    kv_cache_free_gpu_memory_fraction=st.floats(0.01, 0.99),
    options=st.fixed_dictionaries(
        {},
        optional={
            "enable_attention_dp": st.booleans(),
            "enable_chunked_prefill": st.booleans(),
            "stream_interval": st.integers(1, 50),
            "kv_cache_dtype": st.sampled_from(["auto", "fp8"]),
            "moe_backend": st.sampled_from(["CUTLASS", "TRTLLM", "DEEPGEMM"]),
            "enable_block_reuse": st.booleans(),
            "num_postprocess_workers": st.integers(0, 8),
            "attn_backend": st.sampled_from(["TRTLLM", "FLASHINFER", "yes", "1.5", "null", "a: b # c\n- d"]),
        },
    ),
)

deployments = st.builds(
    lambda pp, **fields: changed(MAVERICK, pp=pp, gpus=8 * pp, **fields),
    pp=st.sampled_from([1, 2]),
    ep=st.sampled_from([1, 2, 4, 8]),
    attention_dp=st.booleans(),
    graph_padding=st.booleans(),
    chunked_prefill=st.booleans(),
    block_reuse=st.booleans(),
    stream_interval=st.integers(1, 20),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]),
    moe_backend=st.sampled_from([None, "CUTLASS", "WIDEEP"]),
    overlap_scheduler=st.booleans(),
    trust_remote_code=st.booleans(),
)


def sayable(release: str, deployment: Deployment, asked: ServingConfig) -> tuple[Deployment, ServingConfig]:
    """Deployment and configuration without what the release has no word for."""
    backends = dialect(release).moe_backends
    if backends and deployment.moe_backend not in (None, *backends):
        deployment = changed(deployment, moe_backend=None)
    if release not in WITHOUT_STREAM_INTERVAL:
        return deployment, asked
    options = {name: value for name, value in asked.options.items() if name != "stream_interval"}
    return changed(deployment, stream_interval=1), changed(asked, options=options)


def config(**fields: OptionValue | dict[str, OptionValue]) -> ServingConfig:
    """The guide's configuration with some fields replaced."""
    return changed(GUIDE, **fields)
