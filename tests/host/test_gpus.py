"""GPUs through the real pynvml, over a library that reads a folder: what is there, who holds it, what came back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import EngineFailed
from advisor.host.gpus import Gpu, GpuWatch, energy_j, find_gpus, gpu_key, holders, used_gib, visible, wait_until_free
from advisor.store import catalog
from tests.end_to_end.command import environment
from tests.host.waiting import until
from tests.standin.fake_gpus import PRODUCTS, FakeGpus

GIB = 1 << 30
FIND = "from advisor.host.gpus import find_gpus; print(find_gpus().model_dump_json())"


def seen(watch: GpuWatch, n_gib: float) -> None:
    until(lambda: watch.own_peak_gib.get(0, 0.0) >= n_gib)


@contextmanager
def holder(gpus: FakeGpus, index: int, n_gib: float) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds memory for as long as it lives."""
    process = subprocess.Popen(["sleep", "60"])
    gpus.hold(index, int(n_gib * GIB), process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# -- finding ---------------------------------------------------------------------------------------------------------


def test_what_the_driver_tells(gpus: FakeGpus) -> None:
    gpus.hold(1, 5 * GIB)
    reading = find_gpus()
    assert (reading.missing, reading.driver_version, reading.cuda_version) == (None, "580.159.04", "12.8")
    idle, used = reading.gpus
    assert (idle.index, idle.key, idle.mig, idle.compute_capability, idle.nvlinks) == (0, "h100_sxm", False, (9, 0), 18)
    assert idle.uuid != used.uuid
    assert (idle.used_gib, idle.processes) == (0.0, ())
    assert used.used_gib == 5.0
    assert [(process.pid, process.used_gib) for process in used.processes] == [(os.getpid(), 5.0)]
    assert used.processes[0].name in ("python", Path("/proc/self/comm").read_text().strip())
    facts = PRODUCTS["h100_sxm"]
    assert used.total_gib - used.free_gib - used.used_gib == pytest.approx(facts.reserved_bytes / GIB)
    assert gpus.free_bytes(1) == pytest.approx(used.free_gib * GIB)


def test_a_gpu_without_mig_and_nvlink(gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_HOME", str(tmp_path / "l40s"))
    FakeGpus.build(tmp_path / "l40s", product="l40s")
    (gpu,) = find_gpus().gpus
    assert (gpu.key, gpu.mig, gpu.mig_uuids, gpu.nvlinks, gpu.compute_capability) == ("l40s", False, (), None, (8, 9))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "was updated"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidiactl"),
        (pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, "out of resources"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "fallen off"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not answer: Unknown Error"),
    ],
)
def test_no_driver_is_an_answer_with_a_way_out(gpus: FakeGpus, code: int, expected: str) -> None:
    gpus.fail(code)
    reading = find_gpus()
    assert reading.gpus == ()
    assert reading.missing is not None
    assert expected in reading.missing
    with pytest.raises(EngineFailed, match=expected):
        used_gib([0])
    gpus.fail(None)
    assert len(find_gpus().gpus) == 2


def test_a_machine_without_the_library_and_one_where_it_is_found_by_path(gpus: FakeGpus, nvml_library: Path) -> None:
    def found(**env: str) -> dict[str, object]:
        argv = [sys.executable, "-c", FIND]
        said = subprocess.run(argv, env=environment(**env), capture_output=True, text=True, check=True, timeout=60)
        parsed: dict[str, object] = json.loads(said.stdout)
        return parsed

    absent = str(found(LD_LIBRARY_PATH="")["missing"])
    assert "libnvidia-ml.so.1 is not found" in absent
    assert "--gpus all" in absent
    assert found(**gpus.env(nvml_library))["driver_version"] == "580.159.04"


def test_a_gpu_that_shares_memory_with_its_host_is_named(gpus: FakeGpus) -> None:
    gpus.set(1, "memory_error", pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert "GPU 1 (NVIDIA H100 80GB HBM3) does not tell its memory" in str(find_gpus().missing)


def test_an_index_too_high_is_named(gpus: FakeGpus) -> None:
    with pytest.raises(EngineFailed, match="no GPU 7: the driver numbers 2"):
        used_gib([7])


def test_a_forked_process_asks_for_itself(gpus: FakeGpus) -> None:
    with GpuWatch([0], frozenset, interval_s=0.01):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 advises against what is tested here
            child = os.fork()
        if child == 0:
            os._exit(0 if len(find_gpus().gpus) == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0


NAMED = {
    **{product.name: key for key, product in PRODUCTS.items()},
    "NVIDIA A100 80GB PCIe": "a100_pcie",
    "NVIDIA B300 SXM6 AC": "b300_sxm",
    "NVIDIA GB200": "gb200",
    "NVIDIA GB300": "gb300",
    "NVIDIA H100 PCIe": "h100_pcie",
    "NVIDIA L4": "l4",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx_pro_6000_server",
}


@pytest.mark.parametrize(("name", "key"), NAMED.items())
def test_products_by_the_key_of_their_step_tables(name: str, key: str) -> None:
    assert gpu_key(name) == key


def test_every_gpu_of_the_step_tables_is_recognised() -> None:
    assert set(NAMED.values()) == set(catalog.gpus()) - {catalog.CPU}


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100 NVL", "NVIDIA A100-SXM4-40GB", "NVIDIA H200 NVL", "NVIDIA L40", "Tesla T4", "GRID A100DX-80C", ""],
)
def test_other_products_are_taken_for_none_of_them(name: str) -> None:
    assert gpu_key(name) is None


# -- CUDA_VISIBLE_DEVICES --------------------------------------------------------------------------------------------


def a_gpu(index: int, **more: object) -> Gpu:
    facts: dict[str, object] = {
        "index": index,
        "uuid": f"GPU-{index}abc{index}",
        "name": "x",
        "key": None,
        "total_gib": 80.0,
        "used_gib": 0.0,
        "free_gib": 80.0,
        "processes": (),
        "mig": False,
        "compute_capability": (9, 0),
        "nvlinks": None,
    }
    return Gpu.model_validate({**facts, **more})


FOUR = (a_gpu(0), a_gpu(1), a_gpu(2), a_gpu(3, mig=True, mig_uuids=("MIG-77-a", "MIG-78-b")))


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-1abc1,GPU-0", [1, 0]),
        ("0,9,1", [0]),
        ("-1,0", []),
        ("0,,1", [0]),
        ("GPU-,0", []),
        ("GPU", []),
        ("none", []),
        ("MIG-77-a", [3]),
        ("MIG-GPU-2abc2/7/0", [2]),
        ("MIG-7", [3]),
        ("1,1", []),
        ("+2", [2]),
        ("0x", [0]),
        ("1 2", [1]),
        ("00", [0]),
        ("0,0,9", []),
    ],
)
def test_which_gpus_a_server_would_get(wanted: str, indices: list[int]) -> None:
    assert [gpu.index for gpu in visible(FOUR, {"CUDA_VISIBLE_DEVICES": wanted})] == indices


def test_without_the_variable_all_are_seen() -> None:
    assert visible(FOUR, {}) == FOUR


@given(st.permutations(range(4)), st.integers(0, 4))
def test_indices_and_uuids_mean_the_same(order: list[int], n: int) -> None:
    by_index = visible(FOUR, {"CUDA_VISIBLE_DEVICES": ",".join(map(str, order[:n]))})
    by_uuid = visible(FOUR, {"CUDA_VISIBLE_DEVICES": ",".join(FOUR[index].uuid for index in order[:n])})
    assert by_index == by_uuid == tuple(FOUR[index] for index in order[:n])


def test_mig_devices_are_listed(gpus: FakeGpus) -> None:
    gpus.set(1, "mig", 1)
    gpus.set(1, "mig_uuids", "MIG-aa\nMIG-bb")
    reading = find_gpus()
    assert [(gpu.mig, gpu.mig_uuids) for gpu in reading.gpus] == [(False, ()), (True, ("MIG-aa", "MIG-bb"))]
    assert visible(reading.gpus, {"CUDA_VISIBLE_DEVICES": "MIG-bb"}) == reading.gpus[1:]


# -- who holds memory ------------------------------------------------------------------------------------------------


def test_holders_of_several_gpus_come_once_and_own_ones_do_not(gpus: FakeGpus) -> None:
    with holder(gpus, 0, 3) as other:
        gpus.hold(1, 2 * GIB, other.pid)
        gpus.hold(0, GIB)
        everyone = holders([0, 1])
        assert {(each.pid, each.used_gib) for each in everyone} == {(other.pid, 5.0), (os.getpid(), 1.0)}
        assert [(each.pid, each.name) for each in holders([0, 1], frozenset({os.getpid()}))] == [(other.pid, "sleep")]
        assert used_gib([0, 1]) == {0: 4.0, 1: 2.0}
    assert holders([0, 1], frozenset({os.getpid()})) == ()


def test_memory_of_a_zombie_is_free(gpus: FakeGpus) -> None:
    process = subprocess.Popen(["sleep", "60"])
    gpus.hold(0, GIB, process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert used_gib([0]) == {0: 0.0}
    process.wait()


def test_the_watch_tells_the_peak_the_launchs_own_and_strangers(gpus: FakeGpus) -> None:
    own = os.getpid()
    with holder(gpus, 0, 3) as stranger, GpuWatch([0, 1], lambda: frozenset({own}), interval_s=0.01) as watch:
        for n_gib in (1, 7, 2):
            gpus.hold(0, n_gib * GIB)
            seen(watch, n_gib)
        until(lambda: bool(watch.foreign))
    assert watch.trouble is None
    assert watch.peak_gib == {0: 10.0, 1: 0.0}
    assert watch.own_peak_gib == {0: 7.0}
    assert [(each.pid, each.used_gib) for each in watch.foreign] == [(stranger.pid, 3.0)]
    assert "gpu-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_process_that_joins_the_launch_later_is_no_stranger(gpus: FakeGpus) -> None:
    launch: set[int] = set()
    with GpuWatch([0], lambda: frozenset(launch), interval_s=0.01) as watch:
        process = subprocess.Popen(["sleep", "60"])
        launch.add(process.pid)
        gpus.hold(0, GIB, process.pid)
        until(lambda: watch.own_peak_gib.get(0) == 1.0)
        launch.clear()
        process.kill()
        process.wait()
    assert watch.foreign == ()


def test_energy_is_counted_over_all_gpus_or_not_at_all(gpus: FakeGpus) -> None:
    gpus.set(0, "energy_mj", 1_500_250)
    assert energy_j([0]) == 1500.25
    assert energy_j([0, 1]) is None, "GPU 1 has no counter, and a part is not the whole"
    gpus.set(1, "power_w", 700)
    first, second = energy_j([1]), energy_j([1])
    assert first is not None and second is not None and first <= second
    assert energy_j([]) is None
    gpus.fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    assert energy_j([0]) is None


def test_a_watch_over_a_driver_that_fails_says_so(gpus: FakeGpus) -> None:
    with GpuWatch([0], frozenset, interval_s=0.01) as watch:
        until(lambda: watch.peak_gib == {0: 0.0})
        gpus.fail(pynvml.NVML_ERROR_GPU_IS_LOST)
        until(lambda: watch.trouble is not None)
    assert "fallen off" in str(watch.trouble)


def test_memory_that_comes_back_late_is_waited_for(gpus: FakeGpus) -> None:
    with holder(gpus, 0, 3) as process:
        before = used_gib([0, 1])
        gpus.hold(0, GIB)
        gpus.leak(1, GIB // 8)  # less than the tolerance
        release = threading.Timer(0.2, gpus.release, [0])
        release.start()
        assert wait_until_free([0, 1], before, timeout_s=30) == ()
        release.join()
        assert process.poll() is None, "it was there before"


def test_memory_that_does_not_come_back_is_told_with_who_holds_it(gpus: FakeGpus) -> None:
    before = used_gib([0, 1])
    gpus.leak(0, 2 * GIB)
    with holder(gpus, 1, 4) as process:
        leaked, held = wait_until_free([0, 1], before, timeout_s=0.0)
    assert (leaked.index, leaked.gib, leaked.holders) == (0, 2.0, ())
    assert (held.index, held.gib, [each.pid for each in held.holders]) == (1, 4.0, [process.pid])
