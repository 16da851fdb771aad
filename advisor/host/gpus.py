"""The GPUs as NVIDIA's driver tells of them (NVML): what they are, who holds memory, and what a launch held at most.

NVML numbers GPUs in PCI order; CUDA does so only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`, which a launch that names
devices should set.

`used` is what processes hold; what the driver keeps for itself is in neither `used` nor `free`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import pynvml as nvml
from pydantic import Field

from advisor.domain.errors import EngineFailed
from advisor.domain.strict import StrictModel
from advisor.domain.units import gib
from advisor.host.nvml import GpuProcess as GpuProcess
from advisor.host.nvml import handle_of, memory_of, opened, processes_of, told

POLL_S = 0.1

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

    @property
    def system(self) -> str:
        """The word for it in a study: its key, or one made of the driver's name where no table knows it."""
        return self.key or re.sub(r"[^a-z0-9]+", "_", self.name.removeprefix("NVIDIA ").lower()).strip("_")


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
        with opened():
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
    with opened():
        return {index: gib(memory_of(handle_of(index)).used) for index in devices}


def energy_j(devices: Sequence[int]) -> float | None:
    """Joule that GPUs together have used since their driver was loaded; None where one does not count or answer.

    Volta and later have the counter. On an H100 it moves every 100 ms, which a benchmark of seconds does not notice.
    """
    try:
        with opened():
            counts_mj = [told(nvml.nvmlDeviceGetTotalEnergyConsumption, handle_of(index)) for index in devices]
    except EngineFailed:
        return None
    known_mj = [count_mj for count_mj in counts_mj if count_mj is not None]
    return sum(known_mj) / 1000 if known_mj and len(known_mj) == len(counts_mj) else None


def holders(devices: Sequence[int], own: frozenset[int] = frozenset()) -> tuple[GpuProcess, ...]:
    """Who holds memory of these GPUs now, but for `own` processes; one that holds several of them comes once.

    Raises:
        EngineFailed: the driver does not answer, or there is no such GPU.
    """
    with opened():
        together = _together(processes_of(handle_of(index)) for index in devices)
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
        with opened():
            handles = {index: handle_of(index) for index in devices}
            more = {index: gib(memory_of(handle).used) - before[index] for index, handle in handles.items()}
            left = tuple(
                Leftover(index=index, gib=more[index], holders=processes_of(handle))
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
        self.now_gib: dict[int, float] = {}
        """GiB in use on each GPU at the last sample."""
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
            with opened():
                handles = {index: handle_of(index) for index in self._devices}
                self._sample(handles)
                while not self._done.wait(self._interval_s):
                    self._sample(handles)
        except EngineFailed as error:
            self.trouble = str(error)

    def _sample(self, handles: Mapping[int, Any]) -> None:
        held = {index: processes_of(handle) for index, handle in handles.items()}
        together = _together(held.values())
        if not self._own.issuperset(together):
            self._own |= self._pids()
        # One that has just ended is in nobody's list: only who is unknown twice, and lives, is somebody else's.
        unknown = frozenset(pid for pid in together.keys() - self._own if _exists(pid))
        for pid in unknown & (self._unknown | self._foreign.keys()):
            self._foreign[pid] = _greater(self._foreign.get(pid), together[pid])
        self._unknown = unknown
        for index, handle in handles.items():
            self.now_gib[index] = gib(memory_of(handle).used)
            self.peak_gib[index] = max(self.peak_gib.get(index, 0.0), self.now_gib[index])
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


def _gpu(index: int) -> Gpu:
    handle = handle_of(index)
    memory, name = memory_of(handle), nvml.nvmlDeviceGetName(handle)
    mig = told(nvml.nvmlDeviceGetMigMode, handle)
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
        processes=processes_of(handle),
        mig=is_mig,
        mig_uuids=_mig_uuids(handle) if is_mig else (),
        compute_capability=(major, minor),
        nvlinks=_nvlinks(handle),
    )


def _mig_uuids(handle: Any) -> tuple[str, ...]:
    count = told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    devices = (told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
    return tuple(nvml.nvmlDeviceGetUUID(device) for device in devices if device is not None)


def _nvlinks(handle: Any) -> int | None:
    states = [told(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
    known = [state for state in states if state is not None]
    return sum(state == nvml.NVML_FEATURE_ENABLED for state in known) if known else None


def _cuda(version: int) -> str:
    """`12.8` of NVML's 12080."""
    return f"{version // 1000}.{version % 1000 // 10}"
