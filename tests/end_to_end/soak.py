"""One round of `make soak`: a study of the stand-in under random kills of server, advisor and guardian.

Three configurations run out of memory in three phases, and one server crashes under load. Whatever is killed when, the
study is resumed until it is done; then it must have the right winner, and nothing may be left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

from tests.end_to_end.machine import Machine, true_share

Victim = Literal["server", "guardian", "advisor", "advisor and guardian"]
VICTIMS: tuple[Victim, ...] = ("server", "guardian", "advisor", "advisor and guardian")
# One server crashes under load; all of them have workers that outlive their parent, and print their secrets.
FAULTS = (
    {"kind": "segfault", "after_tokens": 300, "launch": 5, "times": 1},
    {"kind": "orphaning"},
    {"kind": "echo_secrets"},
)
LEAST_SHARE = 0.9
PATIENCE_S = 300.0


def play(folder: Path, draw: random.Random, n_kills: int) -> list[str]:
    """One round; what was killed when. Raises AssertionError for whatever is wrong in the end."""
    machine, story = Machine(folder, crashing=True, faults=FAULTS), list[str]()
    kills = [(draw.uniform(0.2, 5.0), draw.choice(VICTIMS)) for _ in range(n_kills)]
    deadline = time.monotonic() + PATIENCE_S
    process = machine.started("--resume")
    for pause_s, victim in kills:
        if ended(process, pause_s):
            break
        story.append(f"{victim} after {pause_s:.2f} s")
        if kill(machine, process, victim):
            process.communicate()
            process = machine.started("--resume")
    assert ended(process, deadline - time.monotonic()), f"the study does not end: {story}"
    _, heard = process.communicate()
    assert process.returncode == 0, f"{story}\n{heard}"
    check(machine, heard)
    return story


def ended(process: subprocess.Popen[str], within_s: float) -> bool:
    """True once the process has ended by itself."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(machine: Machine, process: subprocess.Popen[str], victim: Victim) -> bool:
    """Send SIGKILL; True when advisor was among the dead."""
    targets = []
    if victim == "server":
        targets = [launch["pid"] for launch in machine.standin.launches()[-1:]]
    if "guardian" in victim:
        targets = guardians(process.pid)
    if "advisor" in victim:
        targets.append(process.pid)
    for pid in targets:
        if pid in children(process.pid) | {process.pid}:
            os.kill(pid, signal.SIGKILL)
    return "advisor" in victim


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def guardians(pid: int) -> list[int]:
    """Guardians of a process's launches."""
    found = []
    for child in children(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"guardian.py" in command:
            found.append(child)
    return found


def check(machine: Machine, heard: str) -> None:
    """The right winner, every kind of failure told for what it was, nothing left."""
    machine.assert_nothing_is_left()
    (result,) = machine.summary()["results"]
    assert result["source"] == "measured"
    assert "+standin" in result["label"]
    assert result["best"] is not None, heard
    share = true_share(machine.folder, result["best"]["serving_config"])
    assert share >= LEAST_SHARE, f"the winner serves {share:.0%} of the best: {result['best']['serving_config']}"
    records = machine.records()
    assert [record["number"] for record in records] == sorted({record["number"] for record in records})
    phases = {
        record["outcome"]["phase"]
        for record in records
        if record["outcome"]["kind"] == "out_of_memory" and record["role"] == "baseline"
    }
    assert phases == {"kv_estimate", "warm_up", "serve"}, f"{phases}\n{heard}"
