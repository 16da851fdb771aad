"""What TensorRT-LLM prints on its way: stages of start-up, settings and figures, tracebacks, harmless alarms.

Formats are those of NVIDIA/TensorRT-LLM, from 0.5 (C++ session, Triton) to the 1.3 release candidates:
`_torch/pyexecutor/{_util,py_executor,model_engine}.py`, `_torch/autotuner.py`, `executor/proxy.py`, the C++ runtime.
"""

from __future__ import annotations

from advisor.engines.log_text import Rule, alarm, fact, frame, mark, ready, wrapper
from advisor.engines.trtllm.failure_lines import FAILURES, MEMORY, REPORT
from advisor.engines.trtllm.refusal_lines import REFUSALS
from advisor.memory.events import RETRIED

MARKS: tuple[Rule, ...] = (
    mark(
        "backend",
        "launch",
        "startup",
        ("Using LLM with", "using MpiPoolSession", "Starting TensorRT LLM", "Starting TensorRT-LLM"),
    ),
    mark(
        "weights",
        "load",
        "weight_load",
        (
            "for model weights",
            "Loading safetensors",
            "Loading weights",
            "Model init total",
            "Prefetching",
            "LLM model loading",
        ),
        r"Use [\d.]+ GB for model weights|Loading safetensors|Loading weights\b|Model init total|"
        "Prefetching .*(?:checkpoint|file)",
    ),
    mark(RETRIED, "load", "weight_load", "Fallback to regular model init"),
    mark("engine_file", "load", "weight_load", "Loaded engine size"),
    mark("load_balancer", "load", "weight_load", "moe_load_balancer"),
    mark(
        "engine_context",
        "load",
        "runtime_buffers",
        ("IExecutionContext creation", "for execution context memory", "decoder buffers"),
    ),
    mark(
        "pool_cap",
        "kv_estimate",
        "kv_cache_estimation",
        (
            "Both free_gpu_memory_fraction and max_tokens",
            "max_tokens is set by kv_cache_config.max_tokens",
            "tokens and free_gpu_memory_fraction are set to",
        ),
    ),
    mark("profiling", "kv_estimate", "kv_cache_estimation", "Memory used after loading"),
    mark(
        "profiled",
        "kv_estimate",
        "kv_cache_estimation",
        (
            "Memory dynamically allocated during inference",
            "Memory used outside torch",
            "Peak memory during memory usage profiling",
        ),
    ),
    mark(
        "pool_budget",
        "kv_allocate",
        "kv_cache_alloc",
        (
            "Estimated max memory in KV cache",
            "Estimated max tokens in KV cache",
            "Max KV cache pages per sequence",
            "Max KV cache blocks per sequence",
        ),
    ),
    mark("old_pool", "kv_allocate", "kv_cache_alloc", ("tokens in paged KV cache.", "Max tokens in paged KV cache")),
    mark(
        "pool",
        "warm_up",
        "post_kv_resources",
        ("for max tokens in paged KV cache", "device quota set to"),
        r"Allocated [\d.]+ GiB for max tokens in paged KV cache|KV cache manager \w+ device quota set to",
    ),
    mark("autotuner", "warm_up", "autotuner_warmup", ("Autotuning process starts", "Running autotuner warmup")),
    mark("warm_up", "warm_up", "warmup", ("Autotuning process ends", "Run warmup ")),
    mark(
        "graphs",
        "warm_up",
        "cuda_graph_capture",
        (
            "CUDA graph warmup for batch size",
            "Creating CUDA graph instances",
            "Run warmup for batch size",
            "CUDA graph capture",
        ),
    ),
    mark("torch_cap", "warm_up", "post_kv_resources", "Setting PyTorch memory fraction"),
    mark(
        "engine_build",
        "build",
        "engine_build",
        ("Build TensorRT engine", "Init builder kernel library", "Building engine", "Skipping tactic"),
    ),
    ready(
        "servers_ready",
        "serve",
        "ready",
        (
            "All servers are ready",
            "successfully loaded 'tensorrt_llm",
            "successfully loaded 'ensemble",
            "Started GRPCInferenceService",
            "Started HTTPService",
        ),
    ),
    ready("iterations", "serve", "serving", "iter = ", r"\biter = \d+, (?:global_rank|rank) = \d+", routine=True),
)

_GIB = r"(?P<{0}>-?[\d.]+) ?(?P<{0}_unit>GiB)"
FACTS: tuple[Rule, ...] = (
    fact("version", "LLM version", r"TensorRT[- ]LLM version: (?P<version>\S+)"),
    fact("weights", "for model weights", r"Use (?P<weights_gib>[\d.]+) GB for model"),  # GiB, whatever it says
    fact(
        "sizes",
        "max_num_requests=",
        r"max_seq_len=(?P<max_seq_len>\d+), max_num_requests=(?P<max_batch_size>\d+), "
        r"max_num_tokens=(?P<max_num_tokens>\d+)",
    ),
    fact(
        "cpp_sizes",
        "TRTGptModel max",
        r"TRTGptModel (?:maxNumTokens: (?P<max_num_tokens>\d+)|maxBatchSize: (?P<max_batch_size>\d+)|"
        r"maxSequenceLen: (?P<max_seq_len>\d+))",
    ),
    fact(
        "fraction",
        "free_gpu_memory_fraction",
        r"free_gpu_memory_fraction and max_tokens are set \(to (?P<kv_fraction>[\d.]+) and (?P<capped_tokens>\d+)",
    ),
    fact(
        "loaded",
        "after loading",
        r"Memory used after loading (?:model )?weights \(inside torch\).*: " + _GIB.format("loaded"),
    ),
    fact(
        "loaded_outside",
        "after loading",
        r"Memory used after loading (?:model )?weights \(outside torch\).*: " + _GIB.format("loaded_outside"),
    ),
    fact(
        "activations",
        "Memory dynamically allocated during inference",
        "profiling: " + _GIB.format("activations"),
    ),
    fact(
        "outside",
        "Memory used outside torch",
        r"Memory used outside torch\b.* in memory usage profiling: " + _GIB.format("outside"),
    ),
    fact(
        "budget",
        "available KV cache memory when calculating",
        r"non-torch\): "
        + _GIB.format("peak")
        + ", available KV cache memory when calculating max tokens: "
        # Not before 0.21: the fraction, KV bytes; not before 1.0: the device's total, the temporary pool.
        + _GIB.format("kv_budget"),
        r"fraction is set (?P<kv_fraction>[\d.]+)",
        r"kv size(?: per token)? is (?P<kv_bytes>\d+)",
        "device total memory " + _GIB.format("total"),
        "(?:tmp kv_mem|temporary kv cache memory during profiling) +" + _GIB.format("temporary"),
    ),
    fact(
        "pool",
        "for max tokens in paged KV cache",
        "Allocated " + _GIB.format("kv_pool") + r" for max tokens in paged KV cache \((?P<kv_tokens>\d+)\)",
    ),
    fact("quota", "device quota set to", r"KV cache manager \w+ device quota set to " + _GIB.format("kv_pool")),
    fact(
        "old_pool",
        "Max tokens in paged KV cache",
        r"Max tokens in paged KV cache: (?P<kv_tokens>\d+)\. Allocating (?P<kv_pool>\d+) "
        "(?P<kv_pool_unit>bytes)",
    ),
    fact("block", "tokens per block", r"[Tt]okens per block[:=] ?(?P<tokens_per_block>\d+)"),
    fact(
        "context",
        "for execution context memory",
        r"Allocated (?P<context>[\d.]+) (?P<context_unit>[MG]iB) for execution context",
    ),
    fact(
        "window_cut",
        "exceeds upper bound",
        r"window size (?P<wanted_tokens>\d+) exceeds upper bound (?P<fitting_tokens>\d+)",
    ),
    fact("graph_count", "Creating CUDA graph instances", r"instances for (?P<graph_count>\d+) batch sizes"),
    fact(
        "graph_size",
        "warmup for batch size",
        r"(?:CUDA graph warmup for batch size=|Run warmup for batch size=(?=\d+\s*$))(?P<graph_size>\d+)",
    ),
    fact(
        "torch_cap",
        "Setting PyTorch memory fraction",
        r"Setting PyTorch memory fraction to [\d.]+ \(" + _GIB.format("torch_cap"),
    ),
)

WRAPPERS: tuple[Rule, ...] = (
    wrapper(
        "init_failed",
        (
            "Executor worker returned error",
            "Executor worker initialization error",
            "Error in event loop",
            "Sampling failed",
            "Failed to initialize executor",
            "Engine building failed",
            "LLM is unavailable",
            "Error in thread",
            "The GPU ran out of memory",
            "Executor loop crashed",
        ),
    ),
    wrapper("worker_died", "Executor worker died during initialization"),
)

ALARMS: tuple[Rule, ...] = (
    alarm(
        "tactic_oom",
        ("utotuner", "utoTun"),
        r"auto-?tunn?er\]?:?.{0,200}(?:OOM detected|out of memory|OutOfMemory|"
        "falling back to default tactic)",
        stage="warm_up",
        detail="autotuner_warmup",
        strong=True,
    ),
    alarm(
        "tactic_skipped",
        ("Tactic Device request", "Skipping tactic", "skipping tactic", "insufficient to use tactic"),
        r"Tactic Device request: .*Available|skipping tactic \S+ due to insufficient memory",
        stage="build",
        detail="engine_build",
        strong=True,
    ),
    alarm(
        "window",
        ("exceeds upper bound", "Adjusted max_seq_len", "Adjusted max_attention_window_vec"),
        detail="kv_cache_estimation",
    ),
    alarm("workspace", "Attention workspace size is not enough"),
    alarm(
        "store_context",
        ("storeContextBlocks: Can not find", "releaseBlocks: Can not find"),
        stage="serve",
        detail="ready",
    ),
    alarm("clamped", "is greater than deduced `default_max_tokens`", stage="serve", detail="serving"),
    alarm("implicit", "build_config is ignored for model format"),
)

FRAMES: tuple[Rule, ...] = (
    frame(
        "load",
        r"in (?:load_weights\w*|_?load_model\w*|load_single_module|create_weights|post_load_weights|"
        r"from_pretrained|process_weights_after_loading|resmooth\w*|initialize_model|_init_model)\b|"
        "executing load_single_module",
        stage="load",
        detail="weight_load",
        component="model weights",
        needs=(", in ", "load_single_module"),
    ),
    frame(
        "estimate",
        "in (?:configure_kv_cache_capacity|estimate_max_tokens|estimate_max_kv_cache_tokens|"
        r"try_prepare_estimation)\b",
        stage="kv_estimate",
        detail="kv_cache_estimation",
        component="Model resources created during usage",
    ),
    frame(
        "kv",
        r"in (?:_create_kv_cache_manager|allocate_pools|build_managers)\b",
        detail="kv_cache_alloc",
        component="KV cache",
    ),
    frame(
        "autotune",
        r"in (?:_run_autotuner_warmup|autotune|_profile_single_kernel)\b",
        stage="warm_up",
        detail="autotuner_warmup",
        component="autotuner workspace",
    ),
    frame(
        "capture",
        r"in (?:_capture_\w*cuda_graphs?\w*|_run_cuda_graph_warmup|capture)\b|cuda_graph_runner\.py",
        stage="warm_up",
        detail="cuda_graph_capture",
        component="CUDA graphs",
        needs=(", in ", "cuda_graph_runner"),
    ),
    frame("warm_up", r"in (?:warmup|_general_warmup|_run_torch_compile_warmup)\b", stage="warm_up", detail="warmup"),
    frame("sample", r"in (?:sample_async|_sample_async|_sample_batched\w*)\b", detail="serving", component="sampler"),
    frame(
        "convert",
        r"convert_checkpoint\.py\"?, line|in convert_and_save\w*\b",
        stage="build",
        detail="checkpoint_convert",
        component="checkpoint conversion",
        needs=(", in ", "convert_checkpoint"),
    ),
)

TRTLLM_RULES = (*FAILURES, *REFUSALS, *MEMORY, *REPORT, *WRAPPERS, *ALARMS, *MARKS, *FACTS, *FRAMES)
