"""The host: shared memory, limits, memory, CPUs, disk. None of it is seen in a server's log until it fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.app.checks.facts import Facts
from advisor.app.checks.finding import Finding, Way, counted, note, ok, warning
from advisor.domain.units import MIB_BYTES, from_gib
from advisor.host.machine import Limit

LEAST_SHM_GIB = 1.0
LEAST_FREE_SHM_GIB = 0.25
GUIDE_STACK_BYTES = 64 * MIB_BYTES  # --ulimit stack=67108864
LEAST_MEMLOCK_BYTES = 64 * MIB_BYTES
LEAST_OPEN_FILES = 4096  # 1,024 requests in flight are as many sockets, in the server and in the client
LEAST_PROCESSES = 4096  # threads count
CPUS_PER_GPU = 2  # the rank's own loop, and what feeds it
PREFETCH_SHARE = 0.9  # TensorRT-LLM reads the weights ahead where they fit so much of the available memory

_THREADS = "Ranks, their loaders and their communication libraries start hundreds of threads each."


class _Rule(NamedTuple):
    """A limit that a server needs more of than systems give by default, and what raises it."""

    id: str
    field: str
    least: int
    subject: str
    why: str
    command: str
    flag: str
    severe: bool = False


_RULES = (
    _Rule(
        id="host.memlock",
        field="memlock_bytes",
        least=LEAST_MEMLOCK_BYTES,
        subject="locked memory in bytes (ulimit -l)",
        why="InfiniBand, GPUDirect and NCCL pin host memory.",
        command="ulimit -l $(ulimit -Hl)",
        flag="--ulimit memlock=-1",
    ),
    _Rule(
        id="host.stack",
        field="stack_bytes",
        least=GUIDE_STACK_BYTES,
        subject="the stack in bytes (ulimit -s)",
        why="NVIDIA starts its containers with 64 MiB, against overflows in deeply nested code.",
        command="ulimit -s 65536",
        flag="--ulimit stack=67108864",
    ),
    _Rule(
        id="host.open_files",
        field="open_files",
        least=LEAST_OPEN_FILES,
        subject="open files (ulimit -n)",
        why="Each request in flight is a socket, in the server and in the load client: 1,024 of them are too many.",
        command=f"ulimit -n {LEAST_OPEN_FILES}",
        flag="--ulimit nofile=65536",
        severe=True,
    ),
    _Rule(
        id="host.processes",
        field="processes",
        least=LEAST_PROCESSES,
        subject="processes and threads (ulimit -u)",
        why=_THREADS,
        command=f"ulimit -u {LEAST_PROCESSES}",
        flag="--ulimit nproc=65536",
        severe=True,
    ),
)


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything about the host."""
    kind = facts.host.container
    if kind is not None:
        said = "a container of unknown kind" if kind == "container" else f"a {kind} container"
        yield note("host.container", f"advisor runs inside {said}.", "What follows is what the container is given.")
    if facts.wanted.container_image is None:
        yield from _shared_memory(facts)
        yield from _limits(facts)
    yield from _memory(facts)
    yield from _cpus(facts)


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    shm = facts.host.shared_memory
    say = warning if facts.n_gpus > 1 else note
    why = "NCCL and the ranks of a server over several GPUs meet in it; too small, they die with a bus error."
    if shm is None:
        yield say("host.shm", "There is no /dev/shm.", why, *_ways_to_shm(facts.host.container))
    elif shm.total_gib < LEAST_SHM_GIB:
        size_mib = from_gib(shm.total_gib) / MIB_BYTES
        yield say("host.shm", f"/dev/shm holds {size_mib:.0f} MiB only.", why, *_ways_to_shm(facts.host.container))
    elif shm.free_gib < LEAST_FREE_SHM_GIB:
        way = Way(what="See what fills it, and remove what nobody uses any more:", commands=("ls -lS /dev/shm | head",))
        yield say("host.shm", f"/dev/shm is full: {shm.free_gib:.2f} of {shm.total_gib:.0f} GiB are free.", why, way)
    else:
        yield ok("host.shm", f"/dev/shm: {shm.free_gib:.1f} of {shm.total_gib:.1f} GiB free.")


def _ways_to_shm(container: str | None) -> Iterator[Way]:
    if container == "kubernetes":
        yield Way(what="Mount an emptyDir with medium: Memory at /dev/shm.")
    elif container in ("docker", "podman", "container"):
        yield Way(what="Start the container with --ipc host, as NVIDIA's guide does, or with --shm-size=64g.")
    else:
        yield Way(what="Make it larger:", commands=("sudo mount -o remount,size=64g /dev/shm",))


def _limits(facts: Facts) -> Iterator[Finding]:
    inside = facts.host.container is not None
    for rule in _RULES:
        limit: Limit | None = getattr(facts.host.limits, rule.field)
        if limit is not None:
            yield _limit(rule, limit, inside=inside)
    most = facts.host.max_processes
    if most is not None and most < LEAST_PROCESSES:
        what = f"The container or job may have {most:,} processes and threads; {LEAST_PROCESSES:,} or more are usual."
        way = Way(what="Start it with more: docker run --pids-limit=-1, or ask whoever runs the cluster.")
        yield warning("host.pids", what, _THREADS, way)


def _limit(rule: _Rule, limit: Limit, *, inside: bool) -> Finding:
    if limit.soft is None or limit.soft >= rule.least:
        return ok(rule.id, f"The limit of {rule.subject} is {_amount(limit.soft)}.")
    if limit.hard is None or limit.hard >= rule.least:
        way = Way(what="Raise it in the shell that starts advisor:", commands=(rule.command,))
    elif inside:
        way = Way(what=f"Start the container with {rule.flag} (docker run, podman run).")
    else:
        way = Way(what="Have an administrator raise it (/etc/security/limits.conf), and log in again.")
    say = warning if rule.severe else note
    what = f"The limit of {rule.subject} is {_amount(limit.soft)}; {_amount(rule.least)} or more is usual."
    return say(rule.id, what, rule.why, way)


def _amount(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit:,}"


def _memory(facts: Facts) -> Iterator[Finding]:
    memory, weights_gib = facts.host.memory, facts.weights.size_gib
    if memory is None:
        return
    allowed = "" if memory.limit_gib is None else f" ({memory.limit_gib:.0f} GiB allowed by its control group)"
    what = f"{memory.available_gib:.0f} of {memory.total_gib:.0f} GiB of host memory are available{allowed}"
    if weights_gib is not None and weights_gib > PREFETCH_SHARE * memory.available_gib:
        why = (
            "The ranks read the weights through host memory. What does not fit is read again and again, which makes "
            "starts slow; with a limit on the container or job they may be killed."
        )
        way = Way(
            what="Free some, or give the container or job more (docker --memory, resources.limits.memory, Slurm --mem)."
        )
        yield warning("host.memory", f"{what}; the checkpoint has about {weights_gib:.0f} GiB.", why, way)
    else:
        yield ok("host.memory", f"{what}.")


def _cpus(facts: Facts) -> Iterator[Finding]:
    cpus, n_gpus = facts.host.cpus, len(facts.gpus.visible[: facts.n_gpus])
    if cpus is None:
        return
    needed = CPUS_PER_GPU * n_gpus + 2
    if n_gpus and cpus < needed:
        yield warning(
            "host.cpus",
            f"{cpus:g} CPUs for {counted(n_gpus, 'GPU')}.",
            "Each rank keeps one busy, and the server and the load client need theirs: the host would be the limit.",
            Way(what=f"Give it {needed} or more (docker --cpus, resources.limits.cpu, Slurm --cpus-per-task)."),
        )
    else:
        yield ok("host.cpus", f"{cpus:g} CPUs.")
