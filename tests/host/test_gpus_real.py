"""The same questions to a real driver: `pytest -m gpu tests/host`. It needs a GPU with 2 GiB free, and no engine."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from advisor.host.gpus import GpuWatch, energy_j, find_gpus, holders, used_gib, visible, wait_until_free
from tests.host.waiting import until

pytestmark = pytest.mark.gpu
HOLD_2_GIB = """
import ctypes, sys
cuda, context, memory = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_uint64()
for code in (
    cuda.cuInit(0),
    cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
    cuda.cuCtxSetCurrent(context),
    cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(2 << 30)),
):
    assert code == 0, code
print("held", flush=True)
sys.stdin.read()
"""


def test_a_real_driver_tells_who_holds_what_and_when_it_is_free_again() -> None:
    reading = find_gpus()
    assert reading.missing is None
    gpu = reading.gpus[0]
    assert gpu.name.startswith("NVIDIA ")
    assert 0 < gpu.free_gib <= gpu.total_gib
    assert visible(reading.gpus, {"CUDA_VISIBLE_DEVICES": gpu.uuid}) == (gpu,)
    before = used_gib([0])
    process = subprocess.Popen([sys.executable, "-c", HOLD_2_GIB], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with GpuWatch([0], lambda: frozenset({process.pid})) as watch, GpuWatch([0], frozenset) as stranger:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            until(lambda: watch.peak_gib[0] > before[0] + 2)
            until(lambda: watch.own_peak_gib.get(0, 0.0) > 2)
            until(lambda: process.pid in {each.pid for each in stranger.foreign})
        assert watch.trouble is None
        assert process.pid not in {each.pid for each in watch.foreign}
        assert process.pid in {each.pid for each in holders([0])}
        assert process.pid not in {each.pid for each in holders([0], frozenset({process.pid}))}
        (left,) = wait_until_free([0], before, timeout_s=0.0)
        assert left.gib > 2
    finally:
        process.kill()
        process.communicate()
    assert wait_until_free([0], before, timeout_s=30.0) == ()


def test_a_real_gpu_counts_its_energy() -> None:
    """An H100 or H200 draws between 40 W, idle, and its 700 W."""
    before_j, began_s = energy_j([0]), time.monotonic()
    time.sleep(5)
    after_j, spent_s = energy_j([0]), time.monotonic() - began_s
    assert before_j is not None and after_j is not None
    assert 20 < (after_j - before_j) / spent_s < 1500
