"""Where the command runs: on this machine, in a container, or through a launcher such as Slurm's."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from advisor.domain.errors import AdvisorError, EngineFailed
from advisor.host import cluster, containers
from advisor.host.gpus import Gpu
from advisor.host.ports import LOOPBACK

# Variables that a server in a container needs of the environment it is launched in.
_PASSED_ON = re.compile(r"(?:HF|HUGGING_?FACE|TLLM|TRTLLM|TRT_LLM|VLLM|NCCL|PYTORCH|TORCH|OMP|UCX|NIM|DISABLE)_\w+")
_HF_HOME = "HF_HOME"


@dataclass(frozen=True)
class Placed:
    """A command line that can be started here, the variables it needs besides, and what ends it elsewhere.

    `pids` tells its processes that are no children of this machine's launch; `trouble` says what the launcher's own
    words mean.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    on_end: tuple[tuple[str, ...], ...] = ()
    pids: Callable[[], frozenset[int]] = frozenset
    trouble: Callable[[str], str | None] = lambda text: None


@dataclass(frozen=True)
class Placement:
    """The image to run in, and the words before the command; both may be empty."""

    image: str = ""
    prefix: str = ""

    @property
    def label(self) -> str:
        """Where, in words; empty for this machine."""
        parts = [f"image {self.image}" if self.image else "", f"launched by {self.prefix!r}" if self.prefix else ""]
        return ", ".join(part for part in parts if part)

    def missing(self, env: Mapping[str, str]) -> str | None:
        """Why nothing can be started there, if so."""
        try:
            if self.image and not containers.has_image(containers.find_runtime(env), self.image):
                return f"the image {self.image} is not on this machine; pull it first, a download is no part of a trial"
            if self.prefix:
                cluster.address(self.prefix, env)
        except AdvisorError as error:
            return str(error).rstrip(".")
        return None

    def bind_host(self, env: Mapping[str, str]) -> str:
        """Where the server has to listen."""
        if self.image:
            return containers.INSIDE
        return cluster.address(self.prefix, env).bind if self.prefix else LOOPBACK

    def reach_host(self, env: Mapping[str, str]) -> str:
        """Where it can be reached."""
        return cluster.address(self.prefix, env).host if self.prefix else LOOPBACK

    def placed(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        run: str,
        model: str,
        port: int,
        gpus: Sequence[Gpu],
        env: Mapping[str, str],
    ) -> Placed:
        """The command line with what stands before it.

        Args:
            argv: Of the server.
            folder: Holds the configuration file; the server may write there.
            run: Folder of the run, which names the launches that belong together.
            model: Name or folder of the checkpoint.
            port: Of the server.
            gpus: Those it takes.
            env: Environment of the launch.

        Raises:
            BadInput: a prefix that cannot be meant.
            EngineMissing: there is nothing to start a container with.
        """
        name = f"advisor-{uuid.uuid4().hex[:12]}"
        placed = Placed(tuple(argv))
        if self.image:
            placed = self._contained(placed.argv, name, folder, run, model, port, gpus, env)
        if self.prefix:
            return Placed(
                argv=cluster.prefixed(self.prefix, placed.argv, name),
                env=placed.env,
                on_end=(*cluster.end_commands(self.prefix, name), *placed.on_end),
                pids=placed.pids,
                trouble=placed.trouble,
            )
        return placed

    def _contained(
        self,
        argv: Sequence[str],
        name: str,
        folder: Path,
        run: str,
        model: str,
        port: int,
        gpus: Sequence[Gpu],
        env: Mapping[str, str],
    ) -> Placed:
        runtime = containers.find_runtime(env)
        cache = env.get(_HF_HOME) or str(Path.home() / ".cache" / "huggingface")
        Path(cache).mkdir(parents=True, exist_ok=True)
        mounts = [containers.Mount(str(folder)), containers.Mount(cache)]
        if Path(model).is_dir():
            mounts.append(containers.Mount(str(Path(model).absolute()), read_only=True))

        def pids() -> frozenset[int]:
            with contextlib.suppress(EngineFailed):
                return containers.container_pids(runtime, name)
            return frozenset()

        return Placed(
            argv=containers.container_argv(
                runtime,
                self.image,
                argv,
                name=name,
                devices=[gpu.uuid for gpu in gpus],
                env_names=sorted({_HF_HOME, *filter(_PASSED_ON.fullmatch, env)}),
                mounts=mounts,
                port=port,
                workdir=str(folder),
                labels={containers.RUN_LABEL: run},
            ),
            env={_HF_HOME: cache},
            on_end=containers.end_commands(runtime, name),
            pids=pids,
            trouble=containers.container_trouble,
        )
