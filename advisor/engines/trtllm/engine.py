"""`trtllm-serve` behind the engine port: launched for real, here, in a container or through a launcher."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput, EngineFailed
from advisor.domain.measurement import RefereeReport
from advisor.domain.ports import EngineIdentity, EvidenceStore, LaunchSpec, Measurer, OnEvent, RunningServer, TrialEvent
from advisor.domain.trial import PhaseTiming
from advisor.domain.workload import Workload
from advisor.engines.launched import Start
from advisor.engines.trtllm.benchmark import benchmark_argv
from advisor.engines.trtllm.checkpoint import fetch, fetch_command
from advisor.engines.trtllm.command import as_mapping, to_argv, to_yaml
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.environment import to_environment
from advisor.engines.trtllm.installed import COMMAND, Installation, installation
from advisor.engines.trtllm.placement import Placement
from advisor.engines.trtllm.rules import validate
from advisor.engines.trtllm.server import TrtllmServer
from advisor.engines.trtllm.upstream import UpstreamJudge
from advisor.host.gpus import Gpu, find_gpus, holders, used_gib, visible
from advisor.host.output import BoundedLog
from advisor.host.ports import free_port
from advisor.host.process import Launch
from advisor.host.secrets import Redactor
from advisor.load.measurer import HttpMeasurer
from advisor.load.pulse import ClientLimits
from advisor.load.referee import RefereeCall, run_referee
from advisor.store import catalog
from advisor.store.trial_folder import CONFIG
from advisor.store.yaml_files import dump_yaml, write_atomic

REFEREE_TIMEOUT_S = 3600.0
CLEAN_GIB = 1.0  # what others may hold of a GPU before a launch: a display, a monitor, no server


UNLIMITED = ClientLimits(cpu_share=1e9, lag_ms=1e9, open_share=0)


class TrtllmEngine:
    """Launches `trtllm-serve` as the guide does.

    Args:
        container_image: Run it in this image; none to run it here.
        launch_prefix: Words before the command, such as `srun -N2 --mpi=pmix trtllm-llmapi-launch`.
        client_check: Do not count what was measured while the load client was itself the limit.
    """

    def __init__(self, container_image: str = "", launch_prefix: str = "", client_check: bool = True) -> None:
        self.placement = Placement(image=container_image, prefix=launch_prefix)
        self._limits = ClientLimits() if client_check else UNLIMITED
        self._fetched: set[str] = set()
        self._accepted: set[frozenset[str]] = set()

    def identity(self) -> EngineIdentity:
        """What is here, and how its numbers are to be called."""
        installed, gpus = self.installed(), visible(find_gpus().gpus, os.environ)
        version = (installed.version if installed else None) or ""
        names = sorted({gpu.name for gpu in gpus})
        hardware = f"{len(gpus)} x {' and '.join(names)}" if gpus else "a machine without GPUs"
        place = self.placement.label
        return EngineIdentity(
            name="trtllm",
            version=version,
            source="measured",
            label=f"measured on {hardware} with TensorRT-LLM {version or 'of unknown version'}{place and f', {place}'}",
        )

    def installed(self) -> Installation | None:
        """The TensorRT-LLM of this machine; None where a container or a launcher brings its own."""
        return None if self.placement.image else installation(os.environ)

    def missing(self, deployment: Deployment | None) -> str | None:
        """What is not here to launch the deployment."""
        misplaced = self.placement.missing(os.environ)
        if misplaced is not None:
            return misplaced
        if not self.placement.image and self.installed() is None:
            return f"{COMMAND} is not installed here"
        if self.placement.prefix:
            return None  # the launcher's machines have the GPUs, not this one
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

    def prepare(self, spec: LaunchSpec) -> TrtllmLaunch:
        """Check the configuration as the release would, and spell its command line and YAML.

        Raises:
            BadInput: what the release would refuse at its start.
        """
        return TrtllmLaunch(self, spec)

    def judge(self, argv: Sequence[str], document: Mapping[str, Any]) -> None:
        """Ask the installed release itself, once for all launches that say the same words with other numbers.

        Importing it costs a quarter of a minute and host memory, so it is not kept beside a server.

        Raises:
            BadInput: it refuses, with its reasons.
        """
        words = frozenset([*(word for word in argv if word.startswith("--")), *flatten(document)])
        installed = self.installed()
        if installed is None or words in self._accepted:
            return
        with UpstreamJudge(installed.interpreter) as upstream:
            verdict = upstream.verdict(argv, document)
        if verdict.status == "refused":
            raise BadInput(f"tensorrt_llm {verdict.version} itself refuses this: {'; '.join(verdict.errors)}")
        self._accepted.add(words)

    def measurer(self) -> Measurer:
        """advisor's own load client, with the engine's own benchmark as referee."""
        return HttpMeasurer(self._referee, self._limits)

    def _referee(self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore) -> RefereeReport:
        """`benchmark_serving` of the release, with the flags of the guide."""
        assert isinstance(server, TrtllmServer)
        with contextlib.ExitStack() as undo:
            folder = evidence.file("") or undo.enter_context(tempfile.TemporaryDirectory(prefix="advisor-"))
            name = f"referee-{workload.name}"
            argv = benchmark_argv(
                server.deployment,
                workload,
                host=server.target.host,
                port=server.target.port,
                seed=seed,
                result_dir=folder,
                result_filename=f"{name}.json",
            )
            installed = self.installed()
            call = RefereeCall(
                argv=(installed.interpreter if installed else argv[0], *argv[1:]),
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


class TrtllmLaunch:
    """A launch made ready; nothing is started or written."""

    def __init__(self, engine: TrtllmEngine, spec: LaunchSpec) -> None:
        self.engine, self.spec = engine, spec
        self.spoken = dialect(spec.deployment.engine_version)
        self._max_seq_len = spec.deployment.seq_len(spec.workloads)
        deployment, config = spec.deployment, spec.config
        violations = validate(self.spoken, deployment, config, spec.workloads, self._max_seq_len)
        errors = [violation.message for violation in violations if violation.severity == "error"]
        if errors:
            raise BadInput(" ".join(errors))
        self.document = as_mapping(to_yaml(self.spoken, deployment, config, self._max_seq_len))
        if spec.fidelity == "memory_only":
            self.document["load_format"] = "dummy"
        self.config_text = dump_yaml(self.document)
        self.port = free_port()
        engine.judge(self._command(CONFIG), self.document)
        self.argv = tuple(Redactor(os.environ).argv(self._command(CONFIG)))

    def _command(self, config_path: str) -> tuple[str, ...]:
        return to_argv(
            self.spoken,
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

    def _started(self, folder: Path, run: str, on_event: OnEvent) -> TrtllmServer:
        spec, placement = self.spec, self.engine.placement
        deployed = spec.deployment.with_options(spec.config.options)
        env = {**os.environ, **to_environment(self.spoken, spec.deployment, spec.config)}
        gpus = self._gpus()
        if gpus:
            chosen = ",".join(str(gpu.index) for gpu in gpus)
            env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": chosen}
        passed = self.engine.ensure_checkpoint(deployed.model, env, run, folder / "download.log", on_event)
        write_atomic(folder / CONFIG, self.config_text)
        placed = placement.placed(
            self._command(str(folder / CONFIG)),
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
            other_pids=placed.pids,
            launcher_trouble=placed.trouble,
        )
        return TrtllmServer(spec, self.spoken, catalog.vocabulary(deployed.model), start, on_event)

    def _gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of this machine that the launch takes; none where a launcher decides."""
        if self.engine.placement.prefix:
            return ()
        gpus = visible(find_gpus().gpus, os.environ)
        if self.spec.devices:
            gpus = tuple(gpu for gpu in gpus if gpu.index in self.spec.devices)
        return gpus[: self.spec.deployment.gpus]


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
