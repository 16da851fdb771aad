"""Machines as values: one on which everything is well, and changes that each spoil one thing."""

from __future__ import annotations

from typing import Any

from advisor.app.checks.facts import Engine, Facts, Fit, Gpus, Wanted, Weights
from advisor.domain.deployment import Deployment
from advisor.domain.strict import StrictModel, changed
from advisor.engines.installed import Installation
from advisor.engines.packages import Packages
from advisor.host.gpus import Gpu, GpuProcess, GpuReading
from advisor.host.machine import Host, HostMemory, Limit, Limits, NvidiaTraces, Space
from advisor.host.mpi import Mpi
from advisor.store.checkpoints import Checkpoint
from advisor.store.hub import HubAccess

UNLIMITED = Limit(soft=None, hard=None)
MODEL = "nvidia/Llama-3.3-70B-Instruct-FP8"


def gpu(index: int, **facts: Any) -> Gpu:
    """An idle H100."""
    usual: dict[str, Any] = {
        "index": index,
        "uuid": f"GPU-{index:08x}",
        "name": "NVIDIA H100 80GB HBM3",
        "key": "h100_sxm",
        "total_gib": 79.6,
        "used_gib": 0.0,
        "free_gib": 79.1,
        "processes": (),
        "mig": False,
        "compute_capability": (9, 0),
        "nvlinks": 18,
    }
    return Gpu(**{**usual, **facts})


def gpus(*found: Gpu, seen: tuple[Gpu, ...] | None = None, env: str | None = None, cuda: str = "13.0") -> Gpus:
    reading = GpuReading(gpus=found, driver_version="580.159.04", cuda_version=cuda)
    return Gpus(reading=reading, visible=found if seen is None else seen, cuda_visible_devices=env)


def no_gpus(missing: str = "There is no NVIDIA driver here.") -> Gpus:
    return Gpus(reading=GpuReading(missing=missing))


def busy(index: int, held_gib: float, pid: int = 4711) -> Gpu:
    """An H100 that somebody else uses."""
    process = GpuProcess(pid=pid, used_gib=held_gib, name="python3")
    return gpu(index, used_gib=held_gib, free_gib=79.1 - held_gib, processes=(process,))


DEPLOYMENT = Deployment(model=MODEL, quantization="fp8", gpu="h100_sxm", gpus=4, tp=4)
CHECKPOINT = Checkpoint(
    folder="/models/llama",
    architecture="LlamaForCausalLM",
    declared_quantization="FP8",
    quantization="fp8",
    kv_cache_dtype="fp8",
    n_weight_files=15,
    weights_gib=67.7,
    total_gib=67.7,
    has_tokenizer=True,
)
WELL = Facts(
    wanted=Wanted(model=MODEL, quantization="fp8", gpu="h100_sxm", gpus=4, deployment=DEPLOYMENT, release="1.2.0"),
    python="3.12.3",
    engine=Engine(
        installation=Installation(
            command="/opt/trt/bin/trtllm-serve", interpreter="/opt/trt/bin/python3", version="1.2.0"
        ),
        packages=Packages(
            python="3.12.3", prefix="/opt/trt", versions={"tensorrt_llm": "1.2.0", "torch": "2.9.1", "mpi4py": "4.1.1"}
        ),
        cuda_needed="13.0",
        cuda_home="/usr/local/cuda",
        mpi=Mpi(library="/usr/lib/libmpi.so.40"),
    ),
    gpus=gpus(*map(gpu, range(4))),
    host=Host(
        memory=HostMemory(total_gib=1024.0, available_gib=900.0),
        cpus=96.0,
        shared_memory=Space(folder="/dev/shm", total_gib=512.0, free_gib=500.0),
        limits=Limits(memlock_bytes=UNLIMITED, stack_bytes=UNLIMITED, open_files=UNLIMITED, processes=UNLIMITED),
        nvidia=NvidiaTraces(pci_gpus=4, kernel_driver="580.159.04"),
    ),
    weights=Weights(
        checkpoint=CHECKPOINT,
        is_hub_name=True,
        hub=HubAccess(cache="/root/.cache/huggingface/hub", offline=False, token_from="$HF_TOKEN"),
        hub_client="hf",
        cache_space=Space(folder="/root/.cache/huggingface/hub", total_gib=2000.0, free_gib=1500.0),
        knows_architecture=True,
        fit=Fit(weights_gib=17.0, all_weights_gib=68.0, capacity_gib=80.0, n_configs=100, n_serving=90),
    ),
)


ON_VLLM = changed(
    WELL,
    wanted=changed(WELL.wanted, engine="vllm", release="0.24.0", deployment=None),
    engine=Engine(
        installation=Installation(command="/opt/v/bin/vllm", interpreter="/opt/v/bin/python3", version="0.24.0"),
        packages=Packages(python="3.12.3", prefix="/opt/v", versions={"vllm": "0.24.0", "torch": "2.11.0"}),
        cuda_needed="13.0",
    ),
)


def spoiled(facts: Facts, **changes: Any) -> Facts:
    """Facts with some replaced, at any depth: `engine__mpi__library=None`."""
    for path, value in changes.items():
        facts = _replaced(facts, path.split("__"), value)
    return facts


def _replaced(model: Any, path: list[str], value: Any) -> Any:
    assert isinstance(model, StrictModel), path
    head, *rest = path
    return changed(model, **{head: _replaced(getattr(model, head), rest, value) if rest else value})
