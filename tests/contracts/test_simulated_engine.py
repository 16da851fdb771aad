"""The twin behind the engine port keeps the contract."""

from __future__ import annotations

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.ports import Engine
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.engines.simulated import SimulatedEngine
from tests.contracts.engine_contract import RepeatableEngineContract

LLAMA_8B = Deployment(
    model="meta-llama/Llama-3.1-8B-Instruct", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1, chunked_prefill=True
)


class SimulatedContract(RepeatableEngineContract):
    deployment = LLAMA_8B
    workload: Workload = parse_workload("1k1k_c8")
    heavy: Workload = parse_workload("1k1k_c2048")
    runs = ServingConfig(
        max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=32, kv_cache_free_gpu_memory_fraction=0.9
    )
    # Without chunked prefill the prompts of 1,024 tokens do not fit one step.
    refused = changed(runs, max_num_tokens=512, options={"enable_chunked_prefill": False})
    out_of_memory = changed(runs, max_num_tokens=400_000)  # 33 GiB of activations where 13 are free
    out_of_memory_phase = "kv_estimate"
    # 2,048 logits rows need the last half GiB that a fraction of 0.985 leaves outside the pool; 8 do not.
    dies_under_load = (
        LLAMA_8B,
        changed(
            runs, max_batch_size=2048, cuda_graph_max_batch_size=128, kv_cache_free_gpu_memory_fraction=0.985
        ),
    )  # fmt: skip
    too_small = (LLAMA_8B, changed(runs, kv_cache_free_gpu_memory_fraction=0.001))


class TestNominalTwin(SimulatedContract):
    def engine(self) -> Engine:
        return SimulatedEngine()


class TestDrawnWorld(SimulatedContract):
    """The same promises where the constants are drawn; what dies by half a GiB in one world may live in another."""

    dies_under_load = (LLAMA_8B, changed(SimulatedContract.dies_under_load[1], kv_cache_free_gpu_memory_fraction=0.98))

    def engine(self) -> Engine:
        return SimulatedEngine(world=1)


@pytest.mark.parametrize(
    ("config", "phase"),
    [
        (changed(SimulatedContract.runs, max_num_tokens=800_000), "kv_estimate"),
        (
            changed(
                SimulatedContract.runs, max_batch_size=2048, cuda_graph_max_batch_size=2048,
                kv_cache_free_gpu_memory_fraction=0.995,
            ),
            "warm_up",
        ),
    ],
)  # fmt: skip
def test_each_setting_runs_out_of_memory_in_its_own_phase(config: ServingConfig, phase: str) -> None:
    contract = TestNominalTwin()
    record = contract.trial(contract.spec(config))
    assert record.phases[-1].name == phase
    assert record.out_of_memory


def test_weights_that_do_not_fit_die_while_loading() -> None:
    contract = TestNominalTwin()
    large = changed(LLAMA_8B, model="meta-llama/Llama-3.3-70B-Instruct")
    record = contract.trial(contract.spec(contract.runs, deployment=large))
    assert record.out_of_memory
    assert [timing.name for timing in record.phases] == ["launch", "load"]
