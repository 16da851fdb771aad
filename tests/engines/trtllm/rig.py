"""Trials of the engine on a machine of its own: the stand-in's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from advisor.app.trial_runner import run_trial
from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.ports import EngineRef, LaunchSpec, TrialEvent, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import parse_workload
from advisor.engines.trtllm.engine import TrtllmEngine
from advisor.store.trial_folder import TrialFolder
from tests.standin.equipment import MODEL, StandIn

LLAMA = Deployment(
    model=MODEL, quantization="bf16", gpu="h100_sxm", gpus=1, tp=1, chunked_prefill=True, engine_version="1.1.0"
)
CONFIG = ServingConfig(
    max_batch_size=16, max_num_tokens=4096, cuda_graph_max_batch_size=16, kv_cache_free_gpu_memory_fraction=0.8
)
WORKLOAD = changed(parse_workload("64-16_c4"), n_requests=8)
# Long enough for a slow machine, short enough to wait for.
DEADLINES = Deadlines(launch_s=30, load_s=4, kv_estimate_s=30, warm_up_s=30, answer_s=3, stop_s=3)


class Rig:
    """An engine on a machine of its own, with a folder for each trial."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.standin, self.folder = standin, folder
        self.events: list[TrialEvent] = []
        self.n_trials = 0

    def spec(self, config: ServingConfig = CONFIG, **more: Any) -> LaunchSpec:
        fields: dict[str, Any] = {"deployment": LLAMA, "workloads": (WORKLOAD,), "deadlines": DEADLINES, "seed": 3}
        return LaunchSpec(config=config, **{**fields, **more})

    def trial(
        self,
        config: ServingConfig = CONFIG,
        *,
        max_attempts: int = 1,
        referee: bool = False,
        engine: TrtllmEngine | None = None,
        on_event: Callable[[TrialEvent], None] | None = None,
        **more: Any,
    ) -> TrialRecord:
        folder = TrialFolder(self.folder / "run", self.n_trials)
        folder.begin()
        self.n_trials += 1
        request = TrialRequest(
            number=folder.number,
            role="search",
            origin="test",
            engine=EngineRef(name="trtllm"),
            spec=self.spec(config, **more),
            max_attempts=max_attempts,
            referee=referee,
        )
        engine = engine or TrtllmEngine(client_check=False)
        return run_trial(request, engine, on_event=on_event or self.events.append, evidence=folder)

    def log(self, number: int = 0) -> str:
        return (self.folder / "run" / "trials" / f"{number:04d}" / "server.log").read_text()


MakeRig = Callable[..., Rig]
