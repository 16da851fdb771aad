"""`vllm serve` behind the engine port: launched for real, on GPUs or, where its CPU build is installed, without."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from advisor.domain.deployment import Deployment
from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.engines.dialect import EngineDialect
from advisor.engines.installed import VLLM, Program
from advisor.engines.served import Poller, Probe, ServedEngine
from advisor.engines.vllm.probe import VllmProbe
from advisor.engines.vllm.spoken import vllm_dialect
from advisor.engines.vllm.stats import MetricsPoller
from advisor.host.gpus import Gpu
from advisor.store.catalog import CPU


class VllmEngine(ServedEngine):
    """Launches `vllm serve` with a configuration file."""

    name: ClassVar[str] = "vllm"
    title: ClassVar[str] = "vLLM"
    program: ClassVar[Program] = VLLM

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
