"""What engines share that are a command and serve the OpenAI routes: from a specification to a server that answers.

An engine of that kind adds its dialect, its probe (what its log tells) and its poller (what its `/metrics` tell).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput, EngineFailed
from advisor.domain.measurement import EffectiveSettings, MemoryReport, ProfiledMemory, RefereeReport
from advisor.domain.ports import (
    EngineIdentity,
    EvidenceStore,
    LaunchSpec,
    Measurer,
    MemoryInUse,
    OnEvent,
    RunningServer,
    TrialEvent,
)
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import PhaseTiming
from advisor.domain.workload import Workload
from advisor.engines.checkpoint import fetch, fetch_command
from advisor.engines.dialect import EngineDialect
from advisor.engines.installed import Installation, Program, installation
from advisor.engines.launched import LaunchedServer, Start
from advisor.engines.placement import Placement
from advisor.engines.surprises import surprises
from advisor.engines.words import as_mapping
from advisor.host.gpus import Gpu, energy_j, find_gpus, holders, used_gib, visible
from advisor.host.holding import Holder
from advisor.host.http_threads import HttpThreads
from advisor.host.output import BoundedLog
from advisor.host.ports import free_port
from advisor.host.process import Launch
from advisor.host.secrets import Redactor
from advisor.load.measurer import HttpMeasurer
from advisor.load.pulse import ClientLimits
from advisor.load.referee import RefereeCall, run_referee
from advisor.load.target import Target
from advisor.memory.events import LogEvent
from advisor.memory.profiled import memory_report
from advisor.store import catalog
from advisor.store.catalog import CPU
from advisor.store.yaml_files import dump_yaml, write_atomic
from advisor.twin.graphs import captured_sizes

REFEREE_TIMEOUT_S = 3600.0
CLEAN_GIB = 1.0  # what others may hold of a GPU before a launch: a display, a monitor, no server
UNLIMITED = ClientLimits(cpu_share=1e9, lag_ms=1e9, open_share=0)


class Probe(Protocol):
    """What a server's log tells: feed it every event, ask it at any time."""

    def take(self, event: LogEvent) -> None: ...
    def profiled(self) -> ProfiledMemory: ...
    def effective(self) -> EffectiveSettings | None: ...


class Poller(Protocol):
    """What a server's `/metrics` tell, asked in a thread of its own."""

    def since_last(self) -> dict[str, Any]:
        """What was counted since the last call."""
        ...

    def stop(self) -> None:
        """Ask no further."""
        ...

    def join(self) -> None:
        """Wait for the last answer."""
        ...


class ServedEngine(ABC):
    """An engine that is a program on the PATH.

    Args:
        container_image: Run it in this image; none to run it here.
        launch_prefix: Words before the command, such as `srun -N2 --mpi=pmix trtllm-llmapi-launch`.
        client_check: Do not count what was measured while the load client was itself the limit.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    program: ClassVar[Program]

    def __init__(self, container_image: str = "", launch_prefix: str = "", client_check: bool = True) -> None:
        self.placement = Placement(image=container_image, prefix=launch_prefix)
        self._limits = ClientLimits() if client_check else UNLIMITED
        self._fetched: set[str] = set()

    # -- what an engine adds ---------------------------------------------------------------------------------------

    @abstractmethod
    def spoken(self, deployment: Deployment) -> EngineDialect:
        """The dialect of a deployment.

        Raises:
            BadInput: a release that is not known.
        """

    @abstractmethod
    def probe(self, config: ServingConfig, gpus: Sequence[Gpu]) -> Probe:
        """A fresh reader of the log of a server with this configuration on these GPUs."""

    @abstractmethod
    def poller(self, base_url: str, config: ServingConfig) -> Poller:
        """Asks one server's `/metrics` from now on."""

    @abstractmethod
    def judge(self, argv: Sequence[str], document: Mapping[str, Any]) -> None:
        """Ask the installed release itself, where that is worth its time.

        Raises:
            BadInput: it refuses, with its reasons.
        """

    @property
    def holder(self) -> Holder | None:
        """What has a process ready for the next launch; None where each is started afresh."""
        return None

    # -- what they share -------------------------------------------------------------------------------------------

    def environment(self, spec: LaunchSpec) -> dict[str, str]:
        """Variables to set for a launch, beside the environment it inherits."""
        return self.spoken(spec.deployment).environment(spec.deployment, spec.config)

    def identity(self) -> EngineIdentity:
        """What is here, and how its numbers are to be called."""
        installed = self.installed()
        version = (installed.version if installed else None) or ""
        place = self.placement.label
        said = f"measured on {self.hardware()} with {self.title} {version or 'of unknown version'}"
        return EngineIdentity(
            name=self.name, version=version, source="measured", label=f"{said}{place and f', {place}'}"
        )

    def hardware(self) -> str:
        """On what it runs here, in words."""
        gpus = visible(find_gpus().gpus, os.environ)
        names = sorted({gpu.name for gpu in gpus})
        return f"{len(gpus)} x {' and '.join(names)}" if gpus else "a machine without GPUs"

    def installed(self) -> Installation | None:
        """The engine of this machine; None where a container or a launcher brings its own."""
        return None if self.placement.image else installation(os.environ, self.program)

    def missing(self, deployment: Deployment | None) -> str | None:
        """What is not here to launch the deployment."""
        misplaced = self.placement.missing(os.environ)
        if misplaced is not None:
            return misplaced
        if not self.placement.image and self.installed() is None:
            return f"{self.program.command} is not installed here"
        if self.placement.prefix:
            return None  # the launcher's machines have the GPUs, not this one
        return self.missing_hardware(deployment)

    def missing_hardware(self, deployment: Deployment | None) -> str | None:
        """Why the GPUs of this machine are not those of the deployment, if so."""
        reading = find_gpus()
        if reading.missing is not None:
            return reading.missing
        gpus = visible(reading.gpus, os.environ)
        if deployment is None:
            return None if gpus else "CUDA_VISIBLE_DEVICES hides every GPU"
        if len(gpus) < deployment.gpus:
            seen = f"{len(gpus)} of {len(reading.gpus)} GPUs are visible" if reading.gpus else "there is no GPU"
            return f"{deployment.gpus} GPUs are needed and {seen}: use --tp, or CUDA_VISIBLE_DEVICES"
        others = sorted({gpu.name for gpu in gpus[: deployment.gpus] if gpu.system != deployment.gpu})
        if others:
            here = ", ".join(others)
            return f"the study is about {deployment.gpu}, and this machine has {here}: use --gpu {gpus[0].system}"
        return None

    def gpus(self, spec: LaunchSpec) -> tuple[Gpu, ...]:
        """The GPUs of this machine that a launch takes; none where a launcher decides."""
        if self.placement.prefix:
            return ()
        gpus = visible(find_gpus().gpus, os.environ)
        if spec.devices:
            gpus = tuple(gpu for gpu in gpus if gpu.index in spec.devices)
        return gpus[: spec.deployment.gpus]

    def prepare(self, spec: LaunchSpec) -> ServedLaunch:
        """Check the configuration as the release would, and spell its command line and YAML.

        Raises:
            BadInput: what the release would refuse at its start.
        """
        return ServedLaunch(self, spec)

    def measurer(self) -> Measurer:
        """advisor's own load client, with the engine's own benchmark as referee."""
        return HttpMeasurer(self._referee, self._limits)

    def referee_argv(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The engine's own benchmark as this machine starts it."""
        return argv

    def _referee(self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore) -> RefereeReport:
        """The engine's own benchmark, as its dialect spells it."""
        assert isinstance(server, ServedServer)
        with contextlib.ExitStack() as undo:
            folder = evidence.file("") or undo.enter_context(tempfile.TemporaryDirectory(prefix="advisor-"))
            name = f"referee-{workload.name}"
            argv = self.spoken(server.deployment).benchmark_argv(
                server.deployment,
                workload,
                host=server.target.host,
                port=server.target.port,
                seed=seed,
                result_dir=folder,
                result_filename=f"{name}.json",
            )
            call = RefereeCall(
                argv=self.referee_argv(argv),
                cwd=folder,
                env=dict(os.environ),
                result_path=str(Path(folder) / f"{name}.json"),
                output_path=str(Path(folder) / f"{name}.log"),
                timeout_s=REFEREE_TIMEOUT_S,
            )
            return run_referee(call, workload)

    def ensure_checkpoint(
        self, model: str, env: Mapping[str, str], run: str, log_path: Path, on_event: OnEvent
    ) -> tuple[PhaseTiming, ...]:
        """Make the checkpoint local, once; the time that it took, if it had to be asked for.

        Raises:
            BadInput: a folder that is no checkpoint.
            EngineFailed: it cannot be fetched.
        """
        argv = None if model in self._fetched else fetch_command(model, env)
        began_s = time.monotonic()
        if argv is not None:
            on_event(TrialEvent(kind="phase", phase="download", detail=model))
            log = BoundedLog(str(log_path), Redactor(env, argv).bytes)
            fetch(Launch(argv=argv, env=env, cwd=None, run=run), log)
        self._fetched.add(model)
        return () if argv is None else (PhaseTiming(name="download", duration_s=time.monotonic() - began_s),)


class ServedLaunch:
    """A launch made ready; nothing is started or written."""

    def __init__(self, engine: ServedEngine, spec: LaunchSpec) -> None:
        self.engine, self.spec = engine, spec
        self.spoken = engine.spoken(spec.deployment)
        self._max_seq_len = spec.deployment.seq_len(spec.workloads)
        deployment, config = spec.deployment, spec.config
        violations = self.spoken.violations(deployment, config, spec.workloads, self._max_seq_len)
        errors = [violation.message for violation in violations if violation.severity == "error"]
        if errors:
            raise BadInput(" ".join(errors))
        self.document = as_mapping(self.spoken.entries(deployment, config, self._max_seq_len))
        if spec.fidelity == "memory_only":
            self.document[self.spoken.load_format] = "dummy"
        self.config_text = dump_yaml(self.document)
        self.config_name = self.spoken.config_name
        self.port = free_port()
        engine.judge(self._command(self.config_name), self.document)
        self.argv = tuple(Redactor(os.environ).argv(self._command(self.config_name)))

    def _command(self, config_path: str) -> tuple[str, ...]:
        return self.spoken.argv(
            self.spec.deployment,
            self.spec.config,
            self._max_seq_len,
            host=self.engine.placement.bind_host(os.environ),
            port=self.port,
            config_path=config_path,
        )

    def start(self, on_event: OnEvent, evidence: EvidenceStore) -> RunningServer:
        """Fetch what is missing, check that the GPUs are free, start, and follow the start to its end."""
        with contextlib.ExitStack() as undo:
            folder = evidence.file("")
            if folder is None:
                folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="advisor-"))
            server = self._started(Path(folder), evidence.run_folder() or folder, on_event)
            server.after_close(undo.pop_all().close)
        server.come_up()
        return server

    def _started(self, folder: Path, run: str, on_event: OnEvent) -> ServedServer:
        spec, placement = self.spec, self.engine.placement
        deployed = spec.deployment.with_options(spec.config.options)
        env = {**os.environ, **self.engine.environment(spec)}
        gpus = self.engine.gpus(spec)
        if gpus:
            chosen = ",".join(str(gpu.index) for gpu in gpus)
            env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": chosen}
        passed = self.engine.ensure_checkpoint(deployed.model, env, run, folder / "download.log", on_event)
        write_atomic(folder / self.config_name, self.config_text)
        placed = placement.placed(
            self._command(str(folder / self.config_name)),
            folder=folder,
            run=run,
            model=deployed.model,
            port=self.port,
            gpus=gpus,
            env=env,
        )
        check_clean(gpus)
        start = Start(
            launch=Launch(argv=placed.argv, env={**env, **placed.env}, cwd=None, run=run, on_end=placed.on_end),
            base_url=f"http://{placement.reach_host(env)}:{self.port}",
            log=BoundedLog(str(_free_name(folder, "server", ".log")), Redactor(env, placed.argv).bytes),
            deadlines=spec.deadlines,
            used_before_gib=used_gib([gpu.index for gpu in gpus]) if gpus else {},
            passed=passed,
            on_host=deployed.gpu == CPU,
            other_pids=placed.pids,
            launcher_trouble=placed.trouble,
            holder=self.engine.holder,
        )
        return ServedServer(self, gpus, start, on_event)


class ServedServer(LaunchedServer):
    """One launch of one specification: what its log and its routes tell, in the words of the port."""

    def __init__(self, launch: ServedLaunch, gpus: Sequence[Gpu], start: Start, on_event: OnEvent) -> None:
        self._engine, self._spec, self._spoken = launch.engine, launch.spec, launch.spoken
        self._vocab_size = catalog.vocabulary(self.deployment.model)
        self._probe = launch.engine.probe(self._spec.config, gpus)
        self._total_gib = {gpu.index: gpu.total_gib for gpu in gpus}
        self._poller: Poller | None = None
        self._port = launch.port
        self._http: HttpThreads | None = None
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

    def memory_in_use(self) -> MemoryInUse | None:
        """By the driver; where that tells nothing, the sum of what the log has told so far."""
        if now_gib := dict(self.watch.now_gib):
            fullest = max(now_gib, key=lambda index: now_gib[index] / self._total_gib[index])
            return MemoryInUse(used_gib=now_gib[fullest], capacity_gib=self._total_gib[fullest])
        told = self.live.look(lambda _: self._probe.profiled())
        return None if told.total is None else MemoryInUse(used_gib=told.allocated, capacity_gib=told.total)

    def surprises(self) -> tuple[str, ...]:
        """What it really uses other than asked."""
        effective, spec = self.effective(), self._spec
        if effective is None:
            return ()
        sizes = captured_sizes(
            spec.config.cuda_graph_max_batch_size,
            padding=self.deployment.graph_padding,
            rule=self._spoken.graph_ladder,
            max_batch_size=spec.config.max_batch_size,
            max_num_tokens=spec.config.max_num_tokens,
        )
        return surprises(spec.config, spec.deployment.seq_len(spec.workloads), self.deployment, effective, sizes)

    def stats(self) -> dict[str, Any]:
        """What it counted since the last call, and how busy its HTTP was; both begin with the first."""
        if self._poller is None or self._http is None:
            self._poller = self._engine.poller(self.start.base_url, self._spec.config)
            self._http = HttpThreads(self._port, self._launch_pids)
            return {}
        share = self._http.busiest_share()
        told = self._poller.since_last()
        self._http.restart()
        return told if share is None else {**told, "http_cpu_share": share}

    def _launch_pids(self) -> frozenset[int]:
        """Processes of the launch on this machine, also those that a launcher's daemon started."""
        return frozenset() if self.dying else self._pids() | self.process.marked()

    def energy_j(self) -> float | None:
        """Of all its GPUs, by NVML's counters; None where one of them is not here or has no counter."""
        devices = tuple(self.start.used_before_gib)
        return energy_j(devices) if len(devices) == self.deployment.gpus else None

    def close(self) -> None:
        """Stop asking, end it, and wait for its memory."""
        if self._poller is not None:
            self._poller.stop()
        if self._http is not None:
            self._http.stop()
        super().close()
        if self._poller is not None:
            self._poller.join()


def check_clean(gpus: Sequence[Gpu]) -> None:
    """Refuse GPUs that somebody else uses: what they hold is missing, and what they do disturbs.

    Raises:
        EngineFailed: who holds how much.
    """
    taken = used_gib([gpu.index for gpu in gpus]) if gpus else {}
    crowded = {index: amount for index, amount in taken.items() if amount > CLEAN_GIB}
    if crowded:
        who = ", ".join(
            f"{each.name} (process {each.pid}" + (")" if each.used_gib is None else f", {each.used_gib:.1f} GiB)")
            for each in holders(tuple(crowded))
        )
        amounts = ", ".join(f"GPU {index}: {amount:.1f} GiB" for index, amount in crowded.items())
        raise EngineFailed(
            f"GPU memory is in use before the launch ({amounts}), held by {who or 'processes that the driver hides'}: "
            "end them, or choose other GPUs with CUDA_VISIBLE_DEVICES."
        )


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    """`server.log`, and `server-2.log` for the second start of a trial."""
    names = [f"{stem}{suffix}", *(f"{stem}-{number}{suffix}" for number in range(2, 100))]
    return next(folder / name for name in names if not (folder / name).exists())
