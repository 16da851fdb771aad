"""The host as Linux tells of it: memory, CPUs, limits, shared memory, disks, the container around this process.

Every finder takes the root of a file system or an environment, so that a made-up one can be read too. What cannot be
read is None, never an error.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.domain.units import gib
from advisor.host.cgroups import CgroupLimits, cgroup_limits, text_of

NVIDIA_PCI_VENDOR = "0x10de"
DISPLAY_PCI_CLASS = "0x03"
KIB_BYTES = 1024


class HostMemory(StrictModel):
    """Memory of the host; `limit_gib` is what the container or job may use of it."""

    total_gib: float
    available_gib: float = Field(description="For new programs, page cache counted as free; within the limit")
    limit_gib: float | None = None


class Space(StrictModel):
    """A file system: the folder that was asked about, and how much it holds."""

    folder: str
    total_gib: float
    free_gib: float = Field(description="For this user")


class Limit(StrictModel):
    """A limit of this process, which what it starts inherits; None = unlimited."""

    soft: int | None
    hard: int | None


class Limits(StrictModel):
    """What `ulimit` shows; None where it is not told."""

    memlock_bytes: Limit | None = None
    stack_bytes: Limit | None = None
    open_files: Limit | None = None
    processes: Limit | None = None


class NvidiaTraces(StrictModel):
    """What NVIDIA hardware and its driver leave behind, driver library or not."""

    pci_gpus: int | None = Field(default=None, description="GPUs on the PCI bus; None where the bus is not shown")
    kernel_driver: str | None = Field(default=None, description="Version of the loaded kernel module")
    devices: tuple[str, ...] = Field(default=(), description="/dev/nvidia* of GPUs")
    forbidden: tuple[str, ...] = Field(default=(), description="Those that this user may not open")


class Host(StrictModel):
    """Everything about the machine but its GPUs."""

    memory: HostMemory | None = None
    cpus: float | None = Field(default=None, description="That this process may use, a quota counted")
    max_processes: int | None = Field(default=None, description="Of the container or job (pids.max)")
    shared_memory: Space | None = Field(default=None, description="/dev/shm")
    limits: Limits = Limits()
    container: str | None = Field(default=None, description="docker, podman, kubernetes, apptainer, enroot, container")
    nvidia: NvidiaTraces = NvidiaTraces()


def read_host(root: Path, env: Mapping[str, str]) -> Host:
    """All of it."""
    allowed = cgroup_limits(root)
    return Host(
        memory=memory(root, allowed),
        cpus=cpus(root, allowed),
        max_processes=allowed.processes,
        shared_memory=shared_memory(root),
        limits=limits(root),
        container=container(root, env),
        nvidia=nvidia_traces(root),
    )


def memory(root: Path, allowed: CgroupLimits) -> HostMemory | None:
    """Memory as `/proc/meminfo` has it, within the control group's limit."""
    told = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text_of(root / "proc/meminfo"), re.M)}
    if "MemTotal" not in told:
        return None
    available = told.get("MemAvailable", told.get("MemFree", 0))
    ceiling = allowed.memory_gib
    available_gib = gib(available * KIB_BYTES)
    return HostMemory(
        total_gib=gib(told["MemTotal"] * KIB_BYTES),
        available_gib=available_gib if ceiling is None else min(available_gib, ceiling),
        limit_gib=ceiling,
    )


def cpus(root: Path, allowed: CgroupLimits) -> float | None:
    """CPUs that this process may run on, fewer where a quota grants less."""
    listed = re.search(r"^Cpus_allowed_list:\s*(\S+)", text_of(root / "proc/self/status"), re.M)
    if listed is None:
        return allowed.cpus
    spans = re.findall(r"(\d+)(?:-(\d+))?", listed[1])
    count = float(sum(int(last or first) - int(first) + 1 for first, last in spans))
    return count if allowed.cpus is None else min(count, allowed.cpus)


def shared_memory(root: Path) -> Space | None:
    """`/dev/shm`, where NCCL and the ranks of a server meet."""
    folder = root / "dev/shm"
    return space(folder) if folder.is_dir() else None


def space(folder: Path) -> Space | None:
    """The file system that a folder is on, or would be on once it is made."""
    for place in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError, ValueError):
            told = os.statvfs(place)
            size = told.f_frsize
            return Space(folder=str(folder), total_gib=gib(told.f_blocks * size), free_gib=gib(told.f_bavail * size))
    return None


def limits(root: Path) -> Limits:
    """The limits of this process."""
    text = text_of(root / "proc/self/limits")
    return Limits(
        memlock_bytes=_limit(text, "Max locked memory"),
        stack_bytes=_limit(text, "Max stack size"),
        open_files=_limit(text, "Max open files"),
        processes=_limit(text, "Max processes"),
    )


def _limit(text: str, name: str) -> Limit | None:
    told = re.search(rf"^{name}\s+(\d+|unlimited)\s+(\d+|unlimited)\b", text, re.M)
    if told is None:
        return None
    soft, hard = (None if word == "unlimited" else int(word) for word in told.groups())
    return Limit(soft=soft, hard=hard)


def container(root: Path, env: Mapping[str, str]) -> str | None:
    """The kind of container around this process; `container` where only its file system tells, None outside one."""
    groups = text_of(root / "proc/1/cgroup")
    mounted = next((line for line in text_of(root / "proc/self/mounts").splitlines() if line.split()[1:2] == ["/"]), "")
    mount_info = next(
        (line for line in text_of(root / "proc/self/mountinfo").splitlines() if line.split()[4:5] == ["/"]), ""
    )
    signs = {
        "kubernetes": "KUBERNETES_SERVICE_HOST" in env or "kubepods" in groups,
        "podman": (root / "run/.containerenv").exists() or env.get("container") == "podman",
        "apptainer": "APPTAINER_CONTAINER" in env or "SINGULARITY_CONTAINER" in env,
        "enroot": "enroot" in mount_info or "pyxis_" in mount_info,
        "docker": (root / ".dockerenv").exists() or "docker" in groups,
        "container": mounted.startswith("overlay "),
    }
    return next((kind for kind, seen in signs.items() if seen), None)


def nvidia_traces(root: Path) -> NvidiaTraces:
    """GPUs on the bus, the loaded kernel module, the device files and whether they may be opened."""
    module = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d[\d.]+)", text_of(root / "proc/driver/nvidia/version"))
    devices = [path for path in _listed(root / "dev") if re.fullmatch(r"nvidia(?:\d+|ctl)", path.name)]
    return NvidiaTraces(
        pci_gpus=_pci_gpus(root / "sys/bus/pci/devices"),
        kernel_driver=module[1] if module else None,
        devices=tuple(f"/dev/{path.name}" for path in devices if path.name != "nvidiactl"),
        forbidden=tuple(f"/dev/{path.name}" for path in devices if not os.access(path, os.R_OK | os.W_OK)),
    )


def _pci_gpus(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    return sum(
        text_of(device / "vendor").strip() == NVIDIA_PCI_VENDOR
        and text_of(device / "class").startswith(DISPLAY_PCI_CLASS)
        for device in _listed(folder)
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
