"""What PyTorch, CUDA, NCCL, MPI, the operating system, Hugging Face and uvicorn print under any engine.

Formats were read from those programs; a rule asks for the words that only the failure prints, so that a model named
bloom is not out of memory.
"""

from __future__ import annotations

from advisor.engines.log_text import Rule, rule
from advisor.memory.events import Meaning

_SIZE = r"(?P<{0}>[\d.,]+)\s*(?P<{0}_unit>bytes|[KMGT]i?B)"
TORCH_AMOUNTS = (
    r"Tried to allocate " + _SIZE.format("tried"),
    r"(?:of which |; )" + _SIZE.format("free") + r"(?: is)? free",
    r"total capac?ity of " + _SIZE.format("total"),
    r"\(GPU \d+; " + _SIZE.format("total") + r" total capacity",
    r"this process has " + _SIZE.format("mine") + r" memory in use",
    r"Of the allocated memory " + _SIZE.format("torch") + r" is allocated by PyTorch",
    r"(?P<others>(?:Process \d+ has [\d.]+ [KMGT]iB memory in use\. (?:Including[^.]+\.\d+ [^.]+\. )?){2,})",
)
_NOT_A_TRIAL = r"^(?!.*auto-?tun)"  # tuners try what may not fit
_TORCH_OOM = r"CUDA out of memory\b|OutOfMemoryError: |Tried to allocate [\d.]+ [KMG]iB\. GPU"
_CUDA_OOM = (
    r"CUDA (?:runtime |driver )?error\b.{0,300}?: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|Cuda failure .{0,12}'?out of memory|(?:CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED|cudaMalloc failed: out of memory"
)

MEMORY: tuple[Rule, ...] = (
    rule(
        Meaning("cause", "step_oom", "oom", component="activations", usual_stage="serve", detail="forward"),
        ("Encountered an error in forward", "Encountered an error in sampling"),
        r"Encountered an error in (?:forward\w*(?: function)?|sampling)\b.*?(?:out of memory|OutOfMemory)",
        more=TORCH_AMOUNTS,
    ),
    rule(
        Meaning("cause", "sampler_warm_up_oom", "oom", "warm_up", detail="sampler", component="sampler warm-up"),
        "warming up sampler",
        r"out of memory occurred when warming up sampler with (?P<requests>\d+) dummy requests",
    ),
    rule(
        Meaning("cause", "nccl_oom", "oom", usual_stage="connect", detail="nccl_init", component="NCCL communicator"),
        "NCCL",
        r"NCCL WARN .*(?:Cuda failure .*out of memory|Failed to CUDA (?:m|c)alloc)|ncclCudaM?(?:alloc|alloc)\w* failed",
    ),
    rule(
        Meaning("cause", "kv_tensor_oom", "oom", "kv_allocate", detail="kv_cache_alloc", component="KV cache"),
        "caught while allocating memory; skipping",
        r"out of memory.*caught while allocating memory; skipping",
        more=TORCH_AMOUNTS,
    ),
    rule(
        Meaning("cause", "load_module_oom", "oom", "load", detail="weight_load", component="model weights"),
        ("Error executing load",),
        r"Error executing load\w* .*out of memory",
        more=TORCH_AMOUNTS,
    ),
    rule(
        Meaning("cause", "executor_oom", "oom", usual_stage="load", detail="executor_init"),
        "Failed to initialize executor",
        r"Failed to initialize executor on rank \d+: .*out of memory",
        more=TORCH_AMOUNTS,
    ),
    rule(
        Meaning("cause", "torch_oom", "oom", usual_stage="load"),
        ("out of memory", "OutOfMemoryError", "Tried to allocate"),
        _NOT_A_TRIAL + ".*?(?:" + _TORCH_OOM + ")",
        more=TORCH_AMOUNTS,
        levels="EP",
    ),
    rule(
        Meaning("cause", "torch_oom_warned", "oom", usual_stage="load", soft=True),
        ("out of memory", "OutOfMemoryError"),
        _NOT_A_TRIAL + ".*?(?:" + _TORCH_OOM + ")",
        more=TORCH_AMOUNTS,
        levels="W",
    ),
    rule(
        Meaning("cause", "cuda_oom", "oom", usual_stage="load"),
        ("out of memory", "MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED"),
        _NOT_A_TRIAL + ".*?(?:" + _CUDA_OOM + ")",
        levels="EP",
    ),
)

HOST_MEMORY: tuple[Rule, ...] = (
    rule(
        Meaning(
            "cause", "shm", "host_oom", usual_stage="load", component="host shared memory (/dev/shm)", advice="shm"
        ),
        ("us error", "SIGBUS", "shared memory", "/dev/shm", "/torch_", "signal 7"),
        r"signal 7\b|Bus error(?: \(core dumped\)|: nonexistent|:)|\bSIGBUS\b|insufficient shared memory \(shm\)"
        r"|(?:No space left on device|unable to (?:open|resize|write|mmap|allocate)|Error while (?:creating|attaching)"
        r"|failed to (?:open|extend|create|allocate|mmap)).{0,160}(?:/dev/shm|shared memory|/torch_)"
        r"|(?:/dev/shm|/torch_\w+).{0,120}(?:No space left on device|Cannot allocate memory)",
    ),
    rule(
        Meaning("cause", "oom_killer", "host_oom", usual_stage="load", component="host memory", advice="host_ram"),
        (
            "Killed process",
            "oom-kill",
            "OOMKilled",
            "cgroup out of memory",
            "oom_kill",
            "OUT_OF_MEMORY",
            "out-of-memory",
        ),
        r"Out of memory: Killed process|oom-kill:constraint|\bOOMKilled\b|Memory cgroup out of memory"
        r"|Detected \d+ oom[-_]kill event|slurmstepd: .*oom.kill|State: OUT_OF_MEMORY\b"
        r"|killed (?:by|due to) (?:the )?(?:kernel )?(?:out-of-memory|OOM)",
        levels="IWEP",
    ),
    rule(
        Meaning("cause", "host_alloc", "host_oom", usual_stage="load", component="host memory", advice="host_ram"),
        ("bad_alloc", "MemoryError", "allocate memory", "cudaHostAlloc", "cudaMallocHost", "DefaultCPUAllocator"),
        r"\bstd::bad_alloc\b|(?:^|[\s:])MemoryError\b(?!\w)|DefaultCPUAllocator: (?:can't|not enough)|"
        r"(?:mmap|malloc|fork|OSError|\[Errno 12\]).{0,80}Cannot allocate memory|"
        r"cuda(?:HostAlloc|MallocHost|HostRegister)\b.{0,120}out of memory",
    ),
    rule(
        Meaning("cause", "killed", "host_oom", usual_stage="load", component="host memory", soft=True, advice="killed"),
        ("signal 9", "SIGKILL", "Killed", "code 137", "code: 137", "exitcode", "code -9"),
        r"exited on signal 9\b|\bSIGKILL\b|^(?:\S+: line \d+:\s+\d+ )?Killed\b(?! process)|\b(?:exit(?:ed)?|return)"
        r"[ _-]?(?:with )?(?:code|status):? ?(?:137|-9)\b|exitcode ?[:=]? ?-9\b",
    ),
)

SYSTEM: tuple[Rule, ...] = (
    rule(
        Meaning("cause", "slurm_pmi", "mpi", "launch", detail="launch", component="Slurm PMI / Open MPI", advice="mpi"),
        ("PMI", "orte", "OPAL", "MPI_Init", "PMIx", "pmix"),
        r"PMI2?_Init failed|OMPI was not built with SLURM|PMIX? ERROR|orte_init failed|MPI_INIT failed|"
        r"OPAL ERROR|ORTE_ERROR_LOG|MPI_Init(?:_thread)?\b.{0,40}(?:failed|error)",
    ),
    rule(
        Meaning("cause", "mpi_slots", "mpi", "launch", detail="launch", component="Open MPI slots", advice="mpi"),
        ("not enough slots", "as root"),
        r"not enough slots available|mpirun has detected an attempt to run as root",
    ),
    rule(
        Meaning("cause", "port", "port", "launch", detail="bind", component="port", advice="port"),
        ("ddress already in use", "EADDRINUSE", "Failed to bind socket"),
        r"\[Errno 98\]|Failed to bind socket to (?P<address>\S+)|EADDRINUSE|bind\(\).{0,60}Address already in use|"
        r"Address already in use \(addr=",
        more=(r"\('(?P<host>[^']*)', (?P<port>\d+)\)", r"[:.](?P<port>\d{2,5}): ?\[Errno 98\]"),
    ),
    rule(
        Meaning("cause", "segfault", "crash", usual_stage="serve", component=None, advice="crash"),
        ("ignal 11", "egmentation fault", "SIGSEGV", "signal 6", "SIGABRT", "signal 4"),
        r"(?:exited on|Caught|Signal|received)\s*(?:signal|:|with)?[^\n]{0,30}\b(?:11|SIGSEGV|Segmentation fault)"
        r"|Segmentation fault|exited on signal (?:4|6|8|11)\b|Fatal Python error: (?:Segmentation|Aborted)",
    ),
    rule(
        Meaning("wrapper", "mpi_abort"),
        ("MPI_ABORT", "mpirun noticed", "MPI_Abort"),
        r"MPI_ABORT was invoked|MPI_Abort|mpirun noticed",
    ),
    rule(
        Meaning("cause", "client_timeout", "hang", "serve", detail="serving", component="executor loop", advice="hang"),
        ("(28)", "rc=28"),
        r"curl: \(28\) |\brc=28\b",
    ),
)

NCCL: tuple[Rule, ...] = (
    rule(
        Meaning("cause", "collective_timeout", "hang", usual_stage="serve", component="NCCL collective", advice="nccl"),
        ("collective operation timeout", "ollective timeout"),
        r"Watchdog caught collective operation timeout|NCCL.{0,60}collective timeout",
    ),
    rule(
        Meaning(
            "cause",
            "nccl",
            "nccl",
            usual_stage="load",
            detail="executor_init",
            component="NCCL communicator",
            advice="nccl",
        ),
        ("NCCL", "nccl"),
        r"Failed, NCCL error|NCCL error (?:in|at|:)|\bnccl(?:UnhandledCuda|System|Internal|InvalidUsage|Remote)Error\b"
        r"|DistBackendError: NCCL|creation failed with NCCL error|ncclInvalidUsage|NCCL WARN .*(?:Cuda failure|Call to \S+ "
        r"failed|failed to connect)",
    ),
    rule(
        Meaning("alarm", "nccl_path", stage="connect", detail="nccl_init"),
        ("NCCL INFO",),
        r"P2P is disabled between|NVLS multicast support is not available|NET/IB : No device found|Could not find: lib"
        r"nccl-net",
        levels="DIWP",
    ),
    rule(
        Meaning("alarm", "not_destroyed", "benign"),
        "destroy_process_group() was not called",
        levels="IWEP",
    ),
)

CUDA: tuple[Rule, ...] = (
    rule(
        Meaning(
            "cause",
            "capture",
            "kernel_error",
            "warm_up",
            detail="cuda_graph_capture",
            advice="graphs_off",
            component="host-syncing operation inside the captured region",
        ),
        ("capturing", "StreamCapture"),
        r"operation not permitted when stream is capturing|cudaErrorStreamCapture\w+|"
        r"operation would make the legacy stream depend on a capturing",
    ),
    rule(
        Meaning(
            "cause",
            "no_kernel",
            "unsupported_arch",
            usual_stage="warm_up",
            detail="warmup",
            advice="arch",
            component="CUDA kernels of this GPU generation",
        ),
        ("no kernel image", "sm_", "not supported on this", "PTX"),
        r"no kernel image is available for execution|is not compatible with the current PyTorch installation|"
        r"the provided PTX was compiled with an unsupported|ptxas fatal.{0,80}is not defined for option",
    ),
    rule(
        Meaning(
            "cause",
            "driver",
            "version_mismatch",
            "launch",
            detail="startup",
            component="NVIDIA driver",
            advice="driver",
        ),
        ("driver", "ompatibility"),
        r"CUDA driver version is insufficient|forward compatibility was attempted on non supported|"
        r"NVIDIA driver on your system is too old|Driver/library version mismatch|cudaErrorInsufficientDriver",
    ),
    rule(
        Meaning("cause", "no_gpu", "config", "launch", detail="startup", component="GPU visibility", advice="no_gpu"),
        (
            "No GPU devices found",
            "No CUDA GPUs",
            "no CUDA-capable",
            "no NVIDIA driver",
            "invalid device ordinal",
            "NVML Shared Library",
            "Failed to infer device type",
        ),
    ),
    rule(
        Meaning(
            "cause",
            "cuda_error",
            "kernel_error",
            usual_stage="warm_up",
            detail="warmup",
            component="CUDA kernel",
            advice="kernel",
        ),
        ("CUDA error", "CUBLAS_STATUS", "cudaError", "CUDNN_STATUS", "CUDA_ERROR", "CUDA runtime error", "NVRM: Xid"),
        r"CUDA (?:runtime |driver )?error\b.{0,300}?(?:illegal|device-side assert|misaligned|unspecified launch|launch "
        r"failure|invalid argument|invalid configuration|invalid device function|uncorrectable|hardware stack)|"
        r"(?:CUBLAS|CUDNN)_STATUS_(?!ALLOC_FAILED|SUCCESS)\w+|CUDA_ERROR_(?:ILLEGAL|LAUNCH|MISALIGNED|ASSERT|INVALID)\w*|"
        r"cudaError(?:Illegal|Launch|Misaligned|Assert|Invalid(?:Value|Configuration|DeviceFunction))\w*|NVRM: Xid",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "missing_symbol",
            "version_mismatch",
            usual_stage="launch",
            detail="import",
            component="Python and C++ packages",
            advice="version",
        ),
        ("undefined symbol", "ImportError", "ModuleNotFoundError", "cannot open shared object"),
        r"undefined symbol: |^(?:\w+\.)*ImportError: |^ModuleNotFoundError: |cannot open shared object file",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "binding_arguments",
            "version_mismatch",
            usual_stage="load",
            detail="executor_init",
            advice="version",
            component="Python and C++ packages",
        ),
        "incompatible function arguments",
        r"(?P<function>\w+)?\(\): incompatible (?:function|constructor) arguments",
    ),
)

FILES: tuple[Rule, ...] = (
    rule(
        Meaning(
            "cause", "gated", "auth", "download", detail="download", component="Hugging Face access", advice="auth"
        ),
        ("gated repo", "GatedRepoError", "401 Client Error", "403 Client Error", "Invalid credentials", "Unauthorized"),
        r"GatedRepoError|Cannot access gated repo|access a gated repo|40[13] Client Error|Invalid credentials in Author"
        r"|401 Unauthorized.{0,60}huggingface",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "not_found",
            "checkpoint",
            "download",
            detail="download",
            component="model name",
            advice="checkpoint",
        ),
        ("RepositoryNotFoundError", "404 Client Error", "is not a local folder and is not a valid model"),
        levels="EP",
    ),
    rule(
        Meaning(
            "cause", "no_network", "checkpoint", "download", detail="download", component="download", advice="network"
        ),
        ("LocalEntryNotFoundError", "couldn't connect to", "Name or service not known", "resolve host"),
        r"LocalEntryNotFoundError|couldn't connect to '?https://huggingface|huggingface\.co.{0,200}(?:Name or service not "
        r"known|Failed to resolve|Temporary failure)",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "disk_full",
            "checkpoint",
            usual_stage="download",
            detail="download",
            component="disk",
            advice="disk",
        ),
        "No space left on device",
        r"^(?!.*(?:/dev/shm|shared memory|/torch_|nccl)).*No space left on device",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "checkpoint_files",
            "checkpoint",
            usual_stage="load",
            detail="weight_load",
            component="checkpoint files",
            advice="checkpoint",
        ),
        (
            "SafetensorError",
            "safetensors",
            "config.json",
            "size mismatch for",
            "file named",
            "quant_algo",
            "git-lfs",
            "invalid header",
        ),
        r"SafetensorError|HeaderTooLarge|no config\.json exists|does not appear to have a file named|size mismatch for \S+:"
        r"|must have quant_algo|Can't load (?:the )?(?:configuration|tokenizer)|Cannot find any (?:model )?weights|"
        r"No safetensors|Unsupported quantization_config",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "unknown_model_type",
            "unsupported_model",
            "configure",
            detail="config_load",
            component="model class",
            advice="model",
        ),
        (
            "does not recognize this architecture",
            "are not supported for now",
            "has no vLLM implementation",
            "failed to be inspected",
        ),
        levels="EP",
    ),
)

SERVER: tuple[Rule, ...] = (
    rule(Meaning("mark", "server_process", stage="serve", detail="ready"), ("Started server process",), levels="DIWEP"),
    rule(
        Meaning("ready", "uvicorn", stage="serve", detail="ready"),
        ("Application startup complete", "Uvicorn running on"),
        r"Application startup complete\.|Uvicorn running on http",
        levels="DIWEP",
    ),
    rule(
        Meaning("ready", "answered", stage="serve", detail="serving"),
        " HTTP/1.",
        r'"(?:POST|GET) /(?:v1/(?:chat/)?completions|generate|v1/responses)\S* HTTP/1\.\d" 200',
        levels="DIWEP",
    ),
    rule(Meaning("mark", "asked_models", stage="serve", detail="serving"), '"GET /v1/models HTTP/1.', levels="DIWEP"),
)

UNEXPLAINED: tuple[Rule, ...] = (
    rule(
        Meaning("exception", "exception"),
        ("Error: ", "Exception: ", "Assertion failed", "FATAL"),
        r"^\s*(?:[A-Za-z_][\w.]*\.)?(?P<type>[A-Z]\w*(?:Error|Exception)): \S|Assertion failed: |\bFATAL\b",
        levels="EP",
    ),
)

EVERYWHERE = (*MEMORY, *HOST_MEMORY, *SYSTEM, *NCCL, *CUDA, *FILES, *SERVER)
