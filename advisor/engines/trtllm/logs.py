"""What TensorRT-LLM prints: stages of start-up, its memory report, failures, alarms that mean nothing.

Formats are those of `reference` sources of NVIDIA/TensorRT-LLM: `_torch/pyexecutor/{py_executor_creator,_util,
py_executor,model_engine,hang_detector}.py`, `executor/{worker,proxy}.py`, `llmapi/llm.py` and the C++ runtime, from
0.5 (C++ session, Triton) to the 1.3 release candidates.
"""

from __future__ import annotations

from advisor.engines.log_text import Rule, rule
from advisor.engines.shared_logs import TORCH_AMOUNTS
from advisor.memory.events import Meaning

_ANY = "DIWEP"

MARKS: tuple[Rule, ...] = (
    rule(
        Meaning("mark", "backend", stage="launch", detail="startup"),
        ("Using LLM with", "using MpiPoolSession", "Starting TensorRT LLM", "Starting TensorRT-LLM"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "weights", stage="load", detail="weight_load"),
        (
            "for model weights",
            "Loading safetensors",
            "Loading weights",
            "Model init total",
            "Loaded engine size",
            "Prefetching",
            "LLM model loading",
        ),
        r"Use [\d.]+ GB for model weights|Loading safetensors|Loading weights\b|Model init total|Loaded engine size|"
        r"Prefetching .*(?:checkpoint|file)",
        levels=_ANY,
    ),
    rule(Meaning("mark", "load_balancer", stage="load", detail="weight_load"), "moe_load_balancer", levels=_ANY),
    rule(
        Meaning("mark", "engine_context", stage="load", detail="runtime_buffers"),
        ("IExecutionContext creation", "for execution context memory", "decoder buffers"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "pool_cap", stage="kv_estimate", detail="kv_cache_estimation"),
        ("Both free_gpu_memory_fraction and max_tokens", "max_tokens is set by kv_cache_config.max_tokens"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "profiling", stage="kv_estimate", detail="kv_cache_estimation"),
        ("in memory usage profiling", "Memory dynamically allocated during inference"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "pool_budget", stage="kv_allocate", detail="kv_cache_alloc"),
        (
            "Estimated max memory in KV cache",
            "Estimated max tokens in KV cache",
            "Max KV cache pages per sequence",
            "Max KV cache blocks per sequence",
            "tokens in paged KV cache.",
            "Max tokens in paged KV cache",
        ),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "pool", stage="warm_up", detail="post_kv_resources"),
        "for max tokens in paged KV cache",
        r"Allocated [\d.]+ GiB for max tokens in paged KV cache",
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "autotuner", stage="warm_up", detail="autotuner_warmup"),
        ("Autotuning process starts", "Running autotuner warmup"),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "warm_up", stage="warm_up", detail="warmup"),
        ("Autotuning process ends", "Run warmup "),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "graphs", stage="warm_up", detail="cuda_graph_capture"),
        (
            "CUDA graph warmup for batch size",
            "Creating CUDA graph instances",
            "Run warmup for batch size",
            "CUDA graph capture",
        ),
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "torch_cap", stage="warm_up", detail="post_kv_resources"),
        "Setting PyTorch memory fraction",
        levels=_ANY,
    ),
    rule(
        Meaning("mark", "engine_build", stage="build", detail="engine_build"),
        ("Build TensorRT engine", "Init builder kernel library", "Building engine", "Skipping tactic"),
        levels=_ANY,
    ),
    rule(
        Meaning("ready", "servers_ready", stage="serve", detail="ready"),
        ("All servers are ready", "successfully loaded '", "Started GRPCInferenceService", "Started HTTPService"),
        levels=_ANY,
    ),
    rule(
        Meaning("ready", "iterations", stage="serve", detail="serving"),
        "iter = ",
        r"\biter = \d+, (?:global_rank|rank) = \d+",
        levels=_ANY,
    ),
)

FACTS: tuple[Rule, ...] = (
    rule(Meaning("fact", "version"), "LLM version", r"TensorRT[- ]LLM version: (?P<version>\S+)", levels=_ANY),
    rule(
        Meaning("fact", "weights"),
        "for model weights",
        r"Use (?P<weights>[\d.]+) (?P<weights_unit>GB) for model",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "sizes"),
        "max_num_requests=",
        r"max_seq_len=(?P<max_seq_len>\d+), max_num_requests=\d+, max_num_tokens=(?P<max_num_tokens>\d+), "
        r"max_batch_size=(?P<max_batch_size>\d+)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "cpp_sizes"),
        "TRTGptModel max",
        r"TRTGptModel (?:maxNumTokens: (?P<max_num_tokens>\d+)|maxBatchSize: (?P<max_batch_size>\d+)|"
        r"maxSequenceLen: (?P<max_seq_len>\d+))",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "fraction"),
        "free_gpu_memory_fraction",
        r"free_gpu_memory_fraction and max_tokens are set \(to (?P<kv_fraction>[\d.]+)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "budget"),
        "available KV cache memory when calculating",
        r"non-torch\): (?P<peak>[\d.]+) (?P<peak_unit>GiB), available KV cache memory when calculating max tokens: "
        r"(?P<kv_budget>-?[\d.]+) (?P<kv_budget_unit>GiB), fraction is set (?P<kv_fraction>[\d.]+)",
        more=(r"kv size is (?P<kv_bytes>[\d.]+)", r"device total memory (?P<total>[\d.]+) (?P<total_unit>GiB)"),
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "activations"),
        "Memory dynamically allocated during inference",
        r"profiling: (?P<activations>[\d.]+) (?P<activations_unit>GiB)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "pool"),
        "for max tokens in paged KV cache",
        r"Allocated (?P<kv_pool>[\d.]+) (?P<kv_pool_unit>GiB) for max tokens in paged KV cache \((?P<kv_tokens>\d+)\)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "old_pool"),
        "Max tokens in paged KV cache",
        r"Max tokens in paged KV cache: (?P<kv_tokens>\d+)\. Allocating (?P<kv_pool>\d+) (?P<kv_pool_unit>bytes)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "context"),
        "for execution context memory",
        r"Allocated (?P<context>[\d.]+) (?P<context_unit>[MG]iB) for execution context",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "window_cut"),
        "exceeds upper bound",
        r"window size (?P<wanted_tokens>\d+) exceeds upper bound (?P<fitting_tokens>\d+)",
        levels=_ANY,
    ),
    rule(
        Meaning("fact", "graph_sizes"),
        "CUDA graph warmup for batch size",
        r"batch size=(?P<graph_size>\d+)",
        levels=_ANY,
    ),
)

REPORT: tuple[Rule, ...] = (
    rule(
        Meaning("cause", "creation_oom", "oom", component=None),
        "Executor creation failed",
        r"Executor creation failed due to insufficient GPU memory",
        more=TORCH_AMOUNTS,
    ),
    rule(
        Meaning("cause", "creation_nccl_oom", "oom", detail="nccl"),
        "Executor creation failed",
        r"Executor creation failed with an error which might indicate insufficient GPU memory",
    ),
    rule(
        Meaning("block", "component"),
        "could not be created:",
        r"The following component could not be created: (?P<component>.+?)\s*$",
        levels=_ANY,
    ),
    rule(Meaning("block", "total"), "Total GPU memory", r"Total GPU memory \(GiB\): (?P<total>[\d.]+)", levels=_ANY),
    rule(
        Meaning("block", "before"),
        "before component creation attempt",
        r"before component creation attempt \(GiB\): (?P<before>[\d.]+)",
        levels=_ANY,
    ),
    rule(
        Meaning("block", "row"),
        " / ",
        r"^\s*(?P<row>Model|Draft model[\w ]*|Guided Decoder|Sampler|Drafter|Initial KV [Cc]ache[^:]*|KV cache|"
        r"Additional executor resources[^:]*|Model resources created during usage|Speculative decoding resources|"
        r"_no_capture_\w+|(?:draft_)?model(?:_extra)?|guided_decoder|sampler|drafter|spec_resource_manager|kv_cache|"
        r"executor_extra): (?P<row_before>[\d.]+) / (?P<row_after>[\d.]+)\s*$",
        levels=_ANY,
    ),
)

MEMORY: tuple[Rule, ...] = (
    rule(
        Meaning(
            "cause",
            "ipc_buffers",
            "oom",
            "load",
            detail="runtime_buffers",
            component="inter-GPU buffers",
            advice="buffers",
        ),
        ("ipcUtils", "IpcMemory", "ipcNvlsMemory"),
        r"out of memory.*(?:ipcUtils|ipc\w*Memory)",
    ),
    rule(
        Meaning(
            "cause",
            "runtime_buffers",
            "oom",
            usual_stage="load",
            detail="runtime_buffers",
            advice="buffers",
            component="runtime buffers (stream-ordered allocation)",
        ),
        "out of memory",
        r"cudaMalloc\w*\b.*: out of memory.*(?:tllmBuffers|bufferManager|runtimeBuffers)",
    ),
    rule(
        Meaning("cause", "engine_weights", "oom", "load", detail="weight_load", component="engine weights"),
        ("deserialize", "defaultAllocator"),
        r"deserialize\w*\.cpp.*OutOfMemory|defaultAllocator\.cpp.*out of memory|"
        r"deserialize\w*\.cpp.*out of memory",
        more=(r"Requested size was (?P<requested>\d+) bytes",),
    ),
    rule(
        Meaning(
            "cause", "builder_memory", "oom", "build", detail="engine_build", component="engine weights", advice="build"
        ),
        ("virtualMemoryBuffer", "globWriter", "makeResizableGpuMemory"),
        r"(?:virtualMemoryBuffer|globWriter)\.cpp.*(?:OutOfMemory|out of memory)",
        more=(r"Requested size was (?P<requested>\d+) bytes",),
    ),
    rule(
        Meaning("fact", "requested"),
        "Requested amount of GPU memory",
        r"Requested amount of GPU memory \((?P<requested>\d+) (?P<requested_unit>bytes)\)",
        levels=_ANY,
    ),
    rule(
        Meaning(
            "cause", "no_sequence_fits", "insufficient_kv", "kv_allocate", detail="kv_cache_alloc", component="KV cache"
        ),
        (
            "to fit in any sequence in kvCache",
            "maxTokensInPagedKvCache must be large enough",
            "KV cache block allocation",
            "at least 1 sequence",
            "No memory available for KV cache",
            "kv cache memory is not enough",
        ),
        r"Impossibl?e to fit in any sequence|must be large enough to process at least 1 sequence|"
        r"No memory available for KV cache|kv cache memory is not enough",
    ),
    rule(
        Meaning(
            "cause",
            "no_kv_budget",
            "insufficient_kv",
            "kv_allocate",
            detail="kv_cache_alloc",
            component="KV cache",
            soft=True,
        ),
        ("available KV cache memory when calculating",),
        r"available KV cache memory when calculating max tokens: (?:-\d|0\.0+ )[\d.]*",
        levels="IWEP",
    ),
    rule(
        Meaning(
            "cause", "window_too_large", "insufficient_kv", "kv_allocate", detail="kv_cache_alloc", component="KV cache"
        ),
        ("ttention window too large", "fail_fast_on_attention_window"),
        r"Attention window.*too large",
        levels="E",
    ),
)

FAILURES: tuple[Rule, ...] = (
    rule(
        Meaning("cause", "hang_detected", "hang", "serve", detail="serving", component="executor loop", advice="hang"),
        ("Hang detected", "HangDetector"),
        r"Hang detected (?:on rank \d+|after)",
        levels="WEP",
    ),
    rule(
        Meaning("cause", "no_slots", "hang", "serve", detail="serving", component="sequence slots", advice="slots"),
        "No free slots",
    ),
    rule(
        Meaning("cause", "arguments", "config", "configure", detail="argument_validation", advice="config"),
        ("Failed to parse the arguments", "validation error"),
        r"Failed to parse the arguments for the LLM constructor|\d+ validation errors? for \w+",
        levels="EP",
    ),
    rule(
        Meaning("cause", "argument", "config", "configure", detail="argument_validation", advice="config"),
        ("Value error, ", "Extra inputs are not permitted"),
        r"Value error, (?P<setting>\w+)?[^\n]{0,20}?(?:\[(?P<given>[\d.]+)\])?.{0,60}?"
        r"(?:greater than [\w.]+ \[(?P<limit>\d+)\])|Value error, (?P<named>\w+)|Extra inputs are not permitted",
        levels="EP",
        with_previous=True,
    ),
    rule(
        Meaning(
            "cause",
            "click",
            "config",
            "configure",
            detail="argument_validation",
            advice="config",
            component="command line",
        ),
        ("No such option", "unrecognized arguments", "Invalid value for", "Missing argument", "unexpected extra arg"),
        r"^(?:Error: )?(?:No such option:? '?(?P<named>-+[\w-]+)|Invalid value for '?(?P<option>-+[\w-]+)|Missing "
        r"argument|Got unexpected extra arg)|error: unrecognized arguments: (?P<unknown>-+[\w-]+)",
    ),
    rule(
        Meaning(
            "cause",
            "model_not_in_trt",
            "unsupported_model",
            "configure",
            detail="config_load",
            advice="backend",
            component="TensorRT path does not know the architecture",
        ),
        "The given huggingface model architecture",
        r"architecture \S+ is not supported in TRT-LLM",
    ),
    rule(
        Meaning(
            "cause",
            "unknown_architecture",
            "unsupported_model",
            "load",
            detail="model_build",
            component="model class",
            advice="model",
        ),
        ("Unknown architecture for", "Unsupported model architecture"),
        r"Unknown architecture for \w+: (?P<architecture>\w+)|Unsupported model architecture",
    ),
    rule(
        Meaning(
            "cause",
            "fp4_moe_arch",
            "unsupported_arch",
            "warm_up",
            detail="warmup",
            advice="moe_backend",
            component="FP4 block-scale MoE",
        ),
        "supported by FP4",
        r"Only SM\d+\S* is supported by FP4 block scale MOE",
    ),
    rule(
        Meaning(
            "cause",
            "fp8_block_arch",
            "unsupported_arch",
            "load",
            detail="model_build",
            advice="arch",
            component="FP8 block-scale GEMM",
        ),
        ("Unsupported SM version", "block scal"),
        r"Unsupported SM version for FP8 block|FP8 block scal.{0,60}not supp",
    ),
    rule(
        Meaning(
            "cause",
            "sm_version",
            "unsupported_arch",
            usual_stage="load",
            detail="model_build",
            advice="arch",
            component="kernels for this GPU generation",
        ),
        ("SM version", "Only SM", "sm version", "compute capability", "architecture is not supported"),
        r"Unsupported SM version|Only SM ?\d+.{0,40}(?:supported|support)|requires (?:SM|compute capability) ?[\d.]+|"
        r"not supported on (?:SM|compute capability) ?\d+",
        levels="EP",
    ),
    rule(
        Meaning(
            "cause",
            "moe_shared_memory",
            "unsupported_arch",
            "warm_up",
            detail="autotuner_warmup",
            soft=True,
            component="fused MoE kernel",
            advice="moe_backend",
        ),
        "lacks the shared memory resources",
        r"GPU lacks the shared memory resources to run (?P<kernel>\w+)",
        more=(r"launcher_(?P<sm>sm\d+)",),
    ),
    rule(
        Meaning(
            "cause",
            "bitmask",
            "kernel_error",
            "warm_up",
            detail="cuda_graph_capture",
            advice="draft_schedule",
            component="guided decoding bitmask",
        ),
        "bitmask must have the same batch size",
    ),
    rule(
        Meaning("cause", "gemm", "kernel_error", "warm_up", detail="warmup", component="batched GEMM", advice="kernel"),
        ("running GEMM", "batchedGemm", "run gemm"),
        r"Error occurred when running GEMM|Failed to run .{0,20}gemm",
    ),
    rule(
        Meaning(
            "cause",
            "disagg_choices",
            "config",
            "serve",
            detail="serving",
            component="disaggregated request",
            advice="one_choice",
            soft=False,
        ),
        "Context server returned",
        r"Context server returned \d+ choices",
    ),
    rule(
        Meaning("cause", "prompt_too_long", "request_rejected", "serve", detail="serving", advice="long_prompt"),
        ("The sum of prompt length", "default_max_tokens` ("),
        r"The sum of prompt length \((?P<prompt>[\d.]+)\),?.*?should not exceed (?P<limit_name>\w+) \((?P<limit>\d+)\)|"
        r"`default_max_tokens` \(-?\d+\) (?:must|should) be greater than 0",
    ),
    rule(
        Meaning(
            "cause",
            "input_limit",
            "config",
            "launch",
            detail="startup",
            soft=True,
            advice="long_prompt",
            component="input length limited by max_num_tokens",
        ),
        "maxInputLen",
        r"TRTGptModel maxInputLen: (?P<limit>\d+) = min\(maxSequenceLen - 1, maxNumTokens\)",
        levels="IWEP",
    ),
    rule(
        Meaning(
            "cause",
            "step_error",
            "kernel_error",
            usual_stage="serve",
            detail="serving",
            component="forward step",
            advice="kernel",
        ),
        ("Encountered an error in forward", "Encountered an error in sampling"),
        r"^(?!.*(?:out of memory|OutOfMemory)).*Encountered an error in (?:forward|sampling)",
        levels="EP",
    ),
)

WRAPPERS: tuple[Rule, ...] = (
    rule(
        Meaning("wrapper", "init_failed"),
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
        ),
        levels="EP",
    ),
    rule(Meaning("wrapper", "worker_died"), "Executor worker died during initialization", levels="EP"),
)

ALARMS: tuple[Rule, ...] = (
    rule(
        Meaning("alarm", "tactic_oom", stage="warm_up", detail="autotuner_warmup", strong=True),
        ("utotuner", "utoTun"),
        r"auto-?tunn?er\]?:?.{0,200}(?:OOM detected|out of memory|OutOfMemory|falling back to default tactic)",
        levels="DIWP",
    ),
    rule(
        Meaning("alarm", "tactic_skipped", stage="build", detail="engine_build", strong=True),
        ("Tactic Device request", "Skipping tactic", "skipping tactic", "insufficient to use tactic"),
        r"Tactic Device request: .*Available|skipping tactic \S+ due to insufficient memory",
        levels="DIWP",
    ),
    rule(
        Meaning("alarm", "window", detail="kv_cache_estimation"),
        ("exceeds upper bound", "Adjusted max_seq_len", "Adjusted max_attention_window_vec"),
        levels=_ANY,
    ),
    rule(Meaning("alarm", "workspace"), "Attention workspace size is not enough", levels=_ANY),
    rule(
        Meaning("alarm", "store_context", stage="serve", detail="ready"),
        ("storeContextBlocks: Can not find", "releaseBlocks: Can not find"),
        levels=_ANY,
    ),
    rule(
        Meaning("alarm", "clamped", stage="serve", detail="serving"),
        "is greater than deduced `default_max_tokens`",
        levels=_ANY,
    ),
    rule(Meaning("alarm", "implicit"), "build_config is ignored for model format", levels=_ANY),
)

FRAMES: tuple[Rule, ...] = (
    rule(
        Meaning("frame", "load", stage="load", detail="weight_load", component="model weights"),
        (", in ", "load_single_module"),
        r"in (?:load_weights\w*|_?load_model\w*|load_single_module|create_weights|post_load_weights|from_pretrained|"
        r"process_weights_after_loading|resmooth\w*|initialize_model|_init_model)\b|executing load_single_module",
    ),
    rule(
        Meaning(
            "frame",
            "estimate",
            stage="kv_estimate",
            detail="kv_cache_estimation",
            component="Model resources created during usage",
        ),
        ", in ",
        r"in (?:configure_kv_cache_capacity|estimate_max_tokens|estimate_max_kv_cache_tokens|try_prepare_estimation)\b",
    ),
    rule(
        Meaning("frame", "kv", detail="kv_cache_alloc", component="KV cache"),
        ", in ",
        r"in (?:_create_kv_cache_manager|allocate_pools|build_managers)\b",
    ),
    rule(
        Meaning("frame", "autotune", stage="warm_up", detail="autotuner_warmup", component="autotuner workspace"),
        ", in ",
        r"in (?:_run_autotuner_warmup|autotune|_profile_single_kernel)\b",
    ),
    rule(
        Meaning("frame", "capture", stage="warm_up", detail="cuda_graph_capture", component="CUDA graphs"),
        (", in ", "cuda_graph_runner"),
        r"in (?:_capture_\w*cuda_graphs?\w*|_run_cuda_graph_warmup|capture)\b|cuda_graph_runner\.py",
    ),
    rule(
        Meaning("frame", "warm_up", stage="warm_up", detail="warmup"),
        ", in ",
        r"in (?:warmup|_general_warmup|_run_torch_compile_warmup)\b",
    ),
    rule(
        Meaning("frame", "sample", detail="serving", component="sampler"),
        ", in ",
        r"in (?:sample_async|_sample_async|_sample_batched\w*)\b",
    ),
    rule(
        Meaning("frame", "convert", stage="build", detail="checkpoint_convert", component="checkpoint conversion"),
        (", in ", "convert_checkpoint"),
        r"convert_checkpoint\.py\"?, line|in convert_and_save\w*\b",
    ),
)

TRTLLM_RULES = (*FAILURES, *MEMORY, *REPORT, *WRAPPERS, *ALARMS, *MARKS, *FACTS, *FRAMES)
