"""One line is enough: what the programs around an engine say when they end it, and errors nobody has a rule for."""

from __future__ import annotations

import pytest

from advisor.app.doctoring import diagnose_lines

START = "[TRT-LLM] [I] Starting TensorRT LLM init."
TRACEBACK = "Traceback (most recent call last):"

SAID = {
    "ValueError: The model requires at least: 140.00 GB, the total GPU memory of 80.00 is insufficient.": "oom",
    "ValueError: The amount of KV cache memory is insufficient to run this model.": "insufficient_kv",
    "ValueError: guided decoding and mtp enabled together is not supported yet.": "config",
    'RuntimeError: Attempting to override KV cache quantization "FP8" with llm_args.KvCacheConfig': "config",
    "NotImplementedError: KV connector is only supported with guaranteed no evict scheduler policy.": "config",
    "AssertionError: world_size must equal to tp_size * pp_size * cp_size, but got 4 != 2 * 1 * 1.": "config",
    "OSError: [Errno 99] Cannot assign requested address": "config",
    "RuntimeError: Cannot re-initialize CUDA in forked subprocess.": "config",
    "ValueError: The output_size of gate = 192 is not divisible by weight quantization block_n = 128.": "config",
    'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].': "config",
    "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1": "config",
    "RuntimeError: The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).": "port",
    "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.": "nccl",
    "RuntimeError: NCCL communicator was aborted on rank 3.": "nccl",
    "OSError: [Errno 24] Too many open files": "crash",
    "RuntimeError: can't start new thread": "crash",
    "Illegal instruction (core dumped)": "crash",
    "double free or corruption (!prev)": "crash",
    "RuntimeError: CUDA driver error: invalid device context": "kernel_error",
    "RuntimeError: CUDA error: initialization error": "kernel_error",
    "RuntimeError: Triton Error [CUDA]: out of memory": "oom",
    "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 147456": "unsupported_arch",
    "RuntimeError: FlashAttention only supports Ampere GPUs or newer.": "unsupported_arch",
    "bash: trtllm-serve: command not found": "version_mismatch",
    "OSError: Incorrect path_or_model_id: '/models/x'.": "checkpoint",
    "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Busy for url: https://huggingface.co/a": "checkpoint",
}


@pytest.mark.parametrize("text", SAID, ids=range(len(SAID)))
def test_one_line_is_enough(text: str) -> None:
    found = diagnose_lines([START, TRACEBACK, text])
    assert found.verdict == SAID[text]
    assert found.evidence[0].line == 3
    assert found.remedies or found.next_probe


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        ("ValueError: Unsupported guided decoding backend other", "config"),
        ("yaml.scanner.ScannerError: mapping values are not allowed here", "config"),
        ("NotImplementedError: no such layer", "unsupported_model"),
        ("AttributeError: module 'torch' has no attribute 'x'", "crash"),
        ("torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:", "crash"),
    ],
)
def test_an_error_without_a_rule_that_ends_a_start_is_named_by_its_type(error: str, verdict: str) -> None:
    found = diagnose_lines([START, TRACEBACK, error])
    assert found.verdict == verdict
    assert error in found.summary


def test_a_wrong_value_once_something_is_loaded_need_not_be_a_setting() -> None:
    lines = [START, "[TRT-LLM] [I] Use 14.96 GB for model weights.", TRACEBACK, "ValueError: shapes differ"]
    assert diagnose_lines(lines).verdict == "crash"


def test_an_error_that_the_start_outlives_is_none() -> None:
    lines = [START, TRACEBACK, "ValueError: no such plug-in", "[TRT-LLM] [I] Use 14.96 GB for model weights."]
    assert diagnose_lines(lines).verdict == "unknown"
    assert diagnose_lines([*lines, "INFO:     Application startup complete."]).verdict == "benign"


def test_a_job_that_was_cancelled_while_it_served_did_not_fail() -> None:
    cancelled = "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***"
    lines = ["INFO:     Application startup complete.", cancelled, "srun: error: n1: task 0: Killed"]
    assert diagnose_lines(lines).verdict == "benign"
