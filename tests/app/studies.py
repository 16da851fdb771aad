"""A small study on a scripted engine: everything is real but the engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from advisor.app.results import StudySummary
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.ports import Asked, TrialEvent
from advisor.domain.trial import TrialRecord
from tests.app.scripted import ScriptedEngine

SPACE = """\
schema_version: 1
name: small
description: of the tests
dimensions:
  - {name: max_batch_size, values: [64, 256, 2048], reason: test}
  - {name: max_num_tokens, values: [4096, 8192, 16384], reason: test}
  - {name: cuda_graph_max_batch_size, values: [64, 128], reason: test}
  - {name: kv_cache_free_gpu_memory_fraction, values: [0.5, 0.9], reason: test}
"""


class Watcher:
    """Reporter and cancel token: notes every trial, and cancels after some."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.cancel_after = cancel_after
        self.ended: list[TrialRecord] = []

    @property
    def cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.ended) >= self.cancel_after

    def trial_started(self, asked: Asked) -> None: ...
    def event(self, event: TrialEvent) -> None: ...
    def note(self, text: str) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None:
        self.ended.append(record)


def session(
    folder: Path,
    engine: ScriptedEngine,
    *,
    max_launches: int | None = 12,
    max_hours: float | None = None,
    gpu_hours: float | None = None,
    workloads: tuple[str, ...] = ("1k1k_c8",),
    slo: str = "",
    objective: str | None = None,
    gpu_price: float | None = None,
    baselines: tuple[str, ...] = (),
    resume: bool = False,
    max_probes: int | None = 0,
    sampler: str = "random",
    transfer: bool = True,
    verifiable: bool = False,
) -> Session:
    """Llama-3.1-8B on one H100 over 36 configurations; the baseline is the release's default, which is one of them."""
    (folder / "small.yaml").write_text(SPACE)
    question = Question(
        study="llama3.1-8b-h100",
        workloads=workloads,
        search_space=str(folder / "small.yaml"),
        slo=slo,
        objective=objective,
        gpu_price_usd_per_hour=gpu_price,
        max_launches=max_launches,
        max_hours=max_hours,
        gpu_hours=gpu_hours,
    )
    how = How(
        engine="twin",
        baselines=baselines,
        out=folder / "out",
        resume=resume,
        sampler=sampler,
        transfer=transfer,
        verifiable=verifiable,
        max_probes=max_probes,
    )
    return dataclasses.replace(open_session(question, how), engine=engine)


def play(opened: Session, watcher: Watcher | None = None) -> tuple[StudySummary, tuple[TrialRecord, ...]]:
    """Run a session to its end."""
    watcher = watcher or Watcher()
    with opened.open_ledger() as ledger:
        summary = opened.run(ledger, watcher, watcher)
        return summary, ledger.records()
