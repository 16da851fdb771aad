"""A prefix before the server's command line (`--launch-prefix`): Slurm and other launchers of several nodes.

`srun` gets a name of its own for each launch, so that the job or step can be found when srun is gone; every other
launcher (mpirun, numactl, a script) is a parent like any other. Slurm's documented behaviour that this relies on: srun
forwards SIGTERM to its tasks; task 0, where `trtllm-llmapi-launch` runs the server, is on the first node of the step;
and see `end_step`.
"""

from __future__ import annotations

import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.domain.errors import BadInput
from advisor.host import end_step
from advisor.host.ports import LOOPBACK

EVERYWHERE = "0.0.0.0"
_OPTION = re.compile(r"(?:--nodelist(?:=|$)|-w)(.*)")
_NODE = r"(?:[^\s,\[\]/]|\[\d[\d,-]*\])+"
_NODE_LIST = re.compile(rf"(?P<first>{_NODE})(?:,{_NODE})*")


@dataclass(frozen=True)
class Address:
    """Where a server can be reached, and what it has to bind for that."""

    host: str
    bind: str


def prefixed(prefix: str, argv: Sequence[str], name: str) -> tuple[str, ...]:
    """The command line behind its prefix; `srun` gets the name of the launch.

    Raises:
        BadInput: the prefix is empty, has an open quote, or names srun's job itself.
    """
    words = _words(prefix)
    place = _srun(words)
    if place is None:
        return (*words, *argv)
    own = next((word for word in words[place:] if word.startswith(("--job-name", "-J"))), None)
    if own is not None:
        raise BadInput(f"--launch-prefix: leave out {own}; advisor names each launch, to find what srun leaves behind.")
    return (*words[: place + 1], f"--job-name={name}", *words[place + 1 :], *argv)


def end_commands(prefix: str, name: str) -> tuple[tuple[str, ...], ...]:
    """What ends a job or step of that name whatever became of srun, for `Launch.on_end`.

    Raises:
        BadInput: as `prefixed`.
    """
    if _srun(_words(prefix)) is None:
        return ()
    return ((sys.executable, "-I", "-S", end_step.__file__, name),)


def address(prefix: str, env: Mapping[str, str], here: str | None = None) -> Address:
    """Where the server behind a prefix will listen: on the loopback address unless that is another machine's.

    Args:
        prefix: `--launch-prefix`.
        env: Environment of the launch.
        here: Name of this machine; None to ask.

    Raises:
        BadInput: as `prefixed`, or srun would only choose the node when it starts.
    """
    words = _words(prefix)
    place = _srun(words)
    if place is None:
        return Address(LOOPBACK, LOOPBACK)
    nodes = _asked_for(words[place + 1 :]) or env.get("SLURM_JOB_NODELIST") or env.get("SLURM_NODELIST")
    if not nodes:
        raise BadInput(
            "--launch-prefix: nobody knows yet on which node srun will start the server. Start advisor inside an "
            "allocation (salloc, sbatch), or name the nodes with --nodelist."
        )
    node = first_node(nodes)
    names = {env.get("SLURMD_NODENAME", ""), here or socket.gethostname()}
    if node.partition(".")[0] in {name.partition(".")[0] for name in names}:
        return Address(LOOPBACK, LOOPBACK)
    return Address(node, EVERYWHERE)


def first_node(nodes: str) -> str:
    """The first node of a Slurm node list: `gpu-[003-005,9]-ib[0-1],x` is `gpu-003-ib0` and others.

    Raises:
        BadInput: it is no node list.
    """
    found = _NODE_LIST.fullmatch(nodes.strip())
    if not found:
        raise BadInput(f"{nodes!r} is not a list of Slurm nodes.")
    return re.sub(r"\[(\d+)[\d,-]*\]", r"\1", found["first"])


def _words(prefix: str) -> list[str]:
    try:
        words = shlex.split(prefix)
    except ValueError as error:
        raise BadInput(f"--launch-prefix {prefix!r}: {str(error).lower()}.") from None
    if not words:
        raise BadInput('--launch-prefix is empty: leave it out, or write it like "srun -N2 trtllm-llmapi-launch".')
    return words


def _srun(words: Sequence[str]) -> int | None:
    return next((place for place, word in enumerate(words) if Path(word).name == "srun"), None)


def _asked_for(options: Sequence[str]) -> str | None:
    """The nodes that srun's own options name."""
    for place, word in enumerate(options):
        found = _OPTION.match(word)
        if found:
            return found[1] or "".join(options[place + 1 : place + 2])
    return None
