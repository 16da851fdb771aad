"""Servers in containers: the command line of docker or podman, what ends a container, and what their errors mean.

The client (`docker run`) is the process that advisor launches; the container is a child of the engine's daemon, so it
survives the client. SIGTERM to the client reaches the server (`--sig-proxy`, the default); `end_commands` reach what is
left. Published ports are bound on the loopback address alone, so the server inside has to bind 0.0.0.0.

Options as NVIDIA's guide to the TensorRT-LLM container has them (`--ipc host`, memlock and stack unlimited or large).
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.domain.errors import EngineFailed, EngineMissing
from advisor.host.ports import LOOPBACK

RUNTIMES = ("docker", "podman")
INSIDE = "0.0.0.0"  # where a server inside a container has to listen
RUN_LABEL = "advisor.run"
STACK_BYTES = 67_108_864
ASK_S = 20.0


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, at the same path inside."""

    path: str
    read_only: bool = False


def find_runtime(env: Mapping[str, str], wanted: str | None = None) -> str:
    """Path of docker, or else podman, on the PATH of an environment; of the one that is wanted alone, if one is.

    Raises:
        EngineMissing: there is none.
    """
    for name in (wanted,) if wanted else RUNTIMES:
        found = shutil.which(name, path=env.get("PATH"))
        if found:
            return found
    raise EngineMissing(
        f"There is no {wanted or ' or '.join(RUNTIMES)} on PATH to start a container with: install one with the NVIDIA "
        "container toolkit, or leave out --container-image to launch on this machine."
    )


def container_argv(
    runtime: str,
    image: str,
    argv: Sequence[str],
    *,
    name: str,
    devices: Sequence[int | str],
    env_names: Sequence[str] = (),
    mounts: Sequence[Mount] = (),
    port: int | None = None,
    shm: str | None = None,
    workdir: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Command line that runs `argv` in a container.

    Args:
        runtime: docker or podman, by path or name.
        image: What to run; it is not pulled, since that may take longer than any deadline.
        argv: Command inside.
        name: Of the container; unique.
        devices: GPUs by index or UUID; none for no GPU.
        env_names: Variables to pass on. Their values come from the client's environment and stand in no command line.
        mounts: Folders of the host.
        port: Published on the loopback address of the host, under the same number.
        shm: Size of /dev/shm such as `16g`; None to share the host's, as the guide does.
        workdir: Working folder inside.
        labels: To find the container by.
    """
    return (
        *(runtime, "run", "--rm", "--init", "--pull=never", f"--name={name}"),
        *(f"--label={key}={value}" for key, value in (labels or {}).items()),
        *_gpus(runtime, [str(device) for device in devices]),
        *(("--ipc=host",) if shm is None else (f"--shm-size={shm}",)),
        *("--ulimit=memlock=-1", f"--ulimit=stack={STACK_BYTES}"),
        *(f"--mount={_fields(mount)}" for mount in mounts),
        *(f"--env={variable}" for variable in env_names),
        *((f"--publish={LOOPBACK}:{port}:{port}",) if port else ()),
        *((f"--workdir={workdir}",) if workdir else ()),
        *(image, *argv),
    )


def end_commands(runtime: str, name: str) -> tuple[tuple[str, ...], ...]:
    """What ends a container whatever became of its client, for `Launch.on_end`."""
    return ((runtime, "rm", "--force", name),)


def containers_of(runtime: str, run: str) -> tuple[str, ...]:
    """Names of the containers that carry the label of a run, whether they run or not.

    Raises:
        EngineFailed: the engine does not answer.
    """
    labelled = f"--filter=label={RUN_LABEL}={run}"
    return tuple((_asked(runtime, "ps", "--all", labelled, "--format={{.Names}}") or "").split())


def container_pids(runtime: str, name: str) -> frozenset[int]:
    """Processes of a container as the host numbers them; none when there is no such container any more.

    Raises:
        EngineFailed: the engine does not answer.
    """
    columns = ("hpid",) if _is_podman(runtime) else ("-eo", "pid")
    listed = _asked(runtime, "top", name, *columns, absent="no such container|is not running|no container with")
    return frozenset(int(word) for word in (listed or "").split() if word.isdigit())


def has_image(runtime: str, image: str) -> bool:
    """Whether an image is here already.

    Raises:
        EngineFailed: the engine does not answer.
    """
    told = _asked(runtime, "image", "inspect", "--format={{.Id}}", image, absent="no such image|image not known")
    return told is not None


def image_digest(runtime: str, image: str) -> str | None:
    """The digest under which a registry has an image, None where it was built here or is not here.

    Raises:
        EngineFailed: the engine does not answer.
    """
    digests = _asked(
        runtime, "image", "inspect", "--format={{json .RepoDigests}}", image, absent="no such image|image not known"
    )
    found = re.search(r"@(sha256:[0-9a-f]{64})", digests or "")
    return found[1] if found else None


def _is_podman(runtime: str) -> bool:
    return Path(runtime).name.startswith("podman")


def _gpus(runtime: str, devices: Sequence[str]) -> tuple[str, ...]:
    if _is_podman(runtime):  # through the Container Device Interface, which SELinux would keep out
        chosen = tuple(f"--device=nvidia.com/gpu={device}" for device in devices)
        return (*chosen, "--security-opt=label=disable") if chosen else ()
    # The option is read as CSV: without the quotes the second device would be a field of its own.
    return (f'--gpus="device={",".join(devices)}"',) if devices else ()


def _fields(mount: Mount) -> str:
    """The value of `--mount`, which is one record of CSV."""
    text = io.StringIO()
    fields = ["type=bind", f"source={mount.path}", f"target={mount.path}"]
    csv.writer(text, lineterminator="").writerow(fields + ["readonly"] * mount.read_only)
    return text.getvalue()


def _asked(runtime: str, *words: str, absent: str = "$^") -> str | None:
    """The engine's answer; None when it complains of what may be `absent`."""
    program = Path(runtime).name
    try:
        done = subprocess.run([runtime, *words], capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineFailed(f"{program} does not answer: {error}.") from None
    if done.returncode == 0:
        return done.stdout
    if re.search(absent, done.stderr, re.IGNORECASE):
        return None
    why = container_trouble(done.stderr) or done.stderr.strip() or f"exit code {done.returncode}"
    raise EngineFailed(f"{program} {words[0]} failed: {why}")


_TOOLKIT = (
    "install the NVIDIA container toolkit and connect it (docker: sudo nvidia-ctk runtime configure --runtime=docker, "
    "then restart docker; podman: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)"
)
_TROUBLE = tuple(
    (re.compile(pattern, re.IGNORECASE), sentence)
    for pattern, sentence in {
        r"permission denied while trying to connect|Got permission denied": "This user may not talk to the docker "
        "daemon: add the user to the group docker and log in again, or use podman.",
        r"Cannot connect to the Docker daemon|Is the docker daemon running|Cannot connect to Podman": "The docker "
        "daemon is not running: sudo systemctl start docker.",
        r"could not select device driver.*gpu|unknown or invalid runtime name: nvidia|unresolvable CDI devices|"
        r"setting up CDI devices|failed to inject CDI devices|unknown flag: --gpus": "The container engine cannot pass "
        f"GPUs on: {_TOOLKIT}.",
        r"requirement error: unsatisfied condition|driver error: failed to process request|"
        r"nvidia-container-cli: (?:initialization error|detection error)": "The container cannot use this machine's "
        "NVIDIA driver: update the driver, or take an older image.",
        r"unauthorized: authentication required|access denied|denied: requested access": "The registry of the "
        "image wants a login (docker login; for NGC the user $oauthtoken and an API key), then docker pull the image.",
        r"No such image|image not known|manifest unknown|Unable to find image|repository does not exist": "The image "
        "is not here, or there is none of this name: docker pull it before the study, its download is no part of a "
        "trial.",
        r"port is already allocated|address already in use": "The port on the host is taken.",
        r"is already in use by container|container name .* already in use": "A container of this name is there "
        "already: remove it (docker rm --force).",
        r"bind source path does not exist|statfs .*: no such file": "A folder to be mounted does not exist.",
        r"exec(?:utable file)?:? .*(?:not found in \$PATH|no such file)": "The image does not have the program: take "
        "one with TensorRT-LLM in it.",
        r"no space left on device": "The disk of the container engine is full: docker system df says with what.",
    }.items()
)
_BY_CLIENT = re.compile(
    r"^(?:(?:docker|podman|nvidia-container-cli): |Error:? |error during connect|Cannot connect to |permission denied |"
    r"Got permission |Unable to find image ).*",
    re.MULTILINE,
)


def container_trouble(text: str) -> str | None:
    """What the container engine's own words mean, with the way out; None when it is not the engine that speaks."""
    said = "\n".join(_BY_CLIENT.findall(text))
    return next((sentence for pattern, sentence in _TROUBLE if pattern.search(said)), None)
