"""What a control group allows: memory, CPUs, processes. Version 2 and version 1, below any root of a file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advisor.domain.strict import StrictModel
from advisor.domain.units import gib

UNLIMITED_BYTES = 1 << 60  # version 1 writes the largest number of whole pages for no limit


class CgroupLimits(StrictModel):
    """The tightest limits of this process's groups and of those around them; None where there is none."""

    memory_gib: float | None = None
    cpus: float | None = None
    processes: int | None = None


def cgroup_limits(root: Path = Path("/")) -> CgroupLimits:
    """Read them; what cannot be read limits nothing."""
    memory = [
        n_bytes
        for n_bytes in _numbers(root, "memory", "memory.max", "memory.limit_in_bytes")
        if n_bytes < UNLIMITED_BYTES
    ]
    processes = list(_numbers(root, "pids", "pids.max", "pids.max"))
    cpus = list(_cpus(root))
    return CgroupLimits(
        memory_gib=gib(min(memory)) if memory else None,
        cpus=min(cpus) if cpus else None,
        processes=min(processes) if processes else None,
    )


def _numbers(root: Path, controller: str, name_v2: str, name_v1: str) -> Iterator[int]:
    for folder, is_v2 in _folders(root, controller):
        word = text_of(folder / (name_v2 if is_v2 else name_v1)).strip()
        if word.isdecimal():
            yield int(word)


def _cpus(root: Path) -> Iterator[float]:
    for folder, is_v2 in _folders(root, "cpu"):
        if is_v2:
            quota, _, period = text_of(folder / "cpu.max").partition(" ")
        else:
            quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
        if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
            yield int(quota) / int(period)


def _folders(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's group and of every group around it, and whether they are of version 2.

    The path may be that of another namespace and lead nowhere here; the top of the mount is then the group itself.
    """
    mount = root / "sys/fs/cgroup"
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        is_v2 = not controllers
        if not is_v2 and controller not in controllers.split(","):
            continue
        top = mount if is_v2 else mount / controllers if (mount / controllers).is_dir() else mount / controller
        if is_v2 and (mount / "unified").is_dir():
            top = mount / "unified"
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth]), is_v2


def text_of(path: Path) -> str:
    """Text of a file of the system; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
