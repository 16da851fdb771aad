"""The stand-in as tests hold it: a folder with programs, dials, fake GPUs, and the record of what was launched."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from advisor.domain.units import gib
from tests.standin.dial import DOWNLOADS, HOME_VARIABLE, LAUNCHES, recorded
from tests.standin.fake_gpus import FakeGpus, build_nvml, start_ticks
from tests.standin.releases import RELEASES

ROOT = Path(__file__).parents[2]
VLLM_VERSION = "0.24.0+standin"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_SITE = Path(__file__).with_name("site")
_SCRIPT = """#!{python}
# TEST EQUIPMENT: a stand-in for {name}. It is no part of TensorRT-LLM or vLLM.
import sys
sys.path[:0] = [{root!r}]
from tests.standin.{module} import main
sys.exit(main(sys.argv[1:]))
"""


class StandIn:
    """A machine with fake GPUs, and a `trtllm-serve` and a `vllm` on its PATH.

    Args:
        folder: Where everything lives.
        release: Key of `RELEASES`.
        gpu: System key of the GPUs and of the twin's tables.
        n_gpus: Their number.
        world: The drawn world that memory and times follow; 0 = nominal.
        faults: As `dial.py` describes them.
        dials: Other fields of `Dial` (`speed`, `start_s` ...).
    """

    def __init__(
        self,
        folder: Path,
        release: str = "1.1.0",
        gpu: str = "h100_sxm",
        n_gpus: int = 1,
        world: int = 1,
        faults: Iterable[Mapping[str, Any]] = (),
        **dials: Any,
    ) -> None:
        self.folder, self.release, self.gpu, self.n_gpus = folder, release, gpu, n_gpus
        self.home, self.bin, self.site = folder / "standin", folder / "bin", folder / "site"
        for each in (self.home, self.bin, self.site):
            each.mkdir(parents=True, exist_ok=True)
        self.gpus = FakeGpus.build(folder / "nvml", n_gpus=n_gpus, product=gpu)
        self._library = build_nvml(folder / "lib")
        self.version = RELEASES[release].version
        self._programs()
        self.dials: dict[str, Any] = {"release": release, "gpu": gpu, "world": world, **dials}
        self.turn(faults=[*faults])

    def turn(self, **dials: Any) -> None:
        """Change dials for the launches to come."""
        self.dials.update(dials)
        aside = self.home / ".standin.json"
        aside.write_text(json.dumps(self.dials), encoding="utf-8")
        aside.replace(self.home / "standin.json")

    def env(self, **more: str) -> dict[str, str]:
        """The whole environment of a process on this machine."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")}
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join(map(str, (_SITE, self.site, ROOT))),
            HOME_VARIABLE: str(self.home),
            **self.gpus.env(self._library),
            **more,
        }

    def argv(self, *options: str, port: int, model: str = MODEL) -> list[str]:
        """A launch as it would be typed."""
        return [
            str(self.bin / "trtllm-serve"),
            model,
            "--backend",
            "pytorch",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *options,
        ]

    def launches(self) -> list[dict[str, Any]]:
        """Every launch so far: argv, settings as understood, pids, outcome, times."""
        return recorded(self.home / LAUNCHES)

    def downloads(self) -> list[dict[str, Any]]:
        """Every call of the download program so far."""
        return recorded(self.home / DOWNLOADS)

    def leftovers(self, patience_s: float = 0.0) -> list[int]:
        """Processes of this stand-in that are still alive; those that are just ending may have a moment."""
        deadline = time.monotonic() + patience_s
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _alive(self) -> list[int]:
        mark = f"{HOME_VARIABLE}={self.home}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    ours = mark in (folder / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if ours and start_ticks(int(folder.name)):
                    found.append(int(folder.name))
        return sorted(found)

    def held_gib(self) -> list[float]:
        """GiB in use on each GPU, by whomever."""
        return [gib(self.gpus.used_bytes(index)) for index in range(self.n_gpus)]

    def _programs(self) -> None:
        for name, module in (
            ("trtllm-serve", "program"),
            ("vllm", "vllm"),
            ("hf", "hf"),
            ("huggingface-cli", "hf"),
        ):
            self._script(name, _SCRIPT.format(python=sys.executable, name=name, root=str(ROOT), module=module))
        for name in ("python", "python3"):  # a symbolic link would lose the environment
            self._script(name, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        for package, version in (("tensorrt_llm", self.version), ("vllm", VLLM_VERSION)):
            metadata = self.site / f"{package}-{version}.dist-info"
            metadata.mkdir(exist_ok=True)
            (metadata / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nSummary: Test equipment of advisor\n",
                encoding="utf-8",
            )

    def _script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
