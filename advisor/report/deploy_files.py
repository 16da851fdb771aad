"""The files that start a recommendation in a container: `docker run`, compose and Slurm."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from advisor.engines.contained import (
    BUNDLE_FOLDER,
    CACHE_FOLDER,
    PORT,
    PROBE_ARGV,
    PROBE_NAME,
    TOKEN,
    ULIMITS,
    Contained,
)
from advisor.engines.trtllm.yaml_text import one_line
from advisor.report.kubernetes import kubernetes_yaml
from advisor.report.shell import command, script
from advisor.report.yaml_documents import literal, yaml_documents

PROBE_EVERY_S = 30
LAUNCHER = "trtllm-llmapi-launch"  # gives the MPI ranks of a Slurm step to TensorRT-LLM
_ADDRESS = 'HOST="${HOST:-127.0.0.1}"\nPORT="${PORT:-8000}"'
_CACHE = 'HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"'


def deploy_files(comments: Iterable[str], server: Contained) -> dict[str, str]:
    """Every file that can start this server, by name: those for one machine are left out where one does not suffice."""
    told = [one_line(comment) for comment in comments]
    files = {PROBE_NAME: server.probe_text}
    if server.nodes == 1:
        files["docker.sh"] = docker_sh(told, server)
        files["compose.yaml"] = compose_yaml(told, server)
        files["kubernetes.yaml"] = kubernetes_yaml(told, server)
    if server.nodes == 1 or (server.nodes and is_mpi(server)):
        files["serve.sbatch"] = serve_sbatch(told, server)
    return files


def not_covered(server: Contained | None) -> tuple[str, ...]:
    """What the files of a bundle leave to their reader, in sentences."""
    if server is None:
        return ("No file starts it in a container: no image of this engine and version is published.",)
    if server.nodes == 1:
        return ("Several replicas, and what balances load between them, are left to you.",)
    said = f"{server.gpus} GPUs are more than one machine has"
    if server.nodes and is_mpi(server):
        return (
            f"{said}: serve.sbatch takes {server.nodes} nodes; docker, compose and Kubernetes over several are left to "
            "you (on Kubernetes a LeaderWorkerSet or the MPI operator).",
        )
    return (f"{said}: no file here starts it over several (Ray, or a LeaderWorkerSet on Kubernetes, would).",)


def is_mpi(server: Contained) -> bool:
    """True where every GPU has an MPI rank, which Slurm has to start."""
    return "trtllm-serve" in server.argv[0]


def docker_sh(comments: Iterable[str], server: Contained) -> str:
    """`docker.sh`: one `docker run`, on the loopback address unless HOST says otherwise.

    HOST, PORT, GPUS, IMAGE and HF_HOME override; further arguments are the server's. HF_TOKEN is passed by its name.
    """
    settings = [_ADDRESS, f'GPUS="${{GPUS:-{server.gpus}}}"', f'IMAGE="${{IMAGE:-{server.image.reference}}}"']
    mounts = [_mount("$here", BUNDLE_FOLDER, read_only=True)]
    variables = dict(server.environment)
    body = ""
    if server.checkpoint is None:
        settings.append(_CACHE)
        body = 'mkdir -p -- "$HF_HOME"\n'
        mounts.append(_mount("$HF_HOME", CACHE_FOLDER))
        variables["HF_HOME"] = CACHE_FOLDER
    else:
        mounts.append(_mount(_in_double_quotes(server.checkpoint), server.checkpoint, read_only=True))
    lines = [
        "exec docker run --rm --init",
        '--gpus "$GPUS"',
        "--ipc=host",
        *(f"--ulimit {name}={value}" for name, value in ULIMITS.items()),
        f'--publish "$HOST:$PORT:{PORT}"',
        *mounts,
        f"--env {TOKEN}",
        *(f"--env {shlex.quote(f'{name}={value}')}" for name, value in variables.items()),
        f"--health-cmd {shlex.quote(shlex.join(PROBE_ARGV))}",
        f"--health-interval {PROBE_EVERY_S}s --health-timeout {server.answer_s + 5}s",
        f"--health-start-period {server.start_s}s",
        *([f"--entrypoint {shlex.join(server.image.entrypoint)}"] if server.image.entrypoint else []),
        '"$IMAGE"',
    ]
    typed = " \\\n  ".join([*lines, command(server.command, {})])
    return script(
        [
            *comments,
            "Needs docker with the NVIDIA container toolkit. Another choice of GPUs: GPUS='\"device=2,3\"'.",
            f"{TOKEN} is handed on from the environment where it is set, and stands in no file.",
        ],
        "\n".join(settings),
        f'{body}{typed} "$@"',
    )


def _mount(source: str, target: str, *, read_only: bool = False) -> str:
    """`--mount` with its source inside double quotes of the shell, where `$` and nothing else is meant.

    Its value is one record of CSV, so that a comma in a path needs quotes of its own.
    """
    end = ",readonly" if read_only else ""
    return f'--mount "type=bind,\\"source={source}\\",\\"target={_in_double_quotes(target)}\\"{end}"'


def _in_double_quotes(text: str) -> str:
    return "".join(f"\\{char}" if char in '\\"$`' else char for char in text)


def compose_yaml(comments: Iterable[str], server: Contained) -> str:
    """`compose.yaml`: the same container, with a health check that generates a token."""
    volumes = [_bind(".", BUNDLE_FOLDER, read_only=True)]
    environment: dict[str, str | None] = {TOKEN: None, **_each_literal(server.environment)}
    if server.checkpoint is None:
        volumes.append(_bind("${HF_HOME:-${HOME}/.cache/huggingface}", CACHE_FOLDER))
        environment["HF_HOME"] = CACHE_FOLDER
    else:
        volumes.append(_bind(literal(server.checkpoint), literal(server.checkpoint), read_only=True))
    service: dict[str, Any] = {
        "image": f"${{IMAGE:-{server.image.reference}}}",
        **({"entrypoint": list(server.image.entrypoint)} if server.image.entrypoint else {}),
        "command": [literal(word) for word in server.command],
        "ports": [f"${{HOST:-127.0.0.1}}:${{PORT:-8000}}:{PORT}"],
        "environment": environment,
        "volumes": volumes,
        "init": True,
        "ipc": "host",
        "ulimits": dict(ULIMITS),
        "stop_grace_period": f"{server.stop_s}s",
        "restart": "on-failure:3",
        "healthcheck": {
            "test": ["CMD", *PROBE_ARGV],
            "start_period": f"{server.start_s}s",
            "interval": f"{PROBE_EVERY_S}s",
            "timeout": f"{server.answer_s + 5}s",
            "retries": 3,
        },
        "deploy": {
            "resources": {
                "reservations": {"devices": [{"driver": "nvidia", "count": server.gpus, "capabilities": ["gpu"]}]}
            }
        },
    }
    head = [
        *comments,
        "docker compose up; HOST, PORT and IMAGE override. Published on the loopback address by default.",
        f"{TOKEN} is handed on from the environment where it is set, and stands in no file.",
    ]
    return yaml_documents(head, {"name": server.name, "services": {"server": service}})


def _each_literal(values: Mapping[str, str]) -> dict[str, str | None]:
    return {name: literal(value) for name, value in values.items()}


def _bind(source: str, target: str, *, read_only: bool = False) -> dict[str, Any]:
    made = {"read_only": True} if read_only else {"bind": {"create_host_path": True}}
    return {"type": "bind", "source": source, "target": target, **made}


def serve_sbatch(comments: Iterable[str], server: Contained) -> str:
    """`serve.sbatch`: a Slurm job for clusters with pyxis; TensorRT-LLM gets one MPI rank a GPU, vLLM one process.

    HOST, PORT, IMAGE and HF_HOME override; account, partition and time are options of `sbatch`.
    """
    nodes = server.nodes or 1
    per_node = server.gpus // nodes
    options = {
        "job-name": server.name,
        "nodes": nodes,
        "ntasks-per-node": per_node if is_mpi(server) else 1,
        "gpus-per-node": per_node,
        "output": "serve-%j.log",
    }
    mounts = [f"$here:{BUNDLE_FOLDER}:ro"]
    settings = [_ADDRESS, f'IMAGE="${{IMAGE:-{_enroot(server.image.reference)}}}"']
    settings += [f"export {name}={shlex.quote(value)}" for name, value in server.environment.items()]
    if server.checkpoint is None:
        settings += [_CACHE, 'mkdir -p -- "$HF_HOME"']
        mounts.append(f"$HF_HOME:{CACHE_FOLDER}")
    else:
        settings.append(f"CHECKPOINT={shlex.quote(server.checkpoint)}")
        mounts.append("$CHECKPOINT:$CHECKPOINT:ro")
    live = {server.flags["host"]: '"$HOST"', server.flags["port"]: '"$PORT"'}
    lines = [
        "exec srun" + (" --mpi=pmix" if is_mpi(server) else ""),
        f"--export=ALL,HF_HOME={CACHE_FOLDER}" if server.checkpoint is None else "--export=ALL",
        '--container-image="$IMAGE"',
        f'--container-mounts="{",".join(mounts)}"',
        "--no-container-mount-home",
        *([LAUNCHER] if is_mpi(server) else []),
        command(server.argv, live),
    ]
    head = "\n".join(f"#SBATCH --{name}={value}" for name, value in options.items())
    told = "\n".join(f"# {line}" for line in [*comments, *_SBATCH_NOTES])
    typed = " \\\n  ".join(lines)
    return _SBATCH.format(
        head=head, told=told, config=server.config_name, settings="\n".join(settings), paths=_paths(server), typed=typed
    )


def _paths(server: Contained) -> str:
    return "$here" + ("$HF_HOME" if server.checkpoint is None else "$CHECKPOINT")


def _enroot(reference: str) -> str:
    """An image as enroot spells it: the registry ends with `#`, where there is one."""
    registry, slash, rest = reference.partition("/")
    return f"{registry}#{rest}" if slash and ("." in registry or ":" in registry) else reference


_SBATCH_NOTES = (
    "Submit it from its own folder, which the nodes must share: sbatch -A ACCOUNT -p PARTITION -t 4:00:00 serve.sbatch",
    "Needs pyxis. Reachable on the first node alone; from others with HOST=0.0.0.0, which has no password.",
)
# Slurm runs a copy of the script from its spool, so the script's own place says nothing.
_SBATCH = """\
#!/usr/bin/env bash
{head}
{told}
set -euo pipefail
here="${{BUNDLE:-${{SLURM_SUBMIT_DIR:-$PWD}}}}"
if [ ! -f "$here/{config}" ]; then
  echo "There is no {config} in $here: submit from the folder of this script, or set BUNDLE to it." >&2
  exit 2
fi
{settings}
case "{paths}" in *[:,]*)
  echo "pyxis cannot mount a path with a colon or a comma: {paths}" >&2
  exit 2 ;;
esac

echo "http://$(hostname):$PORT/v1 on $HOST, once a token is generated"
{typed} "$@"
"""
