"""What vLLM prints (0.5 to 0.32): stages of start-up, memory figures, failures, wrappers.

Formats are those of vllm-project/vllm: `v1/worker/{gpu_worker,gpu_model_runner}.py`, `v1/core/kv_cache_utils.py`,
`v1/engine/core.py`, their predecessors, and recorded logs.
"""

from __future__ import annotations

from advisor.engines.log_text import ANY_LEVEL, Rule, alarm, cause, fact, frame, mark, ready, wrapper

MARKS: tuple[Rule, ...] = (
    mark("arguments", "launch", "startup", "non-default args"),
    mark("engine", "launch", "startup", ("Initializing a",), r"Initializing an? (?:V1 )?LLM engine"),
    mark("world", "connect", "nccl_init", "distributed_init_method="),
    mark(
        "load",
        "load",
        "weight_load",
        (
            "Starting to load model",
            "Loading model from scratch",
            "Loading safetensors checkpoint",
            "Loading weights took",
            "Loading pt checkpoint",
        ),
    ),
    mark(
        "loaded",
        "kv_estimate",
        "kv_cache_estimation",
        (
            "Model loading took",
            "torch.compile took",
            "torch.compile takes",
            "Initial profiling/warmup run took",
            "Loading model weights took",
        ),
    ),
    mark(
        "kv_budget",
        "kv_allocate",
        "kv_cache_alloc",
        ("Available KV cache memory:", "memory reserved for KV Cache is", "GiB for KV cache on node"),
    ),
    mark("kv_size", "warm_up", "post_kv_resources", ("GPU KV cache size:", "CPU KV cache size:", "# GPU blocks:")),
    mark(
        "graphs",
        "warm_up",
        "cuda_graph_capture",
        ("Capturing CUDA graph", "Capturing cudagraphs", "Capturing the model for CUDA graphs"),
    ),
    mark("warm", "warm_up", "warmup", "Graph capturing finished"),
    ready("stats", "serve", "serving", "Avg prompt throughput:", routine=True),
)

FACTS: tuple[Rule, ...] = (
    fact(
        "vllm_version",
        ("version ", "LLM engine (v"),
        r"version (?P<version>0\.\d+\S*)|LLM engine \(v(?P<engine>[^)]+)\)",
    ),
    fact(
        "vllm_arguments",
        "non-default args",
        "non-default args: ",
        r"'gpu_memory_utilization': (?P<kv_fraction>[\d.]+)",
        r"'kv_cache_memory_bytes': (?P<kv_bytes_given>\d+)",
        r"'max_num_seqs': (?P<max_batch_size>\d+)",
        r"'max_num_batched_tokens': (?P<max_num_tokens>\d+)",
        r"'max_model_len': (?P<max_seq_len>\d+)",
        r"'tensor_parallel_size': (?P<tp>\d+)",
        r"'max_cudagraph_capture_size': (?P<graph_size>\d+)",
    ),
    fact("vllm_graphs", "'cudagraph_capture_sizes':", r"'cudagraph_capture_sizes': (?P<graph_sizes>\[[\d, ]*\])"),
    fact(
        "vllm_graph_memory",
        "Graph capturing finished",
        r"Graph capturing finished in \S+ secs, took (?P<graphs>-?[\d.]+) (?P<graphs_unit>GiB)",
    ),
    fact(
        "vllm_cpu_kv",
        "GiB for KV cache on node",
        r"set \((?P<kv_budget>[\d.]+)/[\d.]+\) (?P<kv_budget_unit>GiB) for KV cache on node",
        r"set \([\d.]+/(?P<total>[\d.]+)\) (?P<total_unit>GiB) for KV cache on node",
    ),
    fact("vllm_seq_len", "Using max model len", r"Using max model len (?P<max_seq_len>\d+)"),
    fact(
        "vllm_tokens",
        "max_num_batched_tokens=",
        r"Chunked prefill is enabled with max_num_batched_tokens=(?P<max_num_tokens>\d+)",
    ),
    fact("vllm_weights", "Model loading took", r"Model loading took (?P<weights>[\d.]+) (?P<weights_unit>Gi?B)"),
    fact(
        "vllm_kv_budget",
        "Available KV cache memory:",
        r"Available KV cache memory: (?P<kv_budget>-?[\d.]+) (?P<kv_budget_unit>GiB)",
    ),
    fact("vllm_kv_tokens", "KV cache size:", r"[GC]PU KV cache size: (?P<kv_tokens>[\d,]+) tokens"),
)

FAILURES: tuple[Rule, ...] = (
    cause(
        "oom",
        "vllm_startup_memory",
        ("on startup is less than desired GPU memory", "on startup is less than desired CPU memory"),
        r"\((?P<free>[\d.]+)(?:-[\d.]+)?/(?P<total>[\d.]+) (?P<free_unit>GiB)\) on startup is less than "
        r"desired [GC]PU memory utilization \((?P<kv_fraction>[\d.]+), (?P<tried>[\d.]+) "
        r"(?P<tried_unit>GiB)\)",
        stage="launch",
        detail="startup",
        component="memory of other processes",
        advice="others",
        levels="EP",
    ),
    cause(
        "oom",
        "vllm_cpu_pool",
        "is less than requested memory for kv",
        r"\((?P<free>[\d.]+)/(?P<total>[\d.]+) (?P<free_unit>GiB)\) on kv cache allocation is less than requested "
        r"memory for kv \((?P<tried>[\d.]+)(?:/[\d.]+)? (?P<tried_unit>GiB)\)",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        levels="EP",
    ),
    cause(
        "insufficient_kv",
        "vllm_no_kv",
        ("No available memory for the cache blocks", "No available blocks for"),
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        levels="EP",
    ),
    cause(
        "insufficient_kv",
        "vllm_short_kv",
        ("To serve at least one request", "is larger than the maximum number of tokens that can be stored"),
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        more=(
            r"max seq len \((?P<wanted_tokens>\d+)\),? \(?(?P<tried>[\d.]+) (?P<tried_unit>GiB) KV cache is "
            r"needed.*?available KV cache memory \((?P<free>-?[\d.]+) (?P<free_unit>GiB)\)",
            r"estimated maximum model length is (?P<fitting_tokens>\d+)",
            r"max seq len \((?P<wanted_tokens>\d+)\) is larger than .*? KV cache \((?P<fitting_tokens>\d+)\)",
        ),
        levels="EP",
    ),
    cause(
        "config",
        "vllm_model_len",
        "User-specified max_model_len",
        r"User-specified max_model_len \((?P<given>\d+)\) is greater than the derived max_model_len(?: "
        r"\(\S*?=?(?P<limit>\d+))?",
        stage="configure",
        detail="argument_validation",
        component="max_model_len",
        advice="config",
        levels="EP",
    ),
    cause(
        "config",
        "vllm_batched_tokens",
        "max_num_batched_tokens (",
        r"max_num_batched_tokens \((?P<given>\d+)\) (?:is smaller than|must be)",
        stage="configure",
        detail="argument_validation",
        component="max_num_batched_tokens",
        advice="config",
        levels="EP",
    ),
    cause(
        "config",
        "vllm_heads",
        (
            "must be divisible by tensor parallel size",
            "is larger than the number of available GPUs",
            "is not divisible by weight quantization block",
        ),
        stage="configure",
        detail="argument_validation",
        component="tensor_parallel_size",
        advice="config",
        levels="EP",
    ),
    cause(
        "config",
        "forked",
        "Cannot re-initialize CUDA in forked subprocess",
        stage="launch",
        detail="startup",
        component="VLLM_WORKER_MULTIPROC_METHOD",
        advice="spawn",
        levels="EP",
    ),
    cause(
        "request_rejected",
        "vllm_prompt",
        ("maximum context length is", "is longer than the maximum model length"),
        r"maximum context length is (?P<limit>\d+) tokens|"
        r"longer than the maximum model length of (?P<cap>\d+)",
        stage="serve",
        detail="serving",
        advice="long_prompt",
    ),
    cause(
        "unsupported_arch",
        "vllm_dtype",
        ("is only supported on GPUs", "not supported for the current GPU"),
        stage="configure",
        detail="argument_validation",
        component="data type on this GPU",
        advice="arch",
        levels="EP",
    ),
    cause(
        "hang",
        "vllm_stuck",
        (
            "execute_model timed out",
            "RPC call to execute_model timed out",
            "RPC call to sample_tokens timed out",
        ),
        "(?:execute_model|sample_tokens) timed out",
        stage="serve",
        detail="serving",
        component="engine core",
        advice="hang",
        levels="EP",
    ),
)

QUIET: tuple[Rule, ...] = (
    cause(
        "hang",
        "vllm_broadcast",
        "No available shared memory broadcast block",
        detail="serving",
        component="engine core",
        advice="hang",
        soft=True,
        levels=ANY_LEVEL,
    ),
)

WRAPPERS: tuple[Rule, ...] = (
    wrapper(
        "vllm_failed",
        (
            "EngineCore failed to start",
            "Engine core initialization failed",
            "EngineDeadError",
            "WorkerProc failed to",
            "WorkerProc initialization failed",
            "EngineCore encountered",
            "AsyncLLM output_handler failed",
            "Engine process failed to start",
            "MQLLMEngine is already dead",
            "Engine process (pid",
            "Engine background task failed",
        ),
    ),
)

ALARMS: tuple[Rule, ...] = (
    alarm("force_killing", "force killing remaining processes"),
    alarm("ulimit", "Too many open files", "cause fd limit errors"),
)

FRAMES: tuple[Rule, ...] = (
    frame(
        "vllm_kv_caches",
        r"in (?:_initialize_kv_caches|initialize_from_config|initialize_kv_cache\w*|"
        r"_allocate_kv_cache\w*)\b",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
    ),
    frame(
        "vllm_profile",
        r"in (?:determine_available_memory|profile_run|determine_num_available_blocks)\b",
        stage="kv_estimate",
        detail="kv_cache_estimation",
        component="activations",
    ),
    frame("vllm_warm", r"in (?:compile_or_warm_up_model|kernel_warmup)\b", stage="warm_up", detail="warmup"),
    frame(
        "vllm_capture",
        r"in (?:capture_model|_capture_cudagraphs?|capture_graph|capture_end)\b",
        stage="warm_up",
        detail="cuda_graph_capture",
        component="CUDA graphs",
    ),
    frame(
        "vllm_sampler",
        r"in (?:_dummy_sampler_run|sample_tokens|compute_logits)\b|v1/sample/\w+\.py",
        component="sampler",
    ),
    frame("vllm_device", r"in init_device\b", stage="launch", detail="runtime_init"),
    frame(
        "vllm_loop",
        r"in (?:run_busy_loop|_process_engine_step|execute_model|engine_step|run_engine_loop)\b",
        stage="serve",
        detail="serving",
        component="activations",
    ),
    frame(
        "vllm_load",
        r"in (?:load_model|initialize_model|load_weights|create_weights|process_weights_after_loading)\b",
        stage="load",
        detail="weight_load",
        component="model weights",
    ),
)

VLLM_RULES = (*FAILURES, *QUIET, *WRAPPERS, *ALARMS, *MARKS, *FACTS, *FRAMES)
