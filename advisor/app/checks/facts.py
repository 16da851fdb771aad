"""What `advisor check-env` was asked and what it found, as plain values."""

from __future__ import annotations

from pydantic import Field

from advisor.domain.deployment import Deployment, Quantization
from advisor.domain.strict import StrictModel
from advisor.engines.installed import PROGRAMS, Installation, Program
from advisor.engines.packages import Packages
from advisor.engines.spoken import NEWEST, spoken
from advisor.host.gpus import Gpu, GpuReading
from advisor.host.machine import Host, Space
from advisor.host.mpi import Mpi
from advisor.host.runtimes import ContainerRuntime
from advisor.store.catalog import CPU
from advisor.store.checkpoints import Checkpoint
from advisor.store.hub import HubAccess


class Wanted(StrictModel):
    """What is to be launched, as far as it was said."""

    engine: str = Field(default="trtllm", description="As said, else the study's")
    model: str | None = None
    quantization: Quantization | None = Field(default=None, description="As said, else the study's")
    gpu: str | None = Field(default=None, description="GPU system: as said, else the study's")
    gpus: int | None = Field(default=None, description="How many the layout takes; None: nothing was said")
    capability: tuple[int, int] | None = Field(default=None, description="Compute capability of `gpu`")
    deployment: Deployment | None = None
    unresolved: str | None = Field(default=None, description="Why what was said does not make a deployment")
    engine_version: str | None = Field(default=None, description="As said")
    release: str = Field(description="The one that commands are written for: said, installed, or the usual one")
    container_image: str | None = None

    @property
    def program(self) -> Program:
        """What it is started with."""
        return PROGRAMS[self.engine]

    @property
    def title(self) -> str:
        """The engine's name for people."""
        return spoken(self.engine, NEWEST[self.engine]).title


class Engine(StrictModel):
    """The engine and what it runs on."""

    installation: Installation | None = None
    beside_advisor: str | None = Field(default=None, description="Its command next to advisor's own interpreter")
    same_environment: bool = Field(default=False, description="It runs in the environment that advisor runs in")
    packages: Packages | None = None
    cuda_needed: str | None = Field(default=None, description="CUDA that its PyTorch was built for")
    cuda_home: str | None = Field(default=None, description="The CUDA toolkit, for kernels compiled on first use")
    mpi: Mpi = Mpi()
    runtimes: tuple[ContainerRuntime, ...] = ()
    has_srun: bool = False

    @property
    def version(self) -> str | None:
        """Of the installed engine; None where its metadata do not tell."""
        told = self.installation.version if self.installation else None
        by_name = self.packages.versions if self.packages else {}
        return told or next((by_name[each.package] for each in PROGRAMS.values() if each.package in by_name), None)


class Gpus(StrictModel):
    """The GPUs of the machine, and those that a server would see."""

    reading: GpuReading
    visible: tuple[Gpu, ...] = ()
    cuda_visible_devices: str | None = None


class Fit(StrictModel):
    """What the memory law says of the deployment, without a launch."""

    weights_gib: float = Field(description="Of one GPU")
    all_weights_gib: float = Field(description="About the size of the checkpoint")
    capacity_gib: float = Field(description="Of one GPU")
    n_configs: int
    n_serving: int = Field(description="Configurations of the search space that fit and can serve the workloads")
    why_not: str | None = None


class Weights(StrictModel):
    """The checkpoint and where it would come from."""

    checkpoint: Checkpoint | None = Field(default=None, description="The folder, or what the cache has of the model")
    is_folder: bool = Field(default=False, description="The model is named by its folder")
    is_hub_name: bool = False
    hub: HubAccess
    hub_client: str | None = Field(default=None, description="hf or huggingface-cli")
    cache_space: Space | None = None
    knows_architecture: bool = Field(default=False, description="advisor knows a model of this architecture")
    fit: Fit | None = None

    @property
    def size_gib(self) -> float | None:
        """Of all weights, GiB: as the index or the files say, else about as the memory law does; None: nobody knows."""
        found = self.checkpoint
        if found is not None and found.complete:
            return found.weights_gib
        if found is not None and found.total_gib is not None:
            return found.total_gib
        return self.fit.all_weights_gib if self.fit is not None else None

    @property
    def to_fetch_gib(self) -> float | None:
        """What is still to be downloaded, GiB; None where nobody knows."""
        there_gib = self.checkpoint.weights_gib if self.checkpoint is not None else 0.0
        return None if self.size_gib is None else max(0.0, self.size_gib - there_gib)


class Facts(StrictModel):
    """All of it. `unread` names what could not be found out, and why."""

    wanted: Wanted
    python: str = Field(description="advisor's own")
    engine: Engine
    gpus: Gpus
    host: Host
    weights: Weights
    unread: dict[str, str] = Field(default_factory=dict)

    @property
    def n_gpus(self) -> int:
        """GPUs that a launch would take: as said, else all that it would see."""
        return self.wanted.gpus or max(1, len(self.gpus.visible))

    @property
    def on_cpu(self) -> bool:
        """True where the server takes no GPU."""
        return self.wanted.gpu == CPU

    @property
    def capabilities(self) -> frozenset[tuple[int, int]]:
        """Compute capabilities of the GPUs that are here, else of the one that was named."""
        here = frozenset(gpu.compute_capability for gpu in self.gpus.visible)
        named = self.wanted.capability
        return here or (frozenset() if named is None else frozenset({named}))
