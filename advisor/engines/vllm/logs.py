"""What vLLM prints (V1 engine, 0.8 to 0.24): stages of start-up, memory figures, failures, wrappers.

Formats are those of vllm-project/vllm: `v1/worker/gpu_worker.py`, `v1/core/kv_cache_utils.py`, `v1/engine/core.py`,
`v1/worker/gpu_model_runner.py`, and of recorded logs.
"""

from __future__ import annotations

from advisor.engines.log_text import Rule, rule
from advisor.memory.events import Meaning

_ANY = "DIWEP"
_KV_NEEDED = (
    r"max seq len \((?P<wanted_tokens>\d+)\),? \(?(?P<tried>[\d.]+) (?P<tried_unit>GiB) KV cache is needed.*?"
    r"available KV cache memory \((?P<free>-?[\d.]+) (?P<free_unit>GiB)\)"
)

MARKS: tuple[Rule, ...] = (
    rule(Meaning("mark", "arguments", stage="launch", detail="startup"), "non-default args", levels=_ANY),
    rule(
        Meaning("mark", "engine", stage="launch", detail="startup"),
        ("Initializing a V1 LLM engine", "Initializing an LLM engine"),
        levels=_ANY,
    ),
    rule(Meaning("mark", "world", stage="connect", detail="nccl_init"), "distributed_init_method=", levels=_ANY),
    rule(
        Meaning("mark", "load", stage="load", detail="weight_load"),
        (
            "Starting to load model",
            "Loading model from scratch",
            "Loading safetensors checkpoint",
            "Loading weights took",
        ),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "loaded", stage="kv_estimate", detail="kv_cache_estimation"),
        ("Model loading took", "torch.compile took", "torch.compile takes", "Initial profiling/warmup run took"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "kv_budget", stage="kv_allocate", detail="kv_cache_alloc"),
        "Available KV cache memory:",
        levels=_ANY,
    ),
    rule(Meaning("mark", "kv_size", stage="warm_up", detail="post_kv_resources"), "GPU KV cache size:", levels=_ANY),
    rule(
        Meaning("mark", "graphs", stage="warm_up", detail="cuda_graph_capture"), ("Capturing CUDA graph",), levels=_ANY
    ),
    rule(Meaning("mark", "warm", stage="warm_up", detail="warmup"), "Graph capturing finished", levels=_ANY),
    rule(Meaning("ready", "stats", stage="serve", detail="serving"), "Avg prompt throughput:", levels=_ANY),
)

FACTS: tuple[Rule, ...] = (
    rule(
        Meaning("fact", "vllm_version"),
        ("version 0.", "LLM engine (v"),
        r"version (?P<version>0\.\d+\S*)|LLM engine \(v(?P<engine>[^)]+)\)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "vllm_arguments"),
        "non-default args",
        r"non-default args: ",
        more=(
            r"'gpu_memory_utilization': (?P<kv_fraction>[\d.]+)",
            r"'max_num_seqs': (?P<max_batch_size>\d+)",
            r"'max_num_batched_tokens': (?P<max_num_tokens>\d+)",
            r"'max_model_len': (?P<max_seq_len>\d+)",
            r"'tensor_parallel_size': (?P<tp>\d+)",
            r"'max_cudagraph_capture_size': (?P<graph_size>\d+)",
        ),
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "vllm_seq_len"), "Using max model len", r"Using max model len (?P<max_seq_len>\d+)", levels=_ANY
    ),
    rule(
        Meaning("fact", "vllm_tokens"),
        "max_num_batched_tokens=",
        r"Chunked prefill is enabled with max_num_batched_tokens=(?P<max_num_tokens>\d+)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "vllm_weights"),
        "Model loading took",
        r"Model loading took (?P<weights>[\d.]+) (?P<weights_unit>Gi?B)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "vllm_kv_budget"),
        "Available KV cache memory:",
        r"Available KV cache memory: (?P<kv_budget>-?[\d.]+) (?P<kv_budget_unit>GiB)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "vllm_kv_tokens"),
        "GPU KV cache size:",
        r"GPU KV cache size: (?P<kv_tokens>[\d,]+) tokens",
        levels=_ANY,
    ),
)

FAILURES: tuple[Rule, ...] = (
    rule(
        Meaning(
            "cause",
            "vllm_startup_memory",
            "oom",
            "launch",
            detail="startup",
            advice="others",
            component="memory of other processes",
        ),
        "on startup is less than desired GPU memory",
        r"\((?P<free>[\d.]+)(?:-[\d.]+)?/(?P<total>[\d.]+) (?P<free_unit>GiB)\) on startup is less than desired GPU "
        r"memory utilization \((?P<kv_fraction>[\d.]+), (?P<tried>[\d.]+) (?P<tried_unit>GiB)\)",
        levels="EP",
    ),
    rule(
        Meaning("cause", "vllm_no_kv", "insufficient_kv", "kv_allocate", detail="kv_cache_alloc", component="KV cache"),
        ("No available memory for the cache blocks", "No available blocks for"),
        levels="EP",
    ),
    rule(
        Meaning(
            "cause", "vllm_short_kv", "insufficient_kv", "kv_allocate", detail="kv_cache_alloc", component="KV cache"
        ),
        ("To serve at least one request", "is larger than the maximum number of tokens that can be stored"),
        more=(
            _KV_NEEDED,
            r"estimated maximum model length is (?P<fitting_tokens>\d+)",
            r"max seq len \((?P<wanted_tokens>\d+)\) is larger than .*? KV cache \((?P<fitting_tokens>\d+)\)",
        ),
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "vllm_model_len",
            "config",
            "configure",
            detail="argument_validation",
            component="max_model_len",
            advice="config",
        ),
        "User-specified max_model_len",
        r"User-specified max_model_len \((?P<given>\d+)\) is greater than the derived max_model_len"
        r"(?: \(\S*?=?(?P<limit>\d+))?",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "vllm_batched_tokens",
            "config",
            "configure",
            detail="argument_validation",
            component="max_num_batched_tokens",
            advice="config",
        ),
        "max_num_batched_tokens (",
        r"max_num_batched_tokens \((?P<given>\d+)\) (?:is smaller than|must be)",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "vllm_heads",
            "config",
            "configure",
            detail="argument_validation",
            component="tensor_parallel_size",
            advice="config",
        ),
        ("must be divisible by tensor parallel size", "is larger than the number of available GPUs"),
        levels="EP",
    ),
    rule(
        Meaning("cause", "vllm_prompt", "request_rejected", "serve", detail="serving", advice="long_prompt"),
        ("maximum context length is", "is longer than the maximum model length"),
        r"maximum context length is (?P<limit>\d+) tokens|longer than the maximum model length of (?P<cap>\d+)",
    ),
    rule(
        Meaning(
            "cause",
            "vllm_dtype",
            "unsupported_arch",
            "configure",
            detail="argument_validation",
            advice="arch",
            component="data type on this GPU",
        ),
        ("Bfloat16 is only supported on GPUs", "not supported for the current GPU"),
        levels="EP",
    ),
    rule(
        Meaning("cause", "vllm_stuck", "hang", "serve", detail="serving", component="engine core", advice="hang"),
        (
            "execute_model timed out",
            "RPC call to execute_model timed out",
            "RPC call to sample_tokens timed out",
            "No available shared memory broadcast block",
        ),
        r"(?:execute_model|sample_tokens) timed out",
        levels="EP",
    ),
)

WRAPPERS: tuple[Rule, ...] = (
    rule(
        Meaning("wrapper", "vllm_failed"),
        (
            "EngineCore failed to start",
            "Engine core initialization failed",
            "EngineDeadError",
            "WorkerProc failed to",
            "WorkerProc initialization failed",
            "EngineCore encountered",
            "AsyncLLM output_handler failed",
            "Engine process failed to start",
        ),
        levels="EP",
    ),
)

ALARMS: tuple[Rule, ...] = (
    rule(Meaning("alarm", "force_killing"), "force killing remaining processes", levels=_ANY),
    rule(Meaning("alarm", "ulimit"), "Too many open files", r"cause fd limit errors", levels=_ANY),
)

FRAMES: tuple[Rule, ...] = (
    rule(
        Meaning("frame", "vllm_kv_caches", stage="kv_allocate", detail="kv_cache_alloc", component="KV cache"),
        ", in ",
        r"in (?:_initialize_kv_caches|initialize_from_config|initialize_kv_cache\w*|_allocate_kv_cache\w*)\b",
    ),
    rule(
        Meaning("frame", "vllm_profile", stage="kv_estimate", detail="kv_cache_estimation", component="activations"),
        ", in ",
        r"in (?:determine_available_memory|profile_run|determine_num_available_blocks)\b",
    ),
    rule(
        Meaning("frame", "vllm_warm", stage="warm_up", detail="warmup"),
        ", in ",
        r"in (?:compile_or_warm_up_model|kernel_warmup)\b",
    ),
    rule(
        Meaning("frame", "vllm_capture", stage="warm_up", detail="cuda_graph_capture", component="CUDA graphs"),
        ", in ",
        r"in (?:capture_model|_capture_cudagraphs?|capture_graph)\b",
    ),
    rule(
        Meaning("frame", "vllm_sampler", component="sampler"),
        ", in ",
        r"in (?:_dummy_sampler_run|sample_tokens|compute_logits)\b|v1/sample/\w+\.py",
    ),
    rule(Meaning("frame", "vllm_device", stage="launch", detail="runtime_init"), ", in ", r"in init_device\b"),
    rule(
        Meaning("frame", "vllm_loop", stage="serve", detail="serving", component="activations"),
        ", in ",
        r"in (?:run_busy_loop|_process_engine_step|execute_model)\b",
    ),
)

VLLM_RULES = (*FAILURES, *WRAPPERS, *ALARMS, *MARKS, *FACTS, *FRAMES)
