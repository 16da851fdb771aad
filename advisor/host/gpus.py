"""The GPUs as NVIDIA's driver tells of them (NVML): what they are, who holds memory, and what a launch held at most.

NVML is opened for each question and closed after it, so that a driver which comes, goes or is replaced meanwhile is
seen as it is, and a forked process asks for itself. NVML numbers GPUs in PCI order; CUDA does so only under
`CUDA_DEVICE_ORDER=PCI_BUS_ID`, which a launch that names devices should set.

`used` is what processes hold; what the driver keeps for itself is in neither `used` nor `free`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pynvml as nvml
from pydantic import Field

from advisor.domain.errors import EngineFailed
from advisor.domain.strict import StrictModel
from advisor.domain.units import gib

POLL_S = 0.1

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

_KEYS = (
    (r"A100[- ]SXM4[- ]80GB", "a100_sxm"),
    (r"A100 80GB PCIe|A100[- ]PCIE[- ]80GB", "a100_pcie"),
    (r"H100 80GB HBM3|H100 SXM5.*", "h100_sxm"),
    (r"H100 PCIe|H100 80GB HBM2e", "h100_pcie"),
    (r"H200|H200 SXM.*", "h200_sxm"),
    (r"B200|B200 SXM.*", "b200_sxm"),
    (r"B300|B300 SXM.*", "b300_sxm"),
    (r"GB200.*", "gb200"),
    (r"GB300.*", "gb300"),
    (r"L4", "l4"),
    (r"L40S", "l40s"),
    (r"RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000_server"),
)


class GpuProcess(StrictModel):
    """A process that holds memory of a GPU."""

    pid: int
    used_gib: float | None = Field(description="None where the driver does not tell")
    name: str


class Gpu(StrictModel):
    """One GPU, at the moment it was asked about."""

    index: int
    uuid: str
    name: str = Field(description="As the driver calls it: `NVIDIA H100 80GB HBM3`")
    key: str | None = Field(description="Its GPU system in the step tables, such as h100_sxm")
    total_gib: float
    used_gib: float
    free_gib: float
    processes: tuple[GpuProcess, ...]
    mig: bool
    mig_uuids: tuple[str, ...] = ()
    compute_capability: tuple[int, int]
    nvlinks: int | None = Field(description="Links that are up; None where the driver does not tell")


class GpuReading(StrictModel):
    """Every GPU of this machine, or why there is none to see and what to do."""

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = Field(default=None, description="The newest CUDA that the driver runs")
    missing: str | None = None


class Leftover(StrictModel):
    """Memory of a GPU that did not come back, and who holds memory there."""

    index: int
    gib: float
    holders: tuple[GpuProcess, ...]


def find_gpus() -> GpuReading:
    """Read all there is. That there is no GPU, driver or permission is an answer, not an error."""
    try:
        with _nvml():
            return GpuReading(
                gpus=tuple(_gpu(index) for index in range(nvml.nvmlDeviceGetCount())),
                driver_version=nvml.nvmlSystemGetDriverVersion(),
                cuda_version=_cuda(nvml.nvmlSystemGetCudaDriverVersion_v2()),
            )
    except EngineFailed as error:
        return GpuReading(missing=str(error))


def gpu_key(name: str) -> str | None:
    """The GPU system of the step tables that a driver's product name means, such as `h100_sxm`; None for others."""
    product = name.removeprefix("NVIDIA ").strip()
    return next((key for pattern, key in _KEYS if re.fullmatch(pattern, product)), None)


def visible(gpus: Sequence[Gpu], env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA programs see under an environment, in CUDA's order.

    `CUDA_VISIBLE_DEVICES` names them by index, by the beginning of a UUID or by MIG device (then its GPU is given). An
    entry that is none of them ends the list, and one that is named twice leaves nothing (as driver 580 does it).
    """
    wanted = env.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(gpus)
    entries = [entry.strip() for entry in wanted.split(",")]
    found: list[Gpu] = []
    for entry in entries:
        gpu = _named(gpus, entry)
        if gpu is None:
            break
        found.append(gpu)
    named = entries[: len(found)]
    return () if len(set(named)) < len(named) else tuple(found)


def _named(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    if number := re.match(r"\+?\d+", entry):  # as strtol reads it: what follows the digits does not count
        return next((gpu for gpu in gpus if gpu.index == int(number[0])), None)
    if entry.startswith("MIG-GPU-"):  # MIG-GPU-<uuid>/<GPU instance>/<compute instance>, of drivers before 470
        return _named(gpus, entry.removeprefix("MIG-").partition("/")[0])
    if entry.startswith("MIG-"):
        meant = [gpu for gpu in gpus if any(uuid.startswith(entry) for uuid in gpu.mig_uuids)]
    else:
        meant = [gpu for gpu in gpus if len(entry) > len("GPU-") and gpu.uuid.startswith(entry)]
    return meant[0] if len(meant) == 1 else None


def used_gib(devices: Sequence[int]) -> dict[int, float]:
    """GiB that processes hold, by GPU index.

    Raises:
        EngineFailed: the driver does not answer, or there is no such GPU.
    """
    with _nvml():
        return {index: gib(_memory(_handle(index)).used) for index in devices}


def holders(devices: Sequence[int], own: frozenset[int] = frozenset()) -> tuple[GpuProcess, ...]:
    """Who holds memory of these GPUs now, but for `own` processes; one that holds several of them comes once.

    Raises:
        EngineFailed: the driver does not answer, or there is no such GPU.
    """
    with _nvml():
        together = _together(_processes(_handle(index)) for index in devices)
    return tuple(process for pid, process in sorted(together.items()) if pid not in own)


def wait_until_free(
    devices: Sequence[int], before: Mapping[int, float], timeout_s: float, tolerance_gib: float = 0.25
) -> tuple[Leftover, ...]:
    """Wait after a stop until every GPU holds no more than it did `before` the start.

    Args:
        devices: GPU indices.
        before: GiB in use by index, as `used_gib` told before the start.
        timeout_s: How long to wait. A driver frees a killed process's memory while that ends: 2 GiB in 0.2 s.
        tolerance_gib: What may be more than before.

    Returns:
        What did not come back in time; nothing when all did.

    Raises:
        EngineFailed: the driver does not answer, or there is no such GPU.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        with _nvml():
            handles = {index: _handle(index) for index in devices}
            more = {index: gib(_memory(handle).used) - before[index] for index, handle in handles.items()}
            left = tuple(
                Leftover(index=index, gib=more[index], holders=_processes(handle))
                for index, handle in handles.items()
                if more[index] > tolerance_gib
            )
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(POLL_S)


class GpuWatch:
    """Samples GPUs while a launch runs, from entering the context to leaving it.

    A peak that is shorter than the interval can be missed. `trouble` says why sampling ended early, if it did.

    Args:
        devices: GPU indices.
        pids: The launch's own live processes, as `ServerProcess.pids` tells, and `container_pids` for a container.
        interval_s: Time between samples.
    """

    def __init__(self, devices: Sequence[int], pids: Callable[[], frozenset[int]], interval_s: float = 0.2) -> None:
        self.peak_gib: dict[int, float] = {}
        """GiB in use on each GPU at most, whoever used them."""
        self.own_peak_gib: dict[int, float] = {}
        """GiB that the launch's own processes held on each GPU at most; no entry where the driver does not tell."""
        self.trouble: str | None = None
        self._devices, self._pids, self._interval_s = tuple(devices), pids, interval_s
        self._own = frozenset[int]()
        self._unknown = frozenset[int]()
        self._foreign: dict[int, GpuProcess] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-watch", daemon=True)

    @property
    def foreign(self) -> tuple[GpuProcess, ...]:
        """Processes of others that held memory meanwhile, each with the most it held on these GPUs together."""
        return tuple(self._foreign[pid] for pid in sorted(self._foreign))

    def __enter__(self) -> GpuWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            with _nvml():
                handles = {index: _handle(index) for index in self._devices}
                self._sample(handles)
                while not self._done.wait(self._interval_s):
                    self._sample(handles)
        except EngineFailed as error:
            self.trouble = str(error)

    def _sample(self, handles: Mapping[int, Any]) -> None:
        held = {index: _processes(handle) for index, handle in handles.items()}
        together = _together(held.values())
        if not self._own.issuperset(together):
            self._own |= self._pids()
        # One that has just ended is in nobody's list: only who is unknown twice, and lives, is somebody else's.
        unknown = frozenset(pid for pid in together.keys() - self._own if _exists(pid))
        for pid in unknown & (self._unknown | self._foreign.keys()):
            self._foreign[pid] = _greater(self._foreign.get(pid), together[pid])
        self._unknown = unknown
        for index, handle in handles.items():
            self.peak_gib[index] = max(self.peak_gib.get(index, 0.0), gib(_memory(handle).used))
            own = [each.used_gib for each in held[index] if each.pid in self._own and each.used_gib is not None]
            if own:
                self.own_peak_gib[index] = max(self.own_peak_gib.get(index, 0.0), sum(own))


def _together(lists: Iterable[tuple[GpuProcess, ...]]) -> dict[int, GpuProcess]:
    """Processes of several GPUs by pid, their memory added up."""
    found: dict[int, GpuProcess] = {}
    for process in (each for processes in lists for each in processes):
        known = found.get(process.pid)
        parts = [each.used_gib for each in (known, process) if each is not None and each.used_gib is not None]
        found[process.pid] = GpuProcess(pid=process.pid, name=process.name, used_gib=sum(parts) if parts else None)
    return found


def _greater(known: GpuProcess | None, now: GpuProcess) -> GpuProcess:
    return known if known is not None and (known.used_gib or 0.0) >= (now.used_gib or 0.0) else now


def _exists(pid: int) -> bool:
    """Whether a number means a process here; inside a container a driver may give those of its host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# -- NVML itself -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
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


def _told(question: Callable[..., Any], *about: Any) -> Any | None:
    """An answer, or None where this driver or GPU has none; trouble of the driver itself is raised."""
    try:
        return question(*about)
    except nvml.NVMLError as error:
        if error.value in _REASONS:
            raise
        return None


def _handle(index: int) -> Any:
    try:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError_InvalidArgument:
        n_gpus = nvml.nvmlDeviceGetCount()
        raise EngineFailed(f"There is no GPU {index}: the driver numbers {n_gpus} of them from 0.") from None


def _gpu(index: int) -> Gpu:
    handle = _handle(index)
    memory, name = _memory(handle), nvml.nvmlDeviceGetName(handle)
    mig = _told(nvml.nvmlDeviceGetMigMode, handle)
    is_mig = mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=name,
        key=gpu_key(name),
        total_gib=gib(memory.total),
        used_gib=gib(memory.used),
        free_gib=gib(memory.free),
        processes=_processes(handle),
        mig=is_mig,
        mig_uuids=_mig_uuids(handle) if is_mig else (),
        compute_capability=(major, minor),
        nvlinks=_nvlinks(handle),
    )


def _memory(handle: Any) -> Any:
    """An object with `total`, `used` and `free` bytes."""
    memory = _told(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    memory = memory or _told(nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None:
        index, name = nvml.nvmlDeviceGetIndex(handle), nvml.nvmlDeviceGetName(handle)
        raise EngineFailed(f"GPU {index} ({name}) does not tell its memory, so advisor cannot watch it: leave it out.")
    return memory


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Who holds memory, whether it computes or draws, by pid."""
    listed = [
        *(_told(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) or ()),
        *(_told(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or ()),
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
        path = str(_told(nvml.nvmlSystemGetProcessName, pid) or "").split(" ")[0]
        return Path(path).name or "unknown"


def _mig_uuids(handle: Any) -> tuple[str, ...]:
    count = _told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    devices = (_told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
    return tuple(nvml.nvmlDeviceGetUUID(device) for device in devices if device is not None)


def _nvlinks(handle: Any) -> int | None:
    states = [_told(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
    told = [state for state in states if state is not None]
    return sum(state == nvml.NVML_FEATURE_ENABLED for state in told) if told else None


def _cuda(version: int) -> str:
    """`12.8` of NVML's 12080."""
    return f"{version // 1000}.{version % 1000 // 10}"
