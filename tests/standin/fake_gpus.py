"""TEST EQUIPMENT: GPUs that are a folder, seen through the real pynvml by a stand-in for NVIDIA's library (nvml.c).

Only the standard library, so that a stand-in server can load this file by its path. The protocol is in nvml.c.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True)
class Product:
    """A GPU as its driver describes it."""

    name: str
    total_bytes: int
    reserved_bytes: int
    compute_capability: str
    nvlinks: int | None = None
    has_mig: bool = True


PRODUCTS = {
    "a100_sxm": Product("NVIDIA A100-SXM4-80GB", 81_920 << 20, 569 << 20, "8.0", nvlinks=12),
    "b200_sxm": Product("NVIDIA B200", 183_359 << 20, 730 << 20, "10.0", nvlinks=18),
    "h100_sxm": Product("NVIDIA H100 80GB HBM3", 81_559 << 20, 480 << 20, "9.0", nvlinks=18),
    "h200_sxm": Product("NVIDIA H200", 143_771 << 20, 615 << 20, "9.0", nvlinks=18),
    "l40s": Product("NVIDIA L40S", 46_068 << 20, 590 << 20, "8.9", has_mig=False),
}


def build_nvml(folder: Path) -> Path:
    """Put the stand-in library into a folder for `LD_LIBRARY_PATH`; it is compiled once a machine and source."""
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"advisor-tests-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    built = cache / f"nvml-{key}.so"
    if not built.exists():
        aside = cache / f"nvml-{key}.{os.getpid()}.tmp"
        flags = ("-shared", "-fPIC", "-O1", f"-Wl,-soname,{LIBRARY}")
        subprocess.run(["cc", *flags, "-o", str(aside), str(SOURCE)], check=True)
        aside.replace(built)
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    shutil.copy2(built, library)
    return library


def load_nvml(library: Path) -> None:
    """Let this process's pynvml find the stand-in: the loader knows a library that is already here by its soname."""
    ctypes.CDLL(str(library))


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


class FakeGpus:
    """The GPUs below `home`, which `$FAKE_NVML_HOME` names for the library. Files are replaced, never half written."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @classmethod
    def build(cls, home: Path, n_gpus: int = 1, product: str = "h100_sxm", driver: str = "580.159.04") -> FakeGpus:
        """Install a driver and GPUs with nothing on them."""
        gpus = cls(home)
        facts = PRODUCTS[product]
        for index in range(n_gpus):
            (gpus.folder(index) / "held").mkdir(parents=True, exist_ok=True)
            gpus.set(index, "name", facts.name)
            gpus.set(index, "uuid", f"GPU-{index:08x}-0000-4000-8000-{hash_of(str(home)):012x}")
            gpus.set(index, "total_bytes", facts.total_bytes)
            gpus.set(index, "reserved_bytes", facts.reserved_bytes)
            gpus.set(index, "compute_capability", facts.compute_capability)
            if facts.has_mig:
                gpus.set(index, "mig", 0)
            if facts.nvlinks is not None:
                gpus.set(index, "nvlinks", facts.nvlinks)
        replace(home / "driver", driver)
        return gpus

    def folder(self, index: int) -> Path:
        return self.home / "gpus" / str(index)

    def env(self, library: Path) -> dict[str, str]:
        """What a process needs to see these GPUs."""
        return {"FAKE_NVML_HOME": str(self.home), "LD_LIBRARY_PATH": str(library.parent)}

    def set(self, index: int, name: str, value: object) -> None:
        """Change one fact of a GPU."""
        replace(self.folder(index) / name, str(value))

    def fail(self, code: int | None) -> None:
        """Every query fails with this NVML code from now on; None for none."""
        if code is None:
            (self.home / "error").unlink(missing_ok=True)
        else:
            replace(self.home / "error", str(code))

    def hold(self, index: int, n_bytes: int, pid: int | None = None) -> None:
        """A process, by default this one, holds so many bytes of a GPU for as long as it lives."""
        pid = os.getpid() if pid is None else pid
        replace(self.folder(index) / "held" / str(pid), f"{n_bytes} {start_ticks(pid)}")

    def release(self, index: int, pid: int | None = None) -> None:
        """That process holds nothing any more."""
        (self.folder(index) / "held" / str(os.getpid() if pid is None else pid)).unlink(missing_ok=True)

    def leak(self, index: int, n_bytes: int, name: str = "1") -> None:
        """Bytes that stay held by nobody; 0 to have them back."""
        leak = self.folder(index) / "held" / f"leak-{name}"
        if n_bytes:
            replace(leak, str(n_bytes))
        else:
            leak.unlink(missing_ok=True)

    def number(self, index: int, name: str) -> int:
        """A whole-number fact of a GPU."""
        return int((self.folder(index) / name).read_text())

    def used_bytes(self, index: int) -> int:
        """What processes and leaks hold, as the library counts."""
        return min(sum(self.holders(index).values()), self.number(index, "total_bytes") - self._reserved(index))

    def free_bytes(self, index: int) -> int:
        return self.number(index, "total_bytes") - self._reserved(index) - self.used_bytes(index)

    def holders(self, index: int) -> dict[str, int]:
        """Bytes by pid or leak of everything that counts now."""
        found = {}
        for held in (self.folder(index) / "held").iterdir():
            if held.name.startswith("."):
                continue
            try:
                n_bytes, *started = (int(word) for word in held.read_text().split())
            except FileNotFoundError:
                continue
            lives = held.name.startswith("leak-") or start_ticks(int(held.name))
            if lives and (not any(started) or started == [lives]):
                found[held.name] = n_bytes
        return found

    def _reserved(self, index: int) -> int:
        return self.number(index, "reserved_bytes")


def hash_of(text: str) -> int:
    """48 bits that tell one folder's GPUs from another's."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def replace(path: Path, text: str) -> None:
    """Write a file so that no reader sees half of it."""
    aside = path.with_name(f".{path.name}.{threading.get_native_id()}")
    aside.write_text(text + "\n")
    aside.replace(path)
