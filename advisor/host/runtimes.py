"""Docker and podman: are they here, do they answer, do they hand GPUs to a container, do they have an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.host.bounded import Answer, answer_of
from advisor.host.containers import RUNTIMES

CDI_FOLDERS = ("etc/cdi", "var/run/cdi", "run/cdi")
TOOLKIT = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")  # what docker --gpus calls
_DENIED = ("permission denied", "connect: operation not permitted")
_AWAY = ("cannot connect to the docker daemon", "is the docker daemon running", "no such file or directory")

Trouble = Literal["silent", "denied", "away", "other"]


class ContainerRuntime(StrictModel):
    """One of them, as found on the PATH."""

    name: str
    command: str
    trouble: Trouble | None = Field(
        default=None,
        description="silent: no answer in time; denied: this user may not use it; away: its daemon does not run",
    )
    gpus: bool = Field(default=False, description="It can hand GPUs to a container")
    has_image: bool | None = Field(default=None, description="The image asked about is here; None: not asked")


def container_runtimes(
    root: Path, env: Mapping[str, str], timeout_s: float, image: str | None = None
) -> tuple[ContainerRuntime, ...]:
    """Those on the PATH of an environment, docker first."""
    found = ((name, shutil.which(name, path=env.get("PATH"))) for name in RUNTIMES)
    return tuple(_asked(root, env, timeout_s, name, command, image) for name, command in found if command)


def _asked(
    root: Path, env: Mapping[str, str], timeout_s: float, name: str, command: str, image: str | None
) -> ContainerRuntime:
    said = answer_of([command, "info", "--format", "{{json .}}"], env, timeout_s)
    info = _info(said.output)
    trouble = _trouble(said, info)
    has_image = None
    if image is not None and trouble is None:
        shown = answer_of([command, "image", "inspect", "--format", "{{.Id}}", "--", image], env, timeout_s)
        has_image = shown.exit_code == 0
    toolkit = name == "docker" and any(shutil.which(each, path=env.get("PATH")) for each in TOOLKIT)
    gpus = _has_cdi(root) or toolkit or "nvidia" in str(info.get("Runtimes"))
    return ContainerRuntime(name=name, command=command, trouble=trouble, gpus=gpus, has_image=has_image)


def _info(output: str) -> dict[str, Any]:
    """What it says of itself; nothing where that is no JSON object."""
    try:
        told = json.loads(output)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _trouble(said: Answer, info: dict[str, Any]) -> Trouble | None:
    if said.late:
        return "silent"
    # An old docker without its daemon prints what it knows of itself and ends with 0.
    text = f"{said.errors if said.exit_code != 0 else ''} {info.get('ServerErrors', '')}".lower()
    if any(words in text for words in _DENIED):
        return "denied"
    if any(words in text for words in _AWAY):
        return "away"
    return "other" if said.exit_code != 0 else None


def _has_cdi(root: Path) -> bool:
    """True where a CDI specification of NVIDIA's devices lies, as `nvidia-ctk cdi generate` writes it."""
    for name in CDI_FOLDERS:
        try:
            if any("nvidia" in path.name for path in (root / name).iterdir()):
                return True
        except OSError:
            continue
    return False
