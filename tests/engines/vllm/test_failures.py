"""What vLLM says when it dies, as recorded: each text has its outcome, on a GPU and on a CPU."""

from __future__ import annotations

import pytest

from advisor.domain.outcome import BadConfig, Crashed, Infrastructure, Outcome, OutOfMemory
from advisor.domain.units import gib
from advisor.engines.rule_book import RULES
from advisor.memory.case import Case
from advisor.memory.diagnosis import diagnose
from advisor.memory.outcomes import Death, outcome_of

CORE = "(EngineCore pid=7) ERROR 11-28 15:14:10 [core.py:1231] "
LAST = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
POOL = (
    "ValueError: Available memory on node 0 (8.14/9.84 GiB) on kv cache allocation is less than requested memory for "
    "kv (64.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other "
    "processes."
)
STARTUP = (
    "ValueError: Available memory on node 0 (8.3/9.84 GiB) on startup is less than desired CPU memory utilization "
    "(0.95, 9.35 GiB). Decrease --gpu-memory-utilization or reduce CPU memory used by other processes."
)
ALLOCATOR = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 3221225472 bytes. Error code 12 (Cannot allocate memory)"
)
ONE_REQUEST = (
    "ValueError: To serve at least one request with the model's max seq len (512), (0.25 GiB KV cache is needed, which "
    "is larger than the available KV cache memory (0.01 GiB). Based on the available memory, the estimated maximum "
    "model length is 480. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
)


def ended(text: str, *, on_host: bool, exit_code: int = 1) -> Outcome:
    case = Case()
    lines = [f"{CORE}EngineCore failed to start.", f"{CORE}{text}", LAST]
    for event in RULES.events(enumerate(lines, start=1)):
        case.take(event)
    return outcome_of(diagnose(case), Death("load", exit_code, on_host=on_host))


@pytest.mark.parametrize(
    ("text", "phase", "short_gib"),
    [(POOL, "kv_allocate", 64.0 - 8.14), (STARTUP, "launch", 9.35 - 8.3), (ONE_REQUEST, "kv_allocate", 0.24)],
)
def test_memory_that_vllm_itself_misses_names_phase_and_shortfall(text: str, phase: str, short_gib: float) -> None:
    outcome = ended(text, on_host=True)
    assert isinstance(outcome, OutOfMemory)
    assert outcome.phase == phase
    assert outcome.short_gib == pytest.approx(short_gib)


def test_a_refused_host_allocation_is_out_of_memory_only_where_the_server_works_in_host_memory() -> None:
    on_cpu = ended(ALLOCATOR, on_host=True)
    assert isinstance(on_cpu, OutOfMemory)
    assert on_cpu.tried_gib == 3.0
    assert isinstance(ended(ALLOCATOR, on_host=False), Crashed)
    assert isinstance(ended("exited on signal 9 (Killed)", on_host=True), Crashed), "a kill may have other reasons"


def test_a_taken_port_is_the_machines_fault_and_a_wrong_setting_the_configurations() -> None:
    taken = ended("OSError: [Errno 98] Address already in use", on_host=True)
    assert isinstance(taken, Infrastructure)
    assert taken.transient
    wrong = "ValueError: max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (128)."
    assert isinstance(ended(wrong, on_host=True), BadConfig)


GIVEN = (
    "(APIServer pid=5470) INFO 11-28 17:06:27 [api_utils.py:273] non-default args: {'max_model_len': 4352, "
    "'gpu_memory_utilization': 0.9, 'kv_cache_memory_bytes': 75161927680, 'max_num_seqs': 256}"
)
RECORDED = (  # on one H100
    GIVEN,
    "(EngineCore pid=7) INFO 11-28 17:06:32 [model_runner.py:302] Model loading took 15.0 GiB and 2.042584 seconds",
    "(EngineCore pid=7) INFO 11-28 17:06:57 [gpu_worker.py:429] Initial free memory 78.66 GiB, reserved 70.0 GiB "
    "memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling.",
    "(EngineCore pid=7) INFO 11-28 17:06:57 [kv_cache_utils.py:2146] GPU KV cache size: 573,440 tokens",
    f"{CORE}EngineCore failed to start.",
    f"{CORE}Traceback (most recent call last):",
    f'{CORE}  File "/site/vllm/v1/worker/gpu/attn_utils.py", line 180, in _allocate_kv_cache',
    f"{CORE}    tensor = torch.zeros(kv_cache_tensor.size, dtype=torch.int8, device=device)",
    f"{CORE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.19 GiB. GPU 0 has a total capacity of "
    "79.18 GiB of which 1.94 GiB is free. Including non-PyTorch memory, this process has 77.23 GiB memory in use. Of "
    "the allocated memory 76.42 GiB is allocated by PyTorch, and 76.52 MiB is reserved by PyTorch but unallocated.",
    LAST,
)


def test_a_pool_given_in_bytes_is_made_smaller_by_all_that_it_lacks_and_not_by_the_fraction() -> None:
    """Of 32 layers of 2.19 GiB 28 were there: the pool lacks 6.6 GiB, though the allocation that failed lacks 0.25."""
    case = Case()
    for event in RULES.events(enumerate(RECORDED, start=1)):
        case.take(event)
    found = diagnose(case)
    first = found.remedies[0]
    assert "gpu_memory_utilization" not in {remedy.setting for remedy in found.remedies}
    assert (first.setting, first.from_, first.covers) == ("kv_cache_memory_bytes", 75161927680, True)
    room_gib = 76.42 - 15.0 + 1.94
    assert isinstance(first.to, int)
    assert 0.85 * room_gib < gib(first.to) < room_gib
    assert found.yaml_patch == f"kv-cache-memory-bytes: {first.to}\n"
