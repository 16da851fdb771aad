"""`vllm serve` behind the engine port: launched for real, on GPUs or, where its CPU build is installed, without."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.engines.dialect import EngineDialect
from advisor.engines.installed import VLLM, Program
from advisor.engines.served import Poller, Probe, ServedEngine
from advisor.engines.vllm.probe import VllmProbe
from advisor.engines.vllm.spoken import vllm_dialect
from advisor.engines.vllm.stats import MetricsPoller
from advisor.host.gpus import Gpu
from advisor.host.holding import Holder
from advisor.store.catalog import CPU

_CLI = "vllm.entrypoints.cli"
BEFOREHAND = (
    f"{_CLI}.main",
    *(f"{_CLI}.{name}" for name in ("benchmark.main", "collect_env", "openai", "run_batch", "serve", "launch")),
    *(f"{_CLI}.{name}" for name in ("download_kernels", "preload", "snapshot")),
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.openai.generate.api_router",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.openai.chat_completion.serving",
    "vllm.entrypoints.openai.completion.serving",
    "vllm.entrypoints.openai.responses.serving",
    "vllm.renderers.hf",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
)
"""What the process that serves HTTP imports, and the engine process, if forked, has from it. Workers and models are
left out: importing some of them makes a CUDA context in some releases."""


class VllmEngine(ServedEngine):
    """Launches `vllm serve` with a configuration file.

    Args:
        container_image: As for any served engine.
        launch_prefix: As for any served engine.
        client_check: As for any served engine.
        hold_next: Have the next launch's process import while the current server comes up.

    Raises:
        BadInput: `hold_next` where the process is not started by this machine's own `vllm`.
    """

    name: ClassVar[str] = "vllm"
    title: ClassVar[str] = "vLLM"
    program: ClassVar[Program] = VLLM

    def __init__(
        self,
        container_image: str = "",
        launch_prefix: str = "",
        client_check: bool = True,
        hold_next: bool = False,
    ) -> None:
        super().__init__(container_image, launch_prefix, client_check)
        if hold_next and (container_image or launch_prefix):
            raise BadInput(
                "--hold-next starts the vllm of this machine before its launch: leave it out with --container-image "
                "and --launch-prefix."
            )
        self._hold_next = hold_next

    @cached_property
    def holder(self) -> Holder | None:
        """Holds a process of the `vllm` on the PATH."""
        installed = self.installed() if self._hold_next else None
        return None if installed is None else Holder(installed.interpreter, installed.command, BEFOREHAND)

    def close(self) -> None:
        """End a process that was held and will not be launched."""
        if self.holder is not None:
            self.holder.close()

    @property
    def on_cpu(self) -> bool:
        """True where the installed build serves on the CPU, as its version tells (`0.32.0+cpu`)."""
        installed = self.installed()
        return installed is not None and CPU in (installed.version or "").partition("+")[2]

    def hardware(self) -> str:
        """The GPUs, or the CPU."""
        if self.on_cpu:
            return f"CPU ({len(os.sched_getaffinity(0))} cores, {platform.machine()})"
        return super().hardware()

    def missing_hardware(self, deployment: Deployment | None) -> str | None:
        """The CPU build serves studies about the CPU, and the other one those about GPUs."""
        if not self.on_cpu:
            if deployment is not None and deployment.gpu == CPU:
                return "the study is about the CPU, and the vLLM here is not its CPU build: use --gpu"
            return super().missing_hardware(deployment)
        if deployment is None or deployment.gpu == CPU:
            return None
        return f"the study is about {deployment.gpu}, and the vLLM here serves on the CPU: use --gpu {CPU}"

    def gpus(self, spec: LaunchSpec) -> tuple[Gpu, ...]:
        """None for the CPU build."""
        return () if self.on_cpu else super().gpus(spec)

    def spoken(self, deployment: Deployment) -> EngineDialect:
        """The row of its release."""
        return vllm_dialect(deployment.engine_version)

    def probe(self, config: ServingConfig, gpus: Sequence[Gpu]) -> Probe:
        """Told how much of the GPUs can be used: what the fraction is a fraction of."""
        usable_gib = min((gpu.used_gib + gpu.free_gib for gpu in gpus), default=None)
        return VllmProbe(usable_gib, config.kv_cache_free_gpu_memory_fraction)

    def poller(self, base_url: str, config: ServingConfig) -> Poller:
        """Samples gauges."""
        return MetricsPoller(base_url, config.max_batch_size)

    def judge(self, argv: Sequence[str], document: Mapping[str, Any]) -> None:
        """Nothing: vLLM takes as long to import as to say what it refuses at its start."""
