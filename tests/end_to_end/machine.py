"""A study of `trtllm-serve` on the stand-in: what is asked, what the right answer is, what must not be left."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from advisor.app.setup import Question, resolve
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import parse
from advisor.search.space import all_configs
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.worlds import draw_world
from tests.end_to_end.command import ADVISOR, half_written
from tests.standin.equipment import MODEL, StandIn

WORKLOAD = "64-32_c16"
RELEASE, WORLD = "1.1.0", 1
SPEED = 5.0  # more, and the client's processor time decides instead of the stand-in's steps

# Batch decides: every step of this small model costs about the same, however many requests share it.
SPACE = {
    "schema_version": 1,
    "name": "small",
    "description": "of the tests",
    "dimensions": [
        {"name": "max_batch_size", "values": [4, 8, 16], "reason": "requests that share a step"},
        {"name": "max_num_tokens", "values": [1024, 8192], "reason": "no prompt is longer"},
        {"name": "cuda_graph_max_batch_size", "values": [0, 16], "reason": "off and on"},
        {"name": "kv_cache_free_gpu_memory_fraction", "values": [0.5, 0.9], "reason": "both suffice"},
    ],
}
STUDY = {
    "schema_version": 1,
    "name": "small",
    "title": "Llama-3.1-8B on one H100",
    "description": "of the tests",
    "deployment": {
        "model": MODEL,
        "quantization": "bf16",
        "gpu": "h100_sxm",
        "gpus": 1,
        "tp": 1,
        "chunked_prefill": True,
        "engine_version": RELEASE,
    },
    "workloads": [WORKLOAD],
    "baseline": "default",
    "deadlines": {"launch_s": 60, "load_s": 60, "kv_estimate_s": 60, "warm_up_s": 60, "answer_s": 20, "stop_s": 5},
    "budget": {"max_launches": 12},
}
# Launched as further baselines: out of memory while profiling, in the second capture, and under load.
CRASHES: Mapping[str, dict[str, Any]] = {
    "profiling.yml": {"max_num_tokens": 600_000, "kv_cache_config": {"free_gpu_memory_fraction": 0.9}},
    "capture.yml": {
        "max_batch_size": 2048,
        "cuda_graph_config": {"max_batch_size": 2048, "enable_padding": True},
        "kv_cache_config": {"free_gpu_memory_fraction": 0.995},
    },
    "under-load.yml": {
        "max_batch_size": 2048,
        "cuda_graph_config": {"max_batch_size": 128, "enable_padding": True},
        "kv_cache_config": {"free_gpu_memory_fraction": 0.984},
    },
}


class Machine:
    """A stand-in with the files of the study, and the command that tunes it.

    `crashing`: the three that run out of memory are launched as further baselines, and no probe spares them that.
    """

    def __init__(self, folder: Path, *, crashing: bool = False, **dials: Any) -> None:
        self.folder, self.crashing = folder, crashing
        self.standin = StandIn(folder / "machine", release=RELEASE, world=WORLD, **{"speed": SPEED, **dials})
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, "search_space": str(folder / "space.yaml")}))
        for name, document in CRASHES.items():
            (folder / name).write_text(yaml.safe_dump(document))

    def tune_argv(self, *more: str) -> tuple[str, ...]:
        crashes = [word for name in CRASHES for word in ("--baseline", str(self.folder / name))]
        baselines = [*crashes, "--max-probes", "0"] if self.crashing else []
        asked = ("--study", str(self.folder / "study.yaml"), "--engine", "trtllm", "--yes", "--no-client-check")
        return (*ADVISOR, "tune", *asked, *baselines, "--out", str(self.folder / "out"), *more)

    def env(self) -> dict[str, str]:
        return self.standin.env(NO_COLOR="1", HF_TOKEN="hf_standin0secret0token")

    def started(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.tune_argv(*more),
            cwd=self.folder,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> Path:
        (identity,) = (self.folder / "out").glob("*/*/identity.json")
        return identity.parent

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run() / "summary.json").read_text())
        return found

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.run().glob("trials/*/outcome.json"))]

    def assert_nothing_is_left(self) -> None:
        """No process, no GPU memory, no port in use, no half-written file, no secret on disk."""
        assert self.standin.leftovers() == []
        assert self.standin.held_gib() == [0.0]
        for launch in self.standin.launches():
            argv = launch["argv"]
            assert is_free(int(argv[argv.index("--port") + 1]))
        assert half_written(self.folder / "out") == []
        written = [path for path in (self.folder / "out").rglob("*") if path.is_file()]
        assert [path for path in written if b"hf_standin0secret0token" in path.read_bytes()] == []


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def true_share(folder: Path, flat: Mapping[str, Any]) -> float:
    """What a configuration serves in the stand-in's world, of the best of the space; without noise."""
    resolved = resolve(Question(study=str(folder / "study.yaml")))
    twin = Twin(catalog.model_facts(MODEL), catalog.step_tables, constants=draw_world(WORLD))
    (workload,) = resolved.workloads

    def rate(config: ServingConfig) -> float:
        return twin.simulate(resolved.deployment, config, workload, n_requests=workload.requests()).output_tok_per_s

    return rate(parse(ServingConfig, flat, "best")) / max(map(rate, all_configs(resolved.space)))
