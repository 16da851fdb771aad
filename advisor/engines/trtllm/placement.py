"""Where the command runs: on this machine, in a container, or through a launcher such as Slurm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.host.gpus import Gpu


@dataclass(frozen=True)
class Placed:
    """A command line that can be started here, and what ends it elsewhere."""

    argv: tuple[str, ...]
    on_end: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Placement:
    """The image to run in, and the words before the command; both may be empty."""

    image: str = ""
    prefix: str = ""

    @property
    def label(self) -> str:
        """Where, in words; empty for this machine."""
        return ""

    def missing(self) -> str | None:
        """Why nothing can be placed there."""
        return None

    def bind_host(self, env: Mapping[str, str]) -> str:
        return "127.0.0.1"

    def reach_host(self, env: Mapping[str, str]) -> str:
        return "127.0.0.1"

    def placed(
        self, argv: Sequence[str], *, folder: Path, model: str, port: int, gpus: Sequence[Gpu], env: Mapping[str, str]
    ) -> Placed:
        return Placed(tuple(argv))
