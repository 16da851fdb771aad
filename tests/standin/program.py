"""TEST EQUIPMENT: the program `trtllm-serve` as the tests have it. `main` is one launch, from argv to exit code."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.outcome import Phase
from advisor.memory.terms import MemoryTerms
from advisor.store import catalog
from advisor.twin.constants import STARTUP
from advisor.twin.predict import Twin
from advisor.twin.worlds import draw_world
from tests.standin import explain
from tests.standin.command_line import USAGE_EXIT, UsageError, help_text, parse
from tests.standin.context import Context
from tests.standin.dial import HOME_VARIABLE, LAUNCHES, Launch, begin, read_dial
from tests.standin.fake_gpus import FakeGpus
from tests.standin.log import Log
from tests.standin.memory import Law, RankMemory
from tests.standin.releases import RELEASES, Release
from tests.standin.serve import Serving
from tests.standin.settings import ConfigRefused, read_document, understand
from tests.standin.startup import StartFailed, Startup
from tests.standin.workers import Workers

BANNER = "advisor test equipment: this is a stand-in for trtllm-serve, not TensorRT-LLM; no number here is measured."
_FAILED = 1
_USUAL_CONTEXT_TOKENS = 8192


def main(argv: list[str]) -> int:
    """One launch. Returns the exit code."""
    home = Path(os.environ[HOME_VARIABLE])
    dial = read_dial(home)
    release = RELEASES[dial.release]
    if {"--help", "-h"} & set(argv):
        sys.stdout.write(help_text(release.key) + "\n")
        return 0
    try:
        line = parse(release.key, argv)
        document = read_document(line.options.get("--extra_llm_api_options") or line.options.get("--config"))
        settings = understand(release, line, document)
    except (UsageError, ConfigRefused) as error:
        launch, _ = begin(home / LAUNCHES, dial, argv, None)
        return _refused(error, release, launch)
    launch, faults = begin(home / LAUNCHES, dial, argv, settings.record())
    context = Context(settings, dial, faults, Log(settings.log_level, settings.n_ranks))
    return Run(context, launch, line.options.get("--backend")).run()


def _refused(error: Exception, release: Release, launch: Launch) -> int:
    log = Log()
    if isinstance(error, UsageError):
        log.raw(str(error))
        launch.note("end", outcome="usage error", exit_code=USAGE_EXIT)
        return USAGE_EXIT
    log.raw(BANNER)
    log.version(release.version)
    explain.refused(log, str(error))
    launch.note("end", outcome="refused", exit_code=_FAILED)
    return _FAILED


class Run:
    """A launch whose configuration was understood."""

    def __init__(self, context: Context, launch: Launch, backend: str | None) -> None:
        self.context, self.launch, self.backend = context, launch, backend
        self.settings, self.dial, self.faults, self.log = context.settings, context.dial, context.faults, context.log
        self.release = self.settings.release
        self.workers: Workers | None = None
        self.ranks: list[RankMemory] = []

    def run(self) -> int:
        """Start and serve; whatever happens is printed and recorded."""
        if self.faults.get("ignore_sigterm"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        outcome, code = "interrupted", _FAILED
        try:
            outcome, code = self._run()
        except StartFailed as failure:
            outcome = str(failure)
        except KeyboardInterrupt:
            self.log.raw("\nAborted!")
        finally:
            self._leave(outcome, code)
        return code

    def _run(self) -> tuple[str, int]:
        self._banner()
        if self.backend != "pytorch" and (self.release.needs_backend or self.backend is not None):
            self._engine_path()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.release.binds_first:
                self._bind(listener)
            serving = self._start(self._twin())
            for line in (f"Started server process [{os.getpid()}]", "Waiting for application startup."):
                self.log.raw(f"INFO:     {line}")
            self.log.raw("INFO:     Application startup complete.")
            if not self.release.binds_first:
                self._bind(listener)
            ended = asyncio.run(serving.run(listener, self._ready))
        return ended.outcome, ended.exit_code

    def _ready(self) -> None:
        s = self.settings
        self.log.raw(f"INFO:     Uvicorn running on http://{s.host}:{s.port} (Press CTRL+C to quit)")
        self.launch.note("ready")

    # -- before ------------------------------------------------------------------------------------------------------

    def _banner(self) -> None:
        self.log.raw(BANNER)
        self.log.version(self.release.version)
        if self.faults.get("echo_secrets"):
            self.log.raw(f"environment: HF_TOKEN={os.environ.get('HF_TOKEN', '')}")
        for letter, text in self.settings.notes:
            self.log.say(letter, text)

    def _engine_path(self) -> None:
        """The C++ path wants an engine directory, or builds one; neither is played."""
        model = self.settings.model
        self.log.info("Using LLM with TensorRT backend")
        explain.refused(self.log, f"ValueError: Failed to infer model format because no config.json exists in {model}")
        raise StartFailed("engine path")

    def _twin(self) -> Twin:
        """The twin that knows sizes and times; an unknown model fails as the hub answers."""
        s = self.settings
        self.log.info("Using LLM with PyTorch backend")
        try:
            deployment = s.deployment(self.dial.gpu, self.dial.plays)
            facts = catalog.model_facts(deployment.model)
            twin = Twin(
                facts, catalog.step_tables, constants=draw_world(self.dial.world), ladder_rule=self.release.ladder
            )
            twin.times(deployment)
        except ValidationError:
            explain.refused(self.log, "ValueError: moe_tp_size * moe_ep_size should equal to tp_size")
            raise StartFailed("layout impossible") from None
        except BadInput as error:
            explain.refused(
                self.log,
                f"OSError: {s.model} is not a local folder and is not a valid model identifier listed on "
                f"'https://huggingface.co/models'\n(stand-in: {error})",
            )
            raise StartFailed("model unknown") from None
        return twin

    def _visible(self, gpus: FakeGpus) -> list[int]:
        """Indices of the GPUs that `CUDA_VISIBLE_DEVICES` leaves."""
        folder = gpus.home / "gpus"
        present = sorted(int(each.name) for each in folder.iterdir()) if folder.is_dir() else []
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        if named is None:
            return present
        by_uuid = {(gpus.folder(index) / "uuid").read_text().strip(): index for index in present}
        wanted = [by_uuid.get(word, int(word) if word.isdigit() else -1) for word in named.split(",") if word]
        return [index for index in wanted if index in present]

    def _start(self, twin: Twin) -> Serving:
        s = self.settings
        gpus = FakeGpus(Path(os.environ.get("FAKE_NVML_HOME", "/nonexistent")))
        visible = self._visible(gpus)
        if len(visible) < s.n_ranks:
            message = (
                "ValueError: No GPU devices found on the node"
                if not visible
                else f"RuntimeError: Only {len(visible)} GPUs are available, but {s.n_ranks} are required."
            )
            explain.refused(self.log, message)
            raise StartFailed("GPUs missing")
        if s.n_ranks > 1:
            self.log.info(f"start MpiSession with {s.n_ranks} workers")
        self.log.raw("rank 0 using MpiPoolSession to spawn MPI processes")
        self.workers = Workers(s.n_ranks, orphaning=bool(self.faults.get("orphaning")))
        self.launch.note("workers", worker_pids=self.workers.pids)
        self.ranks = [
            RankMemory(gpus, rank, gpu, pid)
            for rank, (gpu, pid) in enumerate(zip(visible, self.workers.pids, strict=False))
        ]
        deployment = self.settings.deployment(self.dial.gpu, self.dial.plays)
        terms = twin.memory_terms(deployment)
        return self._started(twin, deployment, terms, self.workers, twin.facts.max_position or _USUAL_CONTEXT_TOKENS)

    def _started(
        self, twin: Twin, deployment: Deployment, terms: MemoryTerms, workers: Workers, window: int
    ) -> Serving:
        """Go through the start; the server that came up."""
        law = Law(terms, self.settings, twin.constants)
        started = Startup(self.context, law, self.ranks, self._pause, window).run()
        times = twin.times(deployment)
        return Serving(self.context, started, times, law, self.ranks, workers)

    # -- time and faults of a start ----------------------------------------------------------------------------------

    def _pause(self, phase: Phase, share: float) -> None:
        """Time of a phase passes; what is to go wrong in it does."""
        assert self.workers is not None
        for fault in self.faults.of_phase(phase):
            self._strike(fault, self.workers)
        weights, graphs = 15.0, len(self.settings.graph_sizes)
        whole = STARTUP.total_s(weights, graphs)
        time.sleep(self.dial.start_s * share * STARTUP.seconds(phase, weights, graphs) / whole)
        if self.workers.dead():
            explain.worker_died(self.log)
            raise StartFailed("worker died")

    def _strike(self, fault: Mapping[str, object], workers: Workers) -> None:
        kind = fault["kind"]
        if kind == "hang":
            while True:
                signal.pause()
        elif kind == "slow":
            time.sleep(float(str(fault["s"])))
        elif kind == "kill_worker":
            workers.kill(int(str(fault.get("rank", 0))))
        elif kind == "host_kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "flood":
            self._flood(int(str(fault.get("mib", 140))))

    def _flood(self, mib: int) -> None:
        """What a crash in a C++ loop prints: the same lines, over and over."""
        line = b"[TensorRT-LLM][ERROR] CUDA runtime error in cudaEventSynchronize(get()): unspecified launch failure\n"
        block = line * (2**20 // len(line))
        for _ in range(mib):
            self.log.bytes(block)

    # -- the port, and the end ---------------------------------------------------------------------------------------

    def _bind(self, listener: socket.socket) -> None:
        s = self.settings
        try:
            if self.faults.get("port_taken"):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            listener.bind((s.host, s.port))
        except OSError as error:
            if self.release.binds_first:
                explain.refused(self.log, f"RuntimeError: Failed to bind socket to {s.host}:{s.port}: {error}")
            else:
                self.log.raw(
                    f"ERROR:    [Errno {error.errno}] error while attempting to bind on address "
                    f"('{s.host}', {s.port}): {str(error.strerror).lower()}"
                )
                self.log.raw("INFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.")
            raise StartFailed("port taken") from None

    def _leave(self, outcome: str, code: int) -> None:
        leak = self.faults.get("leak")
        for rank in self.ranks if leak else ():
            rank.gpus.leak(rank.gpu, int(leak["gib"] * 2**30) if leak else 0, str(os.getpid()))
        self.launch.note("end", outcome=outcome, exit_code=code)
        if self.workers is not None:
            self.workers.end()
        if code < 0:  # the signal that was handled is raised again, and now nobody handles it
            signal.signal(-code, signal.SIG_DFL)
            signal.raise_signal(-code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
