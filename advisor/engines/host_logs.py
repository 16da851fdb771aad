"""What the operating system, MPI, Slurm, Hugging Face, Python and uvicorn print under any engine."""

from __future__ import annotations

from advisor.engines.log_text import ANY_LEVEL, Rule, cause, mark, ready, rule, wrapper
from advisor.memory.events import Meaning

HOST_MEMORY: tuple[Rule, ...] = (
    cause(
        "host_oom",
        "shm",
        ("us error", "SIGBUS", "shared memory", "/dev/shm", "/torch_", "signal "),
        r"signal 7\b|Bus error(?: \(core dumped\)|: nonexistent|:)|\bSIGBUS\b|"
        r"insufficient shared memory \(shm\)|(?:No space left on device|unable to (?:open|resize|write|"
        "mmap|allocate)|Error while (?:creating|attaching)|failed to (?:open|extend|create|allocate|"
        "mmap)).{0,160}(?:/dev/shm|shared memory|/torch_)|(?:/dev/shm|"
        r"/torch_\w+).{0,120}(?:No space left on device|Cannot allocate memory)",
        usual_stage="load",
        component="host shared memory (/dev/shm)",
        advice="shm",
    ),
    cause(
        "host_oom",
        "oom_killer",
        (
            "Killed process",
            "oom-kill",
            "OOMKilled",
            "cgroup out of memory",
            "oom_kill",
            "OUT_OF_MEMORY",
            "out-of-memory",
            "running low on memory",
            "memory pressure",
            "memory usage threshold",
        ),
        r"Out of memory: Killed process|oom-kill:constraint|\bOOMKilled\b|Memory cgroup out of memory|"
        r"node running low on memory|killed due to memory pressure|exceeds the memory usage threshold|"
        r"Detected \d+ oom[-_]kill event|slurmstepd: .*oom.kill|State: OUT_OF_MEMORY\b|killed (?:by|"
        "due to) (?:the )?(?:kernel )?(?:out-of-memory|OOM)",
        usual_stage="load",
        component="host memory",
        advice="host_ram",
        levels="IWEP",
    ),
    cause(
        "host_oom",
        "host_alloc",
        ("bad_alloc", "MemoryError", "allocate memory", "cudaHostAlloc", "cudaMallocHost", "DefaultCPUAllocator"),
        r"\bstd::bad_alloc\b|(?:^|[\s:])MemoryError\b(?!\w)|DefaultCPUAllocator: (?:can't|not enough)|"
        r"(?:mmap|malloc|fork|OSError|\[Errno 12\]).{0,80}Cannot allocate memory|cuda(?:HostAlloc|"
        r"MallocHost|HostRegister)\b.{0,120}out of memory",
        more=(r"you tried to allocate (?P<tried>\d+) (?P<tried_unit>bytes)",),
        usual_stage="load",
        component="host memory",
        advice="host_ram",
    ),
    cause(
        "host_oom",
        "killed",
        ("on signal", "SIGKILL", "Killed", "exit"),
        r"exited on signal 9\b|\bSIGKILL\b|^(?:\S+: line \d+:\s+\d+ )?Killed\b(?! process)|"
        r"\b(?:exit(?:ed)?|return)[ _-]?(?:with )?(?:code|status):? ?(?:137|-9)\b|exitcode ?[:=]? ?-9\b",
        usual_stage="load",
        component="host memory",
        advice="killed",
        soft=True,
    ),
)

SYSTEM: tuple[Rule, ...] = (
    cause(
        "mpi",
        "slurm_pmi",
        ("PMI", "orte", "OPAL", "MPI_Init", "PMIx", "pmix", "PRTE ERROR"),
        "PMI2?_Init failed|OMPI was not built with SLURM|(?:PMIX?|PRTE) ERROR|orte_init failed|MPI_INIT failed|"
        r"OPAL ERROR|ORTE_ERROR_LOG|MPI_Init(?:_thread)?\b.{0,40}(?:failed|error)",
        stage="launch",
        detail="launch",
        component="Slurm PMI / Open MPI",
        advice="mpi",
    ),
    cause(
        "mpi",
        "mpi_error",
        "MPI error",
        r"Failed: MPI error \S+ '\d+'",
        usual_stage="load",
        detail="executor_init",
        component="Open MPI",
        advice="mpi",
        levels="EP",
    ),
    cause(
        "mpi",
        "mpi_slots",
        ("not enough slots", "as root"),
        "not enough slots available|mpirun has detected an attempt to run as root",
        stage="launch",
        detail="launch",
        component="Open MPI slots",
        advice="mpi",
    ),
    cause(
        "port",
        "port",
        ("ddress already in use", "EADDRINUSE", "Failed to bind socket"),
        r"\[Errno 98\]|\(errno: 98|Failed to bind socket to (?P<address>\S+)|EADDRINUSE|"
        r"bind\(\).{0,60}Address already in use|Address already in use \(addr=",
        stage="launch",
        detail="bind",
        component="port",
        advice="port",
        more=(
            r"\('(?P<host>[^']*)', (?P<port>\d+)\)",
            r"[:.](?P<port>\d{2,5}): ?\[Errno 98\]",
        ),
    ),
    cause(
        "crash",
        "segfault",
        ("ignal", "egmentation fault", "SIGSEGV", "SIGABRT", "(core dumped)", "corrupt", "): invalid "),
        r"(?:exited on|Caught|Signal|received)\s*(?:signal|:|with)?[^\n]{0,30}\b(?:11|SIGSEGV|"
        r"Segmentation fault)|Segmentation fault|exited on signal (?:4|6|8|11)\b|"
        r"Fatal Python error: (?:Segmentation|Aborted)|(?:Aborted|Illegal instruction|exception) \(core dumped\)|"
        r"^(?:free|malloc|realloc|munmap_chunk)\w*\(\): invalid |^double free or corruption|^corrupted (?:size|double)",
        usual_stage="serve",
        advice="crash",
    ),
    cause(
        "crash",
        "process_limits",
        ("Too many open files", "start new thread", "pthread_create failed", "Errno 11]"),
        r"\[Errno 24\]|can't start new thread|pthread_create failed|\[Errno 11\] Resource temporarily",
        usual_stage="launch",
        detail="startup",
        component="process limits (ulimit, container pids)",
        advice="limits",
        levels="EP",
    ),
    cause(
        "config",
        "address",
        "Errno 99]",
        r"\[Errno 99\] (?:error while attempting to bind|Cannot assign requested address)",
        stage="launch",
        detail="bind",
        component="--host",
        advice="address",
        levels="EP",
    ),
    wrapper("terminated", ("terminate called after", "Process received signal")),
    wrapper(
        "mpi_abort", ("MPI_ABORT", "mpirun noticed", "MPI_Abort"), "MPI_ABORT was invoked|MPI_Abort|mpirun noticed"
    ),
    cause(
        "hang",
        "client_timeout",
        ("curl: (", "rc="),
        r"curl: \(28\) |\brc=28\b",
        stage="serve",
        detail="serving",
        component="executor loop",
        advice="hang",
    ),
)

FILES: tuple[Rule, ...] = (
    cause(
        "auth",
        "gated",
        ("gated repo", "GatedRepoError", " Client Error", "Invalid credentials", "Unauthorized"),
        "GatedRepoError|Cannot access gated repo|access a gated repo|40[13] Client Error|"
        "Invalid credentials in Author|401 Unauthorized.{0,60}huggingface",
        stage="download",
        detail="download",
        component="Hugging Face access",
        advice="auth",
        levels="EP",
    ),
    cause(
        "checkpoint",
        "not_found",
        (
            "RepositoryNotFoundError",
            " Client Error",
            "is not a local folder and is not a valid model",
            "path_or_model_id",
            "HFValidationError",
        ),
        "RepositoryNotFoundError|404 Client Error|is not a local folder and is not a valid model|"
        "Incorrect path_or_model_id|HFValidationError",
        stage="download",
        detail="download",
        component="model name",
        advice="checkpoint",
        levels="EP",
    ),
    cause(
        "checkpoint",
        "no_network",
        (
            "LocalEntryNotFoundError",
            "couldn't connect to",
            "Name or service not known",
            "resolve host",
            "Too Many Requests",
            " Server Error",
        ),
        "LocalEntryNotFoundError|couldn't connect to '?https://huggingface|"
        r"(?:429 Client|50\d Server) Error: .{0,80}\burl: https://huggingface|"
        r"huggingface\.co.{0,200}(?:Name or service not known|Failed to resolve|Temporary failure)",
        stage="download",
        detail="download",
        component="download",
        advice="network",
        levels="EP",
    ),
    cause(
        "checkpoint",
        "disk_full",
        "No space left on device",
        "^(?!.*(?:/dev/shm|shared memory|/torch_|nccl)).*No space left on device",
        usual_stage="download",
        detail="download",
        component="disk",
        advice="disk",
        levels="EP",
    ),
    cause(
        "checkpoint",
        "checkpoint_files",
        (
            "SafetensorError",
            "safetensors",
            "config.json",
            "size mismatch for",
            "file named",
            "quant_algo",
            "git-lfs",
            "invalid header",
            "Unable to load weights",
            "KeyError: ",
        ),
        r"SafetensorError|HeaderTooLarge|no config\.json exists|does not appear to have a file named|"
        r"size mismatch for \S+:|must have quant_algo|Can't load (?:the )?(?:configuration|tokenizer)|"
        "Cannot find any (?:model )?weights|No safetensors|Unable to load weights from|"
        r"\bKeyError: '[\w.]+\.(?:weight|bias|qweight|scales?|weight_scale\w*)'|Unsupported quantization_config",
        usual_stage="load",
        detail="weight_load",
        component="checkpoint files",
        advice="checkpoint",
        levels="EP",
    ),
    cause(
        "unsupported_model",
        "unknown_model_type",
        (
            "does not recognize this architecture",
            "are not supported for now",
            "has no vLLM implementation",
            "failed to be inspected",
        ),
        stage="configure",
        detail="config_load",
        component="model class",
        advice="model",
        levels="EP",
    ),
)

SERVER: tuple[Rule, ...] = (
    mark("server_process", "serve", "ready", "Started server process"),
    ready(
        "uvicorn",
        "serve",
        "ready",
        ("Application startup complete", "Uvicorn running on"),
        r"Application startup complete\.|Uvicorn running on http",
    ),
    ready(
        "answered",
        "serve",
        "serving",
        " HTTP/",
        r'"(?:POST|GET) /(?:v1/(?:chat/)?completions|generate|v1/responses)\S* HTTP/1\.\d" 200',
        routine=True,
    ),
    mark("asked_models", "serve", "serving", '"GET /v', r'"GET /v1/models HTTP/1\.'),
)

SHUTDOWN: tuple[Rule, ...] = (
    rule(
        Meaning("shutdown", "asked_to_stop"),
        (
            "trigger received signal",
            "Shutting down",
            "received signal",
            "Received signal",
            "shutdown triggered",
            "CANCELLED AT",
        ),
        r"trigger received signal=|^INFO:\s+Shutting down|(?:R|r)eceived signal (?:15|2|SIGTERM|SIGINT)|"
        r"shutdown triggered|slurmstepd: error: \*\*\* (?:JOB|STEP) .* CANCELLED AT",
        levels=ANY_LEVEL,
    ),
)

UNEXPLAINED: tuple[Rule, ...] = (
    rule(
        Meaning("exception", "exception"),
        ("Error: ", "Exception: ", "Failed: ", "Assertion failed", "FATAL"),
        "^(?!.*(?:EngineDeadError|worker (?:returned error|died)|See root cause above|"
        r"See stack trace))\s*(?:[A-Za-z_][\w.]*\.)?(?P<type>[A-Z]\w*(?:Error|Exception|Failed)): \S|"
        r"Assertion failed: |\bFATAL\b",
        levels="EP",
    ),
)

HOST_RULES = (*HOST_MEMORY, *SYSTEM, *FILES, *SERVER, *SHUTDOWN, *UNEXPLAINED)
