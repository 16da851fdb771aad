"""What TensorRT-LLM prints when it fails: its memory report, memory errors of the C++ runtime, everything else.

Formats are those of NVIDIA/TensorRT-LLM: `_torch/pyexecutor/{py_executor_creator,py_executor,hang_detector}.py`,
`llmapi/{llm,llm_args}.py`, `executor/base_worker.py` and the C++ runtime, from 0.5 to the 1.3 release candidates.
"""

from __future__ import annotations

from advisor.engines.gpu_logs import TORCH_AMOUNTS
from advisor.engines.log_text import Rule, block, cause, fact

REPORT: tuple[Rule, ...] = (
    cause(
        "oom",
        "creation_oom",
        "Executor creation failed",
        "Executor creation failed due to insufficient GPU memory",
        more=TORCH_AMOUNTS,
    ),
    cause(
        "oom",
        "creation_nccl_oom",
        "Executor creation failed",
        "Executor creation failed with an error which might indicate insufficient GPU memory",
        detail="nccl",
    ),
    block(
        "component", "could not be created:", r"The following component could not be created: (?P<component>.+?)\s*$"
    ),
    block("total", "Total GPU memory", r"Total GPU memory \(GiB\): (?P<total>[\d.]+)"),
    block(
        "before", "before component creation attempt", r"before component creation attempt \(GiB\): (?P<before>[\d.]+)"
    ),
    block(
        "row",
        " / ",
        r"^\s*(?P<row>Model|Draft model[\w ]*|Guided Decoder|Sampler|Drafter|Initial KV [Cc]ache[^:]*|"
        "KV cache|Additional executor resources[^:]*|Model resources created during usage|"
        r"Speculative decoding resources|_no_capture_\w+|(?:draft_)?model(?:_extra)?|guided_decoder|"
        "sampler|drafter|spec_resource_manager|kv_cache|"
        r"executor_extra): (?P<row_before>[\d.]+) / (?P<row_after>[\d.]+)\s*$",
    ),
)

MEMORY: tuple[Rule, ...] = (
    cause(
        "oom",
        "async_step_oom",
        "Encountered an error in forwardAsync",
        "forwardAsync function: .*out of memory",
        stage="serve",
        detail="serving",
        component="buffers of a step",
    ),
    cause(
        "oom",
        "ipc_buffers",
        ("ipcUtils", "IpcMemory", "ipcNvlsMemory"),
        r"out of memory.*(?:ipcUtils|ipc\w*Memory)",
        stage="load",
        detail="runtime_buffers",
        component="inter-GPU buffers",
        advice="buffers",
    ),
    cause(
        "oom",
        "runtime_buffers",
        "out of memory",
        r"cudaMalloc\w*\b.*: out of memory.*(?:tllmBuffers|bufferManager|runtimeBuffers)",
        usual_stage="load",
        detail="runtime_buffers",
        component="runtime buffers (stream-ordered allocation)",
        advice="buffers",
    ),
    cause(
        "oom",
        "builder_memory",
        ("virtualMemoryBuffer", "globWriter", "makeResizableGpuMemory"),
        r"(?:virtualMemoryBuffer|globWriter)\.cpp.*(?:OutOfMemory|out of memory)",
        stage="build",
        detail="engine_build",
        component="engine weights",
        advice="build",
        more=(r"Requested size was (?P<requested>\d+) bytes",),
    ),
    cause(
        "oom",
        "builder_allocator",
        "[TRT] [E]",
        r"\[TRT\] \[E\].*(?:defaultAllocator.*out of memory|OutOfMemory)",
        stage="build",
        detail="engine_build",
        component="builder workspace",
        advice="build",
        more=(r"Requested size was (?P<requested>\d+) bytes",),
    ),
    cause(
        "oom",
        "engine_weights",
        ("deserialize", "defaultAllocator"),
        r"deserialize\w*\.cpp.*OutOfMemory|defaultAllocator\.cpp.*out of memory|"
        r"deserialize\w*\.cpp.*out of memory",
        stage="load",
        detail="weight_load",
        component="engine weights",
        more=(r"Requested size was (?P<requested>\d+) bytes",),
    ),
    fact(
        "requested",
        "Requested amount of GPU memory",
        r"Requested amount of GPU memory \((?P<requested>\d+) (?P<requested_unit>bytes)\)",
    ),
    cause(
        "insufficient_kv",
        "no_sequence_fits",
        (
            "to fit in any sequence in kvCache",
            "maxTokensInPagedKvCache must be large enough",
            "KV cache block allocation",
            "to process at least",
            "No memory available for KV cache",
            "kv cache memory is not enough",
        ),
        "Impossibl?e to fit in any sequence|must be large enough to process at least 1 sequence|"
        "No memory available for KV cache|kv cache memory is not enough",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
    ),
    cause(
        "insufficient_kv",
        "no_free_block",
        ("free block", "new blocks"),
        "Assertion failed: .*(?:No free blocks? (?:found|left)|Can't allocate new blocks)",
        usual_stage="serve",
        detail="serving",
        component="KV cache",
        levels="EP",
    ),
    cause(
        "insufficient_kv",
        "no_kv_budget",
        "available KV cache memory when calculating",
        r"available KV cache memory when calculating max tokens: (?:-\d|0\.0+ )[\d.]*",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        soft=True,
        levels="IWEP",
    ),
    cause(
        "insufficient_kv",
        "window_too_large",
        ("ttention window too large", "fail_fast_on_attention_window"),
        "Attention window.*too large",
        stage="kv_allocate",
        detail="kv_cache_alloc",
        component="KV cache",
        levels="E",
    ),
)

FAILURES: tuple[Rule, ...] = (
    cause(
        "hang",
        "hang_detected",
        ("Hang detected", "HangDetector"),
        r"Hang detected (?:on rank \d+|after)",
        stage="serve",
        detail="serving",
        component="executor loop",
        advice="hang",
    ),
    cause(
        "hang", "no_slots", "No free slots", stage="serve", detail="serving", component="sequence slots", advice="slots"
    ),
    cause(
        "nccl",
        "kv_transport",
        ("NIXL_ERR_", "NIXL_SUCCESS"),
        r"\bNIXL_ERR_\w+|Assertion failed:.*\bNIXL_SUCCESS",
        usual_stage="load",
        detail="executor_init",
        component="KV cache transfer between servers (NIXL, UCX)",
        advice="transport",
        levels="EP",
    ),
    cause(
        "version_mismatch",
        "engine_of_another_release",
        ("json.exception", "not found; expected shape", "ngine plan file", "serializationVersion", "Version tag"),
        r"\[json\.exception\.\w+\.\d+\] key '\w+' not found|Input tensor '\w+' not found; expected shape|"
        r"engine plan file is (?:not compatible|generated on an incompatible)|"
        r"stdVersionRead == serializationVersion|Version tag does not match",
        usual_stage="load",
        detail="executor_init",
        component="engine built by another release",
        advice="rebuild",
        levels="EP",
    ),
    cause(
        "hang",
        "kv_transfer",
        "KV cache transfer",
        r"Timed out waiting for (?:context|generation) KV cache transfer",
        stage="serve",
        detail="serving",
        component="KV cache transfer between servers",
        advice="hang",
        soft=True,
    ),
    cause(
        "kernel_error",
        "bitmask",
        "bitmask must have the same batch size",
        stage="warm_up",
        detail="cuda_graph_capture",
        component="guided decoding bitmask",
        advice="draft_schedule",
    ),
    cause(
        "kernel_error",
        "gemm",
        ("running GEMM", "batchedGemm", "run gemm"),
        "Error occurred when running GEMM|Failed to run .{0,20}gemm",
        stage="warm_up",
        detail="warmup",
        component="batched GEMM",
        advice="kernel",
    ),
    cause(
        "kernel_error",
        "step_kernel",
        "Encountered an error in forward",
        r"Encountered an error in forward.{0,60}CUDA (?:runtime )?error(?!.*(?:out of memory|OutOfMemory))",
        usual_stage="serve",
        detail="serving",
        component="CUDA kernel",
        advice="kernel",
        levels="EP",
    ),
    cause(
        "crash",
        "step_error",
        ("Encountered an error in forward", "Encountered an error in sampling"),
        "^(?!.*must be less than max sequence length).*Encountered an error in (?:forward|sampling)",
        usual_stage="serve",
        detail="serving",
        component="forward step",
        advice="crash",
        levels="EP",
    ),
)
