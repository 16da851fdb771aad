"""A real vLLM on this machine's CPU, as tests hold it: its environment, its study, and whatever it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.store import catalog

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / ".engine"
MODEL = str(ENGINE / "tiny")
STUDY = str(HERE / "study.yaml")
SPACE = str(HERE / "space.yaml")

CONFIG = ServingConfig(
    max_batch_size=8,
    max_num_tokens=256,
    cuda_graph_max_batch_size=0,
    kv_cache_free_gpu_memory_fraction=0.5,
    options={"kv_cache_memory_bytes": 33_554_432},
)
WORKLOAD: Workload = changed(parse_workload("64-32_c8"), n_requests=16)


def variables() -> dict[str, str]:
    """What a process needs of its environment to find the engine, and to leave the other core to the client."""
    return {
        "PATH": f"{ENGINE / 'venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }


def spec(config: ServingConfig = CONFIG, workload: Workload = WORKLOAD, answer_s: float = 30.0) -> LaunchSpec:
    """One launch of the study's deployment."""
    study = catalog.study(STUDY)
    return LaunchSpec(
        deployment=changed(study.deployment, model=MODEL),
        config=config,
        workloads=(workload,),
        deadlines=changed(study.deadlines, answer_s=answer_s),
    )


def living(folder: Path) -> dict[int, str]:
    """Processes that run in a folder, by pid: a launch and all its children keep the folder they were started in."""
    found = {}
    for task in Path("/proc").iterdir():
        if task.name.isdigit() and int(task.name) != os.getpid():
            try:
                here = (task / "cwd").readlink() == folder
                words = (task / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if here and state != "Z":
                found[int(task.name)] = words
    return found


def left_after(folder: Path, patience_s: float) -> dict[int, str]:
    """Processes that still run in a folder when it should be empty; those that are just ending may have a moment."""
    until_s = time.monotonic() + patience_s
    while (left := living(folder)) and time.monotonic() < until_s:
        time.sleep(0.1)
    return left


def tune(folder: Path, *more: str) -> subprocess.Popen[str]:
    """`advisor tune` on the study, started in a folder."""
    argv = [sys.executable, "-m", "advisor", "tune", "--study", STUDY, "--search-space", SPACE, "--model", MODEL]
    argv += ["--engine", "vllm", "--yes", "--no-client-check", "--out", str(folder / "results"), *more]
    return subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, **variables()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_folder(folder: Path) -> Path:
    """Of the only run in the results."""
    (found,) = (folder / "results" / "tiny-cpu").glob("64-32_c8-*")
    return found


def outcomes(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Finished trials, in their order."""
    for path in sorted((folder / "results").rglob("outcome.json")):
        yield json.loads(path.read_text(encoding="utf-8"))
