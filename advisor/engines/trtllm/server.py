"""A launched trtllm-serve: what its log and its routes tell, in the words of the port."""

from __future__ import annotations

from typing import Any

from advisor.domain.deployment import Deployment
from advisor.domain.measurement import EffectiveSettings, MemoryReport, ProfiledMemory
from advisor.domain.ports import LaunchSpec, OnEvent
from advisor.domain.strict import changed
from advisor.engines.launched import LaunchedServer, Start
from advisor.engines.trtllm.dialects import Dialect
from advisor.engines.trtllm.probe import Probe, surprises
from advisor.engines.trtllm.rules import graph_sizes
from advisor.engines.trtllm.stats import StatsPoller
from advisor.host.gpus import energy_j
from advisor.load.target import Target
from advisor.memory.profiled import memory_report


class TrtllmServer(LaunchedServer):
    """One launch of one specification."""

    def __init__(self, spec: LaunchSpec, spoken: Dialect, vocab_size: int, start: Start, on_event: OnEvent) -> None:
        self._spec, self._spoken, self._vocab_size = spec, spoken, vocab_size
        self._probe = Probe()
        self._poller: StatsPoller | None = None
        super().__init__(start, self._probe.take, on_event)

    @property
    def deployment(self) -> Deployment:
        """As this launch runs it."""
        return self._spec.deployment.with_options(self._spec.config.options)

    @property
    def target(self) -> Target:
        """What a load client must know."""
        return Target(
            base_url=self.start.base_url,
            model=self.model,
            vocab_size=self._vocab_size,
            n_gpus=self.deployment.gpus,
            block_reuse=self.deployment.block_reuse,
            slo=self._spec.slo,
            silence_timeout_s=self.start.deadlines.answer_s,
        )

    def effective(self) -> EffectiveSettings | None:
        """What it really uses once it is up; None where its log does not tell."""
        return self.live.look(lambda _: self._probe.effective()) if self.is_up else None

    def profiled(self) -> ProfiledMemory | None:
        """What its log says of memory, with the driver's peak beside it."""
        told = self.live.look(lambda _: self._probe.profiled())
        peak = max(self.watch.peak_gib.values(), default=None)
        own = {str(index): round(peak_gib, 3) for index, peak_gib in sorted(self.watch.own_peak_gib.items())}
        return None if told == ProfiledMemory() and peak is None else changed(told, driver_peak=peak, own_peaks=own)

    def memory(self) -> MemoryReport | None:
        """GiB of the fullest GPU by component; None where the log does not tell."""
        profiled = self.profiled()
        return None if profiled is None else memory_report(profiled)

    def surprises(self) -> tuple[str, ...]:
        """What it really uses other than asked."""
        effective, spec = self.effective(), self._spec
        if effective is None:
            return ()
        sizes = graph_sizes(self._spoken, self.deployment, spec.config)
        return surprises(spec.config, spec.deployment.seq_len(spec.workloads), self.deployment, effective, sizes)

    def stats(self) -> dict[str, Any]:
        """What its iterations tell since the last call; polling begins with the first."""
        if self._poller is None:
            self._poller = StatsPoller(self.start.base_url)
            return {}
        return self._poller.since_last()

    def energy_j(self) -> float | None:
        """Of all its GPUs, by NVML's counters; None where one of them is not here or has no counter."""
        devices = tuple(self.start.used_before_gib)
        return energy_j(devices) if len(devices) == self.deployment.gpus else None

    def close(self) -> None:
        """Stop asking, end it, and wait for its memory."""
        if self._poller is not None:
            self._poller.stop()
        super().close()
        if self._poller is not None:
            self._poller.join()
