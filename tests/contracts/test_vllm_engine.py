"""`vllm serve` behind the engine port keeps the contract: real processes and sockets, the stand-in in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.ports import Engine
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.engines.vllm.engine import VllmEngine
from tests.contracts.engine_contract import EngineContract
from tests.standin.equipment import MODEL, StandIn
from tests.standin.fixtures import inhabit

LLAMA_8B = Deployment(
    model=MODEL,
    quantization="bf16",
    gpu="h100_sxm",
    gpus=1,
    tp=1,
    engine="vllm",
    engine_version="0.24.0",
    chunked_prefill=True,
)


class TestVllm(EngineContract):
    """Memory runs out by the stand-in's own arithmetic, in a drawn world."""

    deployment = LLAMA_8B
    workload: Workload = changed(parse_workload("64-32_c4"), n_requests=16)
    heavy: Workload = changed(parse_workload("64-16_c256"), n_requests=256)
    runs = ServingConfig(
        max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=32, kv_cache_free_gpu_memory_fraction=0.9
    )
    refused = changed(runs, max_num_tokens=48)  # fewer tokens than sequences
    out_of_memory = changed(runs, max_num_tokens=800_000)
    out_of_memory_phase = "kv_estimate"
    dies_under_load = (
        LLAMA_8B,
        changed(runs, max_batch_size=256, max_num_tokens=65_536, kv_cache_free_gpu_memory_fraction=0.98),
    )
    too_small = (LLAMA_8B, changed(runs, kv_cache_free_gpu_memory_fraction=0.2))

    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
        """This process sees the stand-in's PATH, package and GPUs."""
        standin = StandIn(tmp_path / "machine")
        inhabit(standin, monkeypatch)
        yield standin
        assert standin.leftovers() == []
        assert standin.held_gib() == [0.0]

    def engine(self) -> Engine:
        return VllmEngine(client_check=False)
