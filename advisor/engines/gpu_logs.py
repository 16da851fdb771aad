"""What PyTorch, CUDA and NCCL print under any engine.

Formats were read from those programs; a rule asks for the words that only the failure prints, so that a model named
bloom is not out of memory.
"""

from __future__ import annotations

from advisor.engines.log_text import Rule, alarm, cause

_SIZE = r"(?P<{0}>[\d.,]+)\s*(?P<{0}_unit>bytes|[KMGT]i?B)"
TORCH_AMOUNTS = (
    r"Tried to allocate " + _SIZE.format("tried"),
    r"(?:of which |; )" + _SIZE.format("free") + r"(?: is)? free",
    r"total capac?ity of " + _SIZE.format("total"),
    r"\(GPU \d+; " + _SIZE.format("total") + r" total capacity",
    r"this process has " + _SIZE.format("mine") + r" memory in use",
    r"Of the allocated memory " + _SIZE.format("torch") + r" is allocated by PyTorch",
    r"(?P<others>(?:(?:Process \d+|Including non-PyTorch memory, this process) has [\d.]+ \w+ memory in use\.\s*)+)",
    r"\[RANK (?P<rank>\d+)\].*\bGPU (?P<gpu>\d+) has a total",
)
_NOT_A_TRIAL = r"^(?!.*auto-?tun)"  # tuners try what may not fit
_TORCH_OOM = r"CUDA out of memory\b|(?<!ray\.exceptions\.)OutOfMemoryError: |Tried to allocate [\d.]+ [KMG]iB\. GPU"
_CUDA_OOM = (
    r"CUDA (?:runtime |driver )?error\b.{0,300}?: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|Cuda failure .{0,12}'?out of memory|(?:CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED"
    r"|cudaMalloc failed: out of memory|Triton Error \[CUDA\]: out of memory"
)

MEMORY: tuple[Rule, ...] = (
    cause(
        "oom",
        "step_oom",
        ("Encountered an error in forward", "Encountered an error in sampling"),
        r"Encountered an error in (?:forward\w*(?: function)?|sampling)\b.*?(?:out of memory|OutOfMemory)",
        usual_stage="serve",
        detail="forward",
        component="activations",
        more=TORCH_AMOUNTS,
    ),
    cause(
        "oom",
        "sampler_warm_up_oom",
        "warming up sampler",
        r"out of memory occurred when warming up sampler with (?P<requests>\d+) dummy requests",
        stage="warm_up",
        detail="sampler",
        component="sampler warm-up",
    ),
    cause(
        "oom",
        "nccl_oom",
        "NCCL",
        "NCCL WARN .*(?:Cuda failure .*out of memory|Failed to CUDA (?:m|c)alloc)|ncclCudaM?(?:alloc|"
        r"alloc)\w* failed",
        usual_stage="connect",
        detail="nccl_init",
        component="NCCL communicator",
    ),
    cause(
        "oom",
        "kv_tensor_oom",
        "caught while allocating memory; skipping",
        "out of memory.*caught while allocating memory; skipping",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        more=TORCH_AMOUNTS,
    ),
    cause(
        "oom",
        "load_module_oom",
        "Error executing load",
        r"Error executing load\w* .*out of memory",
        stage="load",
        detail="weight_load",
        component="model weights",
        more=TORCH_AMOUNTS,
    ),
    cause(
        "oom",
        "executor_oom",
        "Failed to initialize executor",
        r"Failed to initialize executor on rank \d+: .*out of memory",
        usual_stage="load",
        detail="executor_init",
        more=TORCH_AMOUNTS,
    ),
    cause(
        "oom",
        "torch_oom",
        ("out of memory", "OutOfMemoryError", "Tried to allocate"),
        _NOT_A_TRIAL + ".*?(?:" + _TORCH_OOM + ")",
        usual_stage="load",
        more=TORCH_AMOUNTS,
        levels="EP",
    ),
    cause(
        "oom",
        "torch_oom_warned",
        ("out of memory", "OutOfMemoryError"),
        _NOT_A_TRIAL + ".*?(?:" + _TORCH_OOM + ")",
        usual_stage="load",
        soft=True,
        more=TORCH_AMOUNTS,
        levels="W",
    ),
    cause(
        "oom",
        "cuda_oom",
        ("out of memory", "MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED"),
        _NOT_A_TRIAL + ".*?(?:" + _CUDA_OOM + ")",
        usual_stage="load",
        levels="EP",
    ),
)

NCCL: tuple[Rule, ...] = (
    cause(
        "hang",
        "collective_timeout",
        ("collective operation timeout", "ollective timeout"),
        "Watchdog caught collective operation timeout|NCCL.{0,60}collective timeout",
        usual_stage="serve",
        component="NCCL collective",
        advice="nccl",
    ),
    cause(
        "nccl",
        "rendezvous",
        "clients joined",
        r"Timed out after \d+ seconds waiting for clients",
        stage="connect",
        detail="nccl_init",
        component="rendezvous of the ranks",
        advice="rendezvous",
        levels="EP",
    ),
    cause(
        "nccl",
        "nccl",
        ("NCCL", "nccl"),
        r"Failed, NCCL error|NCCL error (?:in|at|:)|\bnccl(?:UnhandledCuda|System|Internal|InvalidUsage|"
        r"Remote)Error\b|DistBackendError: NCCL|creation failed with NCCL error|ncclInvalidUsage|"
        r"NCCL communicator was aborted|NCCL WARN .*(?:Cuda failure|Call to \S+ failed|failed to connect)",
        usual_stage="load",
        detail="executor_init",
        component="NCCL communicator",
        advice="nccl",
    ),
    alarm(
        "nccl_path",
        "NCCL INFO",
        "P2P is disabled between|NVLS multicast support is not available|NET/IB : No device found|"
        "Could not find: libnccl-net",
        stage="connect",
        detail="nccl_init",
    ),
    alarm("not_destroyed", "destroy_process_group() was not called"),
)

CUDA: tuple[Rule, ...] = (
    alarm("older_torch", "is not compatible with the current PyTorch installation"),
    cause(
        "kernel_error",
        "capture",
        ("capturing", "StreamCapture"),
        r"operation not permitted when stream is capturing|cudaErrorStreamCapture\w+|"
        "operation would make the legacy stream depend on a capturing",
        stage="warm_up",
        detail="cuda_graph_capture",
        component="host-syncing operation inside the captured region",
        advice="graphs_off",
    ),
    cause(
        "unsupported_arch",
        "no_kernel",
        ("no kernel image", "sm_", "not supported on this", "PTX"),
        "no kernel image is available for execution|"
        "the provided PTX was compiled with an unsupported|ptxas fatal.{0,80}is not defined for option",
        usual_stage="warm_up",
        detail="warmup",
        component="CUDA kernels of this GPU generation",
        advice="arch",
    ),
    cause(
        "unsupported_arch",
        "shared_memory",
        "out of resource: shared memory",
        usual_stage="warm_up",
        detail="warmup",
        component="kernel that needs more shared memory than this GPU has",
        advice="arch",
        levels="EP",
    ),
    cause(
        "unsupported_arch",
        "not_on_this_generation",
        (
            "rch unsupported",
            "not supported before",
            "not supported for this",
            "re-Hopper",
            "re-Blackwell",
            "re-Ampere",
            "DefaultMemPool",
            "GPUs or newer",
        ),
        r"\bArch unsupported for\b|\bnot supported before [A-Z]|\bnot supported for this arch|"
        r"cannot be enabled on pre-[A-Z]\w+|only supports \w+ GPUs or newer|"
        r"cudaDeviceGetDefaultMemPool\b.*operation not supported",
        usual_stage="load",
        detail="model_build",
        component="kernels for this GPU generation",
        advice="arch",
        levels="EP",
    ),
    cause(
        "version_mismatch",
        "driver",
        ("driver", "ompatibility"),
        "CUDA driver version is insufficient|forward compatibility was attempted on non supported|"
        "NVIDIA driver on your system is too old|Driver/library version mismatch|unsupported display driver|"
        "cudaErrorInsufficientDriver",
        stage="launch",
        detail="startup",
        component="NVIDIA driver",
        advice="driver",
    ),
    cause(
        "config",
        "no_gpu",
        (
            "No GPU devices found",
            "No CUDA GPUs",
            "no CUDA-capable",
            "no NVIDIA driver",
            "invalid device ordinal",
            "NVML Shared Library",
            "Failed to infer device type",
            "busy or unavailable",
            "system not yet initialized",
            "could not select device driver",
            "nvidia-container-cli:",
        ),
        stage="launch",
        detail="startup",
        component="GPU visibility",
        advice="no_gpu",
    ),
    cause(
        "kernel_error",
        "cuda_error",
        (
            "CUDA error",
            "Cuda error",
            "CUBLAS_STATUS",
            "cudaError",
            "CUDNN_STATUS",
            "CUDA_ERROR",
            "CUDA runtime error",
            "CUDA driver error",
            "NVRM: Xid",
        ),
        r"CUDA (?:runtime |driver )?error\b(?!.*out of memory).{0,300}?(?:illegal|device-side assert|misaligned|"
        "launch failure|invalid |uncorrectable|hardware stack|initialization error|unknown error|named symbol|"
        "operation not supported)|(?:CUBLAS|CUDNN)_STATUS_(?!ALLOC_FAILED|"
        r"SUCCESS)\w+|CUDA_ERROR_(?:ILLEGAL|LAUNCH|MISALIGNED|ASSERT|INVALID)\w*|cudaError(?:Illegal|"
        r"Launch|Misaligned|Assert|Invalid(?:Value|Configuration|DeviceFunction))\w*|NVRM: Xid",
        usual_stage="warm_up",
        detail="warmup",
        component="CUDA kernel",
        advice="kernel",
        levels="EP",
    ),
    cause(
        "version_mismatch",
        "missing_symbol",
        ("undefined symbol", "ImportError", "ModuleNotFoundError", "cannot open shared object", "command not found"),
        r"undefined symbol: |^(?:\w+\.)*ImportError: |^ModuleNotFoundError: |"
        r"cannot open shared object file|\b(?:trtllm-[\w-]+|vllm|mpirun|tritonserver): command not found",
        usual_stage="launch",
        detail="import",
        component="Python and C++ packages",
        advice="version",
        levels="EP",
    ),
    cause(
        "version_mismatch",
        "no_compiler",
        ("C compiler", "nvcc", "Ninja build failed", "CUDA_HOME"),
        r"Failed to find C compiler|\bnvcc: (?:command )?not found|Could not find (?:`?nvcc|CUDA compiler)|"
        "Ninja build failed|CUDA_HOME environment variable is not set",
        usual_stage="warm_up",
        detail="warmup",
        component="compiler for kernels built at start-up",
        advice="compiler",
        levels="EP",
    ),
    cause(
        "version_mismatch",
        "binding_arguments",
        "incompatible function arguments",
        r"(?P<function>\w+)?\(\): incompatible (?:function|constructor) arguments",
        usual_stage="load",
        detail="executor_init",
        component="Python and C++ packages",
        advice="version",
    ),
)

GPU_RULES = (*MEMORY, *NCCL, *CUDA)
