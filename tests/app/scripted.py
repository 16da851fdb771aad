"""A scripted engine: a real, small implementation of the port that does at each launch what a function says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from advisor.domain.answers import GreedyAnswers
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import (
    EffectiveSettings,
    LatencySummary,
    LimitedBy,
    MemoryReport,
    Metrics,
    ProfiledMemory,
    RefereeReport,
    WorkloadOutcome,
)
from advisor.domain.outcome import Outcome
from advisor.domain.ports import EngineIdentity, EvidenceStore, LaunchSpec, OnEvent, RunningServer, Stop
from advisor.domain.trial import PhaseTiming
from advisor.domain.workload import Workload

LAUNCH_S = 60.0


def metrics(output_tok_per_s: float, ttft_ms: float = 100.0) -> Metrics:
    ttft, e2e = (
        LatencySummary(mean=ms, p50=ms, p90=ms, p95=ms, p99=ms) for ms in (ttft_ms, 10 * ttft_ms)
    )  # fmt: skip
    return Metrics(
        output_tok_per_s=output_tok_per_s,
        output_tok_per_s_per_gpu=output_tok_per_s,
        output_tok_per_s_per_user=1.0,
        request_per_s=1.0,
        ttft_ms=ttft,
        tpot_ms=None,
        itl_ms=None,
        e2e_ms=e2e,
        n_requests=8,
        duration_s=1.0,
    )


@dataclass(frozen=True)
class Act:
    """What one launch does.

    Attributes:
        at_start: How the start ends: an outcome, an error raised by it, or None for a healthy server.
        under: By workload name, what happens under it; anything not named measures `tok_per_s`.
        tok_per_s: Output of every workload that is measured.
        ttft_ms: Time to first token of every workload that is measured.
        kv_tokens: Capacity of the KV pool.
        headroom_gib: GPU memory left.
        limited_by: What limits every workload that is measured.
        each: Asked at every benchmark what happens instead of `under`, None for nothing out of the way.
        loaded: From a workload to its metrics, instead of the two above.
        texts: What it answers to the fixed prompts, and to each second time.
    """

    at_start: Outcome | Exception | None = None
    under: Mapping[str, Outcome | Exception | WorkloadOutcome] = field(default_factory=dict)
    tok_per_s: float = 1000.0
    ttft_ms: float = 100.0
    kv_tokens: int = 1_000_000
    headroom_gib: float = 10.0
    limited_by: LimitedBy | None = None
    each: Callable[[Workload], Outcome | Exception | None] | None = None
    loaded: Callable[[Workload], Metrics] | None = None
    texts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


Script = Callable[[LaunchSpec, int], Act]
"""From a launch and how many came before it to what it does."""


class ScriptedEngine:
    """Counts its starts and notes what happened in which order."""

    def __init__(self, script: Script | Act) -> None:
        self.script: Script = (lambda spec, n: script) if isinstance(script, Act) else script
        self.starts: list[LaunchSpec] = []
        self.story: list[str] = []
        self.seeds: list[int] = []

    def identity(self) -> EngineIdentity:
        return EngineIdentity(name="scripted", version="1", source="simulated", label="simulated by a script")

    def prepare(self, spec: LaunchSpec) -> ScriptedLaunch:
        return ScriptedLaunch(self, spec)

    def measurer(self) -> ScriptedMeasurer:
        return ScriptedMeasurer(self)

    def missing(self, deployment: Deployment | None) -> str | None:
        return None


class ScriptedLaunch:
    argv: tuple[str, ...] = ("scripted-serve",)
    config_text = "max_batch_size: 1\n"
    config_name = "extra-llm-api-config.yml"

    def __init__(self, engine: ScriptedEngine, spec: LaunchSpec) -> None:
        self.engine, self.spec = engine, spec

    def start(self, on_event: OnEvent, evidence: EvidenceStore) -> ScriptedServer:
        act = self.engine.script(self.spec, len(self.engine.starts))
        self.engine.starts.append(self.spec)
        self.engine.story.append("start")
        if isinstance(act.at_start, Exception):
            raise act.at_start
        return ScriptedServer(self.engine, act)


class ScriptedServer:
    endpoint: str | None = None

    def __init__(self, engine: ScriptedEngine, act: Act) -> None:
        self.engine, self.act = engine, act
        assert not isinstance(act.at_start, Exception)
        self.ended: Outcome | None = act.at_start

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.story.append("stop")

    def effective(self) -> EffectiveSettings | None:
        if self.ended is not None:
            return None
        return EffectiveSettings(
            max_batch_size=1,
            max_num_tokens=1,
            max_seq_len=self.act.kv_tokens,
            kv_tokens=self.act.kv_tokens,
            cuda_graph_sizes=(),
        )

    def memory(self) -> MemoryReport | None:
        used = 80.0 - self.act.headroom_gib
        return MemoryReport(weights=used, activations=0.0, cuda_graphs=0.0, kv_pool=0.0, other=0.0, capacity=80.0)

    def profiled(self) -> ProfiledMemory | None:
        return None

    def surprises(self) -> tuple[str, ...]:
        return ()

    def stats(self) -> dict[str, Any]:
        return {}

    def phases(self) -> tuple[PhaseTiming, ...]:
        return (PhaseTiming(name="launch", duration_s=LAUNCH_S),)

    def failure(self) -> Outcome | None:
        self.engine.story.append("asked")
        return self.ended


class ScriptedMeasurer:
    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine

    def measure(
        self,
        server: RunningServer,
        workload: Workload,
        seed: int,
        stop: Stop,
        on_event: OnEvent,
        evidence: EvidenceStore,
    ) -> WorkloadOutcome:
        assert isinstance(server, ScriptedServer)
        self.engine.story.append(f"measure {workload.name}")
        self.engine.seeds.append(seed)
        act = server.act
        what = act.under.get(workload.name) if act.each is None else act.each(workload)
        if isinstance(what, WorkloadOutcome):
            return what
        if isinstance(what, Exception):
            raise what
        if what is not None:
            server.ended = what
            raise ConnectionResetError("the server hung up")
        found = metrics(act.tok_per_s, act.ttft_ms) if act.loaded is None else act.loaded(workload)
        return WorkloadOutcome(workload=workload.name, metrics=found, limited_by=act.limited_by, seed=seed)

    def referee(
        self, server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore
    ) -> RefereeReport | None:
        return None

    def answers(self, server: RunningServer, repeats: bool) -> GreedyAnswers | None:
        assert isinstance(server, ScriptedServer)
        self.engine.story.append("answers")
        texts, again = server.act.texts
        return GreedyAnswers(n_tokens=16, texts=texts, again=again if repeats else ()) if texts else None
