"""NVIDIA's management library, asked through pynvml, whose errors end here.

It is opened for each question and closed after it (11 ms for one H100), so that a driver which comes, goes or is
replaced meanwhile is seen as it is, and a forked process asks for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml as nvml
from pydantic import Field

from advisor.domain.errors import EngineFailed
from advisor.domain.strict import StrictModel
from advisor.domain.units import gib

_REASONS = {
    nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "there is no NVIDIA driver here (libnvidia-ml.so.1 is not found): install it, "
    "or start the container with its GPUs (docker run --gpus all)",
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded: load it (sudo modprobe nvidia), "
    "or start the container with its GPUs (docker run --gpus all)",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated while the old one is still loaded: restart "
    "the machine, or unload the nvidia kernel modules and load them again",
    nvml.NVML_ERROR_NO_PERMISSION: "this user may not open the GPUs: ask for access to /dev/nvidiactl and /dev/nvidia*",
    nvml.NVML_ERROR_INSUFFICIENT_RESOURCES: "the NVIDIA driver is out of resources: end what holds the GPUs, or "
    "restart the machine",
    nvml.NVML_ERROR_GPU_IS_LOST: "a GPU has fallen off its bus: see `dmesg | grep -i xid`, and restart the machine",
    nvml.NVML_ERROR_RESET_REQUIRED: "a GPU needs a reset: end what holds it, then nvidia-smi --gpu-reset",
}


class GpuProcess(StrictModel):
    """A process that holds memory of a GPU."""

    pid: int
    used_gib: float | None = Field(description="None where the driver does not tell")
    name: str


@contextlib.contextmanager
def opened() -> Iterator[None]:
    """NVML, open; its errors become EngineFailed with the way out."""
    try:
        nvml.nvmlInit()
        try:
            yield
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        reason = _REASONS.get(error.value) or f"the NVIDIA driver does not answer: {error}; see what nvidia-smi says"
        raise EngineFailed(f"{reason[0].upper()}{reason[1:]}.") from None


def told(question: Callable[..., Any], *about: Any) -> Any | None:
    """An answer, or None where this driver or GPU has none; trouble of the driver itself is raised."""
    try:
        return question(*about)
    except nvml.NVMLError as error:
        if error.value in _REASONS:
            raise
        return None


def handle_of(index: int) -> Any:
    """NVML's handle of a GPU, valid while NVML is open."""
    try:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError_InvalidArgument:
        n_gpus = nvml.nvmlDeviceGetCount()
        raise EngineFailed(f"There is no GPU {index}: the driver numbers {n_gpus} of them from 0.") from None


def memory_of(handle: Any) -> Any:
    """An object with `total`, `used` and `free` bytes."""
    memory = told(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    memory = memory or told(nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None:
        index, name = nvml.nvmlDeviceGetIndex(handle), nvml.nvmlDeviceGetName(handle)
        raise EngineFailed(f"GPU {index} ({name}) does not tell its memory, so advisor cannot watch it: leave it out.")
    return memory


def processes_of(handle: Any) -> tuple[GpuProcess, ...]:
    """Who holds memory, whether it computes or draws, by pid."""
    listed = [
        *(told(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) or ()),
        *(told(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or ()),
    ]
    # A program that does both is in both lists, with the same memory.
    used = {each.pid: each.usedGpuMemory for each in listed}
    return tuple(
        GpuProcess(pid=pid, used_gib=None if n_bytes is None else gib(n_bytes), name=_process_name(pid))
        for pid, n_bytes in sorted(used.items())
    )


def _process_name(pid: int) -> str:
    """Program of a process: never its arguments, which may hold secrets."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        path = str(told(nvml.nvmlSystemGetProcessName, pid) or "").split(" ")[0]
        return Path(path).name or "unknown"
