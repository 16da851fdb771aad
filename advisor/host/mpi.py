"""Open MPI as a server will find it: its library, its launcher, and a launcher that this process is already under."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from advisor.domain.strict import StrictModel

LIBRARY = "libmpi.so*"
LIBRARY_FOLDERS = ("lib", "lib64", "lib/*-linux-gnu", "lib/*-linux-gnu/openmpi/lib", "lib64/openmpi/lib")
PREFIXES = ("usr", "usr/local", "usr/local/mpi", "opt/hpcx/ompi", "opt/openmpi")

# Variables that make MPI take a process for a rank of a job that is already running. TensorRT-LLM's own
# trtllm-llmapi-launch takes all of these families out before it starts a server.
_STEP = ("SLURM_STEP_ID", "SLURM_STEPID")
_RANK = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK")
_NO_RANKS = ("batch", "extern", "4294967291", "4294967292")  # steps of a job that are no MPI program
FAMILIES = ("OMPI_", "PMIX_", "PMI_", "SLURM_")


class Mpi(StrictModel):
    """What was found."""

    library: str | None = Field(default=None, description="libmpi.so; None where no usual place has it")
    mpirun: str | None = None
    inside: str | None = Field(
        default=None, description="srun or mpirun, where this process is a rank of a job that they started"
    )
    variables: tuple[str, ...] = Field(default=(), description="Names of the variables that say so")


def read_mpi(root: Path, env: Mapping[str, str], prefix: str | None) -> Mpi:
    """Look for Open MPI.

    Args:
        root: Of the file system.
        env: The environment of a launch.
        prefix: Of the Python environment that the server runs in; None where there is none.
    """
    step = tuple(name for name in _STEP if env.get(name, "batch") not in _NO_RANKS)
    rank = tuple(name for name in _RANK if name in env)
    return Mpi(
        library=next((str(path) for path in _libraries(root, env, prefix)), None),
        mpirun=shutil.which("mpirun", path=env.get("PATH")),
        inside="srun" if step else "mpirun" if rank else None,
        variables=step + rank,
    )


def _libraries(root: Path, env: Mapping[str, str], prefix: str | None) -> Iterator[Path]:
    named = [Path(folder) for folder in re.split("[:;]", env.get("LD_LIBRARY_PATH", "")) if folder]
    own = [Path(prefix) / "lib"] if prefix else []
    for folder in (*named, *own):
        yield from _matching(folder, LIBRARY)
    for start in PREFIXES:
        for below in LIBRARY_FOLDERS:
            yield from _matching(root / start, f"{below}/{LIBRARY}")


def _matching(folder: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return
