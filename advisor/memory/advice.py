"""What to do where no size of a pool or batch is the matter: advice name -> changes, cheapest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Advice:
    """One change that is the same whatever the sizes; `to` None = a direction only."""

    setting: str
    to: str | int | float | bool | None
    why: str
    confidence: Literal["high", "medium", "low"] = "medium"
    yaml_patch: str | None = None


_MOE = Advice("moe_config.backend", None, "another MoE backend (TRTLLM, CUTLASS, TRITON) may have kernels for this GPU")
_QUANT = Advice("quantization", None, "a checkpoint in a precision that this GPU has kernels for (FP8, NVFP4, BF16)")
_RELEASE = Advice("engine_version", None, "a newer release may support it; its support matrix says so")
_TIMEOUT = Advice("hang_detection_timeout", 600, "only if a step can honestly take longer than 300 s", "low")

ADVICE: Mapping[str, tuple[Advice, ...]] = {
    "one_gpu_a_rank": (
        Advice(
            "CUDA_VISIBLE_DEVICES / --tp_size",
            None,
            "give every rank its own GPU: several processes of this job hold memory on the same one",
            "high",
        ),
    ),
    "others": (
        Advice(
            "other processes on the GPU",
            "ended",
            "`nvidia-smi` names them; a server that was killed may have left one behind",
            "high",
        ),
    ),
    "shm": (
        Advice(
            "container --shm-size",
            "64g",
            "/dev/shm is the container's shared memory (64 MB by default); weights, "
            "expert load balancing and NCCL use it. `docker run --shm-size=64g` or `--ipc=host`; in Kubernetes an "
            "emptyDir with medium: Memory at /dev/shm; very large models need hundreds of GiB (tmpfs size=640G)",
            "high",
            "shm_size: 64gb\n",
        ),
    ),
    "host_ram": (
        Advice(
            "container memory limit",
            None,
            "raise the limit of host memory (docker --memory, Kubernetes "
            "resources.limits.memory, Slurm --mem); loading needs about the size of the checkpoint",
            "high",
        ),
        Advice(
            "host_cache_size",
            0,
            "host offload of KV blocks pins this much host memory",
            "medium",
            "kv_cache_config:\n  host_cache_size: 0\n",
        ),
    ),
    "killed": (
        Advice(
            "container memory limit",
            None,
            "signal 9 without a word is most often the kernel's out-of-memory killer; `dmesg` settles it",
            "low",
        ),
    ),
    "mpi": (
        Advice(
            "launcher",
            "mpirun -n 1 --oversubscribe --allow-run-as-root",
            "start the command under mpirun, so that it does not take Slurm's environment for its own",
            "high",
        ),
        Advice(
            "launcher",
            "srun --mpi=pmix",
            "let Slurm start the ranks through PMIx, with trtllm-llmapi-launch before trtllm-serve",
            "medium",
        ),
    ),
    "ranks": (
        Advice(
            "launcher",
            None,
            "as many MPI ranks as tensor times pipeline parallelism: `mpirun -n`, Triton --world_size, Slurm --ntasks",
            "high",
        ),
        Advice("tensor_parallel_size", None, "the value the engine was built with", "medium"),
    ),
    "limits": (
        Advice(
            "process limits",
            None,
            "`ulimit -n 65535` and `ulimit -u unlimited`; docker --ulimit and --pids-limit, the pod's pid limit",
            "high",
        ),
    ),
    "address": (
        Advice("--host", "0.0.0.0", "an address of this machine or container; 0.0.0.0 stands for all of them", "high"),
    ),
    "spawn": (
        Advice(
            "VLLM_WORKER_MULTIPROC_METHOD",
            "spawn",
            "something touched CUDA before the workers were forked; spawned ones start clean",
            "high",
        ),
    ),
    "rendezvous": (
        Advice(
            "--master_addr / MASTER_PORT",
            None,
            "every rank must start, and reach rank 0 on this address and port: look at the ranks that did not join",
            "high",
        ),
    ),
    "port": (
        Advice(
            "--port",
            None,
            "another free port, or end what listens there (`ss -ltnp`); start one server, not one a rank",
            "high",
        ),
    ),
    "nccl": (
        Advice("NCCL_DEBUG", "INFO", "run once more with it: NCCL names the call and the reason", "medium"),
        Advice(
            "CUDA_VISIBLE_DEVICES / --tp_size",
            None,
            "as many distinct visible GPUs as ranks: two ranks on one GPU are an invalid usage",
            "medium",
        ),
        Advice("container --shm-size", "16g", "NCCL's shared-memory transport needs /dev/shm", "low"),
    ),
    "transport": (
        Advice(
            "cache_transceiver_config.backend",
            None,
            "another transport of KV blocks (UCX, NIXL, MPI) tells a broken library from a broken network",
            "medium",
        ),
        Advice(
            "UCX_TLS", None, "UCX without GPU transports cannot move KV blocks: unset it, or take a whole UCX", "low"
        ),
    ),
    "graphs_off": (
        Advice(
            "cuda_graph_max_batch_size",
            0,
            "capture meets an operation that cannot be captured; without graphs it runs, slower",
            "medium",
            "cuda_graph_config: null\n",
        ),
        _MOE,
    ),
    "draft_schedule": (
        Advice(
            "speculative_config.draft_len_schedule",
            None,
            "a schedule that never reaches 0: the captured batch and the guided-decoding bitmask differ there",
            "medium",
        ),
        Advice("guided_decoding_backend", None, "another backend, or none", "low"),
    ),
    "kernel": (
        _RELEASE,
        _MOE,
        Advice(
            "CUDA_LAUNCH_BLOCKING", 1, "run once with it: the failing kernel is then the one in the traceback", "low"
        ),
    ),
    "arch": (_QUANT, _RELEASE),
    "moe_backend": (_MOE, _QUANT, _RELEASE),
    "model": (
        _RELEASE,
        Advice("model", None, "a model of the release's support list; only causal language models serve", "medium"),
    ),
    "backend": (
        Advice(
            "--backend",
            "pytorch",
            "the TensorRT path does not know this architecture; the PyTorch one may",
            "high",
            "backend: pytorch\n",
        ),
        _RELEASE,
    ),
    "driver": (
        Advice("NVIDIA driver", None, "install the driver that this CUDA release needs, or an older image", "high"),
    ),
    "no_gpu": (
        Advice(
            "container --gpus",
            "all",
            "the process sees no GPU: `docker run --gpus all`, CUDA_VISIBLE_DEVICES, or the node's driver",
            "high",
        ),
    ),
    "version": (
        Advice(
            "installation",
            None,
            "take wheel, libraries and torch from one release (the release's own container); "
            "then unset options that only another release has",
            "medium",
        ),
        Advice("NIM_NUM_KV_CACHE_SEQ_LENS", None, "on NIM images: unset it, or take a newer image", "medium"),
    ),
    "compiler": (
        Advice(
            "image",
            None,
            "kernels are compiled at start-up: take an image with gcc, ninja and nvcc, or set CC and CUDA_HOME",
            "high",
        ),
    ),
    "rebuild": (
        Advice(
            "engine",
            "rebuilt",
            "with the release that serves it, on the same GPU generation: engines do not outlive either",
            "high",
        ),
        Advice("--backend", "pytorch", "loads the checkpoint itself and needs no engine", "medium"),
    ),
    "auth": (
        Advice(
            "HF_TOKEN",
            None,
            "accept the model's licence on its page, and set the token in the environment of the "
            "server's own process or container",
            "high",
        ),
    ),
    "checkpoint": (
        Advice(
            "model",
            None,
            "check name and folder: config.json and every shard must be there and whole (git-lfs "
            "pointers are not weights); fetch again with `hf download`",
            "medium",
        ),
    ),
    "network": (
        Advice(
            "model",
            None,
            "fetch the checkpoint beforehand and pass its folder; HF_HUB_OFFLINE=1 then keeps it local",
            "medium",
        ),
    ),
    "disk": (Advice("HF_HOME", None, "a cache folder on a disk with room for the checkpoint", "high"),),
    "hang": (
        Advice(
            "moe_config.backend",
            None,
            "where health answers and requests never finish, a kernel or collective "
            "waits: try another MoE backend or precision",
            "low",
        ),
        Advice(
            "cuda_graph_max_batch_size", 0, "take graph capture out of the question", "low", "cuda_graph_config: null\n"
        ),
        _TIMEOUT,
    ),
    "slots": (
        Advice(
            "server",
            "restart",
            "sequence slots are not bytes: no memory setting helps; known with speculative decoding and attention DP",
            "low",
        ),
        Advice("max_batch_size", None, "more slots only postpone it", "low"),
    ),
    "request": (
        Advice("request", None, "leave out fields that this release does not know; the message names them", "high"),
    ),
    "build": (
        Advice(
            "build on another GPU",
            None,
            "with more memory and of the same generation, or with fewer other processes",
            "low",
        ),
    ),
    "one_choice": (
        Advice(
            "n / best_of / beam width of the request",
            1,
            "disaggregated serving hands over one choice a request",
            "high",
        ),
    ),
    "crash": (
        Advice("core dump", None, "`ulimit -c unlimited`, or PYTHONFAULTHANDLER=1, shows where it died", "low"),
        _RELEASE,
    ),
}

PROBES: Mapping[str, str] = {
    "killed": "`dmesg -T | grep -i 'killed process'` on the host, or `kubectl describe pod` / `docker inspect` for "
    "OOMKilled: they tell the kernel's out-of-memory killer from a kill by hand or by a deadline.",
    "shm": "`df -h /dev/shm` in the container while the model loads.",
    "nccl": "Run with NCCL_DEBUG=INFO and read the first WARN; `nvidia-smi topo -m` shows the links.",
    "hang": "`py-spy dump --pid` of every rank, and nvidia-smi: 100 % on all but one GPU is a collective that waits.",
    "crash": "The lines of the other ranks before the signal, and `dmesg` for Xid errors of the driver.",
    "unexplained": "The worker's own log (other ranks, TLLM_LOG_LEVEL=INFO, VLLM_LOGGING_LEVEL=DEBUG): the cause "
    "stands before the first line that repeats it.",
    "unfinished": "Whether the process still runs. If it does: still starting, or hanging (py-spy dump). If not: its "
    "exit code (137 = killed) and `dmesg` for the out-of-memory killer.",
    "capacity": "nvidia-smi right before the launch: free memory at the start tells other users of the GPU from a "
    "server that is too large; --gpu and --config make the numbers here exact.",
}
