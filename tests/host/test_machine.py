"""The host as made-up roots of a file system describe it, and as this one does."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.units import gib
from advisor.host.cgroups import CgroupLimits, cgroup_limits
from advisor.host.machine import Host, Limit, container, cpus, limits, memory, nvidia_traces, read_host, space

GIB = 1 << 30
NO_LIMITS = CgroupLimits()


def write(root: Path, **files: str) -> Path:
    """Files of a made-up root, `/` in their names spelled `__`."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# -- control groups --------------------------------------------------------------------------------------------------

AMOUNTS = st.one_of(st.none(), st.integers(1, 1 << 40))


@settings(max_examples=30)
@given(amounts=st.lists(AMOUNTS, min_size=1, max_size=4), is_v2=st.booleans(), elsewhere=st.booleans())
def test_the_tightest_limit_of_all_groups_around_counts(
    amounts: list[int | None], is_v2: bool, elsewhere: bool
) -> None:
    """Groups from the top of the mount downwards; with `elsewhere` the path is that of another namespace."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        group = root / ("sys/fs/cgroup" if is_v2 else "sys/fs/cgroup/memory")
        path = ""
        for depth, amount in enumerate(amounts):
            group, path = (group, "") if depth == 0 else (group / f"g{depth}", f"{path}/g{depth}")
            group.mkdir(parents=True)
            unlimited = "max" if is_v2 else "9223372036854771712"
            name = "memory.max" if is_v2 else "memory.limit_in_bytes"
            (group / name).write_text(f"{unlimited if amount is None else amount}\n")
        shown = "/docker/0123abcd" if elsewhere else path or "/"
        write(root, proc__self__cgroup=f"0::{shown}\n" if is_v2 else f"7:cpu,cpuacct:/\n4:memory:{shown}\n0::/\n")
        seen = amounts[:1] if elsewhere else amounts
        expected = min((amount for amount in seen if amount is not None), default=None)
        assert cgroup_limits(root).memory_gib == (None if expected is None else gib(expected))


def test_quota_and_processes_of_version_2(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="0::/job\n")
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("150000 100000\n")
    (group / "pids.max").write_text("512\n")
    assert cgroup_limits(tmp_path) == CgroupLimits(cpus=1.5, processes=512)


def test_quota_of_version_1_under_a_joint_mount(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="3:cpu,cpuacct:/job\n")
    group = tmp_path / "sys/fs/cgroup/cpu,cpuacct/job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("400000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_limits(tmp_path).cpus == 4.0
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_limits(tmp_path).cpus is None


@pytest.mark.parametrize("text", ["", "nonsense", ":::", "0::/../../../etc\n", "4:memory\n"])
def test_odd_control_groups_limit_nothing(tmp_path: Path, text: str) -> None:
    assert cgroup_limits(write(tmp_path, proc__self__cgroup=text)) == NO_LIMITS


# -- memory, CPUs, limits --------------------------------------------------------------------------------------------

MEMINFO = f"MemTotal: {64 * 1024**2} kB\nMemFree: 1 kB\nMemAvailable: {48 * 1024**2} kB\nHugePages_Total: 0\n"


@pytest.mark.parametrize(("limit_gib", "available_gib"), [(None, 48.0), (16.0, 16.0), (60.0, 48.0)])
def test_available_memory_is_within_the_limit(tmp_path: Path, limit_gib: float | None, available_gib: float) -> None:
    found = memory(write(tmp_path, proc__meminfo=MEMINFO), CgroupLimits(memory_gib=limit_gib))
    assert found is not None
    assert (found.total_gib, found.available_gib, found.limit_gib) == (64.0, available_gib, limit_gib)


@pytest.mark.parametrize(
    ("listed", "quota", "expected"),
    [("0-7", None, 8.0), ("0,2-3,64-127", None, 67.0), ("0-7", 2.5, 2.5), ("0-1", 8.0, 2.0), (None, 3.0, 3.0)],
)
def test_cpus(tmp_path: Path, listed: str | None, quota: float | None, expected: float) -> None:
    status = "Name:\tx\n" + (f"Cpus_allowed_list:\t{listed}\n" if listed else "")
    assert cpus(write(tmp_path, proc__self__status=status), CgroupLimits(cpus=quota)) == expected


def test_limits_as_the_kernel_writes_them(tmp_path: Path) -> None:
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max stack size            8388608              unlimited            bytes     \n"
        "Max locked memory         unlimited            unlimited            bytes     \n"
        "Max open files            1024                 1048576              files     \n"
    )
    found = limits(write(tmp_path, proc__self__limits=text))
    assert found.stack_bytes == Limit(soft=8388608, hard=None)
    assert found.memlock_bytes == Limit(soft=None, hard=None)
    assert found.open_files == Limit(soft=1024, hard=1048576)
    assert found.processes is None


def test_space_is_that_of_the_folder_or_of_where_it_would_be(tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path)
    for folder in (tmp_path, tmp_path / "not" / "there" / "yet"):
        found = space(folder)
        assert found is not None
        assert found.total_gib == pytest.approx(gib(disk.total), rel=0.1)
        assert found.free_gib <= found.total_gib


# -- container and driver --------------------------------------------------------------------------------------------

MOUNTINFO = "36 35 8:1 {source} / rw - ext4 /dev/sda1 rw\n37 36 0:5 / /proc rw - proc proc rw\n"


@pytest.mark.parametrize(
    ("kind", "files", "env"),
    [
        (None, {"proc__self__mounts": "/dev/sda1 / ext4 rw 0 0\n"}, {}),
        ("docker", {".dockerenv": ""}, {}),
        ("docker", {"proc__1__cgroup": "1:name=systemd:/docker/0123\n"}, {}),
        ("podman", {"run__.containerenv": ""}, {}),
        ("kubernetes", {".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        ("kubernetes", {"proc__1__cgroup": "1:cpu:/kubepods/pod1\n"}, {}),
        ("apptainer", {}, {"SINGULARITY_CONTAINER": "x.sif"}),
        ("enroot", {"proc__self__mountinfo": MOUNTINFO.format(source="/enroot/pyxis_7_0")}, {"SLURM_JOB_ID": "7"}),
        ("container", {"proc__self__mounts": "overlay / overlay rw 0 0\n"}, {}),
    ],
)
def test_the_kind_of_container(tmp_path: Path, kind: str | None, files: dict[str, str], env: dict[str, str]) -> None:
    assert container(write(tmp_path, **files), env) == kind


def test_traces_of_hardware_and_driver(tmp_path: Path) -> None:
    pci = {"gpu": ("0x10de", "0x030200"), "switch": ("0x10de", "0x068000"), "other": ("0x8086", "0x030000")}
    for name, (vendor, class_) in pci.items():
        write(tmp_path / "sys/bus/pci/devices" / name, vendor=f"{vendor}\n", **{"class": f"{class_}\n"})
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\n"
    write(tmp_path, proc__driver__nvidia__version=version, dev__nvidia0="", dev__nvidiactl="", dev__null="")
    found = nvidia_traces(tmp_path)
    assert (found.pci_gpus, found.kernel_driver, found.devices, found.forbidden) == (
        1,
        "580.159.04",
        ("/dev/nvidia0",),
        (),
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_devices_that_may_not_be_opened(tmp_path: Path) -> None:
    write(tmp_path, dev__nvidia0="", dev__nvidiactl="")
    (tmp_path / "dev/nvidia0").chmod(0)
    assert nvidia_traces(tmp_path).forbidden == ("/dev/nvidia0",)


def test_an_empty_root_tells_nothing(tmp_path: Path) -> None:
    assert read_host(tmp_path, {}) == Host()


def test_this_machine_tells_the_usual() -> None:
    found = read_host(Path("/"), os.environ)
    assert found.memory is not None
    assert 0 < found.memory.available_gib <= found.memory.total_gib
    assert found.cpus is not None
    assert 0 < found.cpus <= len(os.sched_getaffinity(0))
    assert found.limits.open_files is not None
