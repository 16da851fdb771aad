"""`trtllm-serve` behind the engine port keeps the contract: real processes and sockets, the stand-in in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.ports import Engine
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.engines.trtllm.engine import TrtllmEngine
from tests.contracts.engine_contract import EngineContract
from tests.standin.equipment import MODEL, StandIn
from tests.standin.fixtures import inhabit

LLAMA_8B = Deployment(
    model=MODEL,
    quantization="bf16",
    gpu="h100_sxm",
    gpus=1,
    tp=1,
    chunked_prefill=True,
    engine_version="1.1.0",
)


class OnStandIn(EngineContract):
    """The release is the stand-in's; memory runs out by its own arithmetic, in a drawn world."""

    release = "1.1.0"
    workload: Workload = changed(parse_workload("64-32_c4"), n_requests=16)
    heavy: Workload = changed(parse_workload("64-16_c256"), n_requests=256)
    runs = ServingConfig(
        max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=32, kv_cache_free_gpu_memory_fraction=0.9
    )
    # No prompt of 64 tokens fits one step of 48 without chunked prefill.
    refused = changed(
        runs, max_batch_size=16, max_num_tokens=48, options={"enable_chunked_prefill": False}
    )  # fmt: skip
    out_of_memory = changed(runs, max_num_tokens=400_000)
    out_of_memory_phase = "kv_estimate"
    too_small = (LLAMA_8B, changed(runs, kv_cache_free_gpu_memory_fraction=0.000_1))

    @property
    def deployment(self) -> Deployment:
        return changed(LLAMA_8B, engine_version=self.release)

    @property
    def dies_under_load(self) -> tuple[Deployment, ServingConfig]:
        config = changed(
            self.runs, max_batch_size=2048, cuda_graph_max_batch_size=128, kv_cache_free_gpu_memory_fraction=0.98
        )
        return self.deployment, config

    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
        """This process sees the stand-in's PATH, package and GPUs."""
        standin = StandIn(tmp_path / "machine", release=self.release)
        inhabit(standin, monkeypatch)
        yield standin
        assert standin.leftovers() == []
        assert standin.held_gib() == [0.0]

    def engine(self) -> Engine:
        return TrtllmEngine(client_check=False)


class TestRelease110(OnStandIn):
    """The release between: a loop that dies leaves a process behind that looks healthy."""


@pytest.mark.system
class TestOldestRelease(OnStandIn):
    """Flat words, no graphs by default, sizes on the command line only, the port bound after loading."""

    release = "0.20.0"


class TestNewestRelease(OnStandIn):
    """Other names in the memory report, the port bound first, the end of the loop ends the process."""

    release = "1.3.0rc"
