"""Every kind of diagnosis has its outcome, and out-of-memory ones speak the memory law's language."""

from __future__ import annotations

from typing import get_args

import pytest

from advisor.app.doctoring import diagnose_lines
from advisor.domain.outcome import (
    BadConfig,
    Crashed,
    Evidence,
    Infrastructure,
    OutOfMemory,
    Phase,
    TimedOut,
    Unhealthy,
)
from advisor.domain.strict import changed
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.events import Kind
from advisor.memory.law import STAGES
from advisor.memory.outcomes import LEAST_SHORT_GIB, Death, outcome_of
from advisor.memory.stages import law_component
from tests.memory.log_cases import FOLDERS, LogCase, cases

ALL = [case for folder in FOLDERS for case in cases(folder)]
EVIDENCE = (Evidence(line=3, text="it said so"),)


def diagnosis(verdict: Kind, phase: Phase | None = "load", component: str | None = None, **more: object) -> Diagnosis:
    return changed(
        Diagnosis(
            verdict=verdict,
            phase=phase,
            component=component,
            short_gib=None,
            summary="What happened.",
            evidence=EVIDENCE,
            remedies=(),
        ),
        **more,
    )


# Kind -> outcome of a server that died of it; with a deadline; and the exceptions of a kind.
TABLE: dict[Kind, type] = {
    "oom": OutOfMemory,
    "host_oom": Crashed,
    "insufficient_kv": OutOfMemory,
    "config": BadConfig,
    "request_rejected": Unhealthy,
    "unsupported_arch": BadConfig,
    "unsupported_model": BadConfig,
    "checkpoint": BadConfig,
    "kernel_error": Crashed,
    "version_mismatch": Infrastructure,
    "nccl": Infrastructure,
    "mpi": Infrastructure,
    "port": Infrastructure,
    "auth": Infrastructure,
    "hang": Crashed,
    "crash": Crashed,
    "benign": Crashed,
    "unknown": Crashed,
}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_outcome_of_each_kind(kind: Kind) -> None:
    outcome = outcome_of(diagnosis(kind))
    assert type(outcome) is TABLE[kind]
    assert outcome.evidence == EVIDENCE
    late = outcome_of(diagnosis(kind), Death(phase="warm_up", deadline_s=900.0))
    assert type(late) is (TimedOut if kind in ("hang", "benign", "unknown") else TABLE[kind])
    if isinstance(late, TimedOut):
        assert (late.phase, late.deadline_s, late.evidence) == ("warm_up", 900.0, EVIDENCE)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (diagnosis("nccl", "serve"), Crashed),
        (diagnosis("nccl", "warm_up"), Crashed),
        (diagnosis("nccl", "connect"), Infrastructure),
        (diagnosis("checkpoint", "download", "disk"), Infrastructure),
        (diagnosis("config", "launch", "GPU visibility"), Infrastructure),
        (diagnosis("config", "launch", "input length limited by max_num_tokens"), BadConfig),
    ],
)
def test_where_the_kind_alone_does_not_tell(found: Diagnosis, outcome: type) -> None:
    assert type(outcome_of(found)) is outcome


def test_how_the_process_ended_is_told() -> None:
    for code, words in ((-9, "by signal 9"), (137, "by signal 9"), (1, "with exit code 1"), (0, "with exit code 0")):
        outcome = outcome_of(diagnosis("unknown", None), Death(phase="load", exit_code=code))
        assert isinstance(outcome, Crashed)
        assert (outcome.phase, outcome.reason) == ("load", f"What happened. The process ended {words}.")


def test_a_shortfall_is_never_zero() -> None:
    """Said, else by how much the budget was below zero, else one piece of device memory."""
    said = diagnosis("oom", tried_gib=1.5, free_gib=0.25, short_gib=1.25)
    below = diagnosis("insufficient_kv", "kv_allocate", "KV cache", free_gib=-2.5)
    nothing = diagnosis("oom", tried_gib=1.0)
    fragmented = diagnosis("oom", tried_gib=1.0, free_gib=2.0, short_gib=0.0)
    found = [outcome_of(each) for each in (said, below, nothing, fragmented)]
    assert [each.short_gib for each in found if isinstance(each, OutOfMemory)] == [
        1.25,
        2.5,
        LEAST_SHORT_GIB,
        LEAST_SHORT_GIB,
    ]
    assert isinstance(found[0], OutOfMemory)
    assert (found[0].tried_gib, found[0].free_gib) == (1.5, 0.25)


SPELLINGS = {
    "Model": ("load", 0),
    "model": ("load", 0),
    "model weights": ("load", 0),
    "model weights (post-load pass, such as FP8 scale resmoothing)": ("load", 0),
    "Additional executor resources (temporary for KV cache size estimation)": ("kv_estimate", 1),
    "Additional executor resources (temporary for KV cache size estimation): NCCL communicator": ("kv_estimate", 1),
    "_no_capture_init_extra_resources": ("kv_estimate", 1),
    "Model resources created during usage": ("kv_estimate", 2),
    "model_extra": ("kv_estimate", 2),
    "KV cache": ("kv_allocate", 3),
    "kv_cache": ("kv_allocate", 3),
    "KV cache (50.31 GiB pool)": ("kv_allocate", 3),
    "Additional executor resources": ("warm_up", 4),
    "executor_extra": ("warm_up", 4),
    "CUDA graphs": ("warm_up", 4),
    "activations": ("serve", 5),
    "sampler": ("serve", 5),
}


@pytest.mark.parametrize("component", SPELLINGS)
def test_one_name_for_one_stage(component: str) -> None:
    phase, place = SPELLINGS[component]
    assert (phase, law_component(phase, component)) == STAGES[place]  # type: ignore[arg-type]


def test_other_components_keep_their_names() -> None:
    for phase, component in (("load", "draft model weights"), ("load", "Sampler"), ("connect", "NCCL communicator")):
        assert law_component(phase, component) == component  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.path.name)
def test_every_log_has_an_outcome_with_evidence(case: LogCase) -> None:
    found = diagnose_lines(case.lines)
    outcome = outcome_of(found, Death(phase="load", exit_code=1))
    assert outcome.evidence == found.evidence
    if isinstance(outcome, OutOfMemory) and case.short_gib:
        assert outcome.short_gib == pytest.approx(case.short_gib, abs=0.05)
        assert outcome.tried_gib is not None
        assert outcome.free_gib is not None
        assert outcome.tried_gib - outcome.free_gib == pytest.approx(outcome.short_gib, abs=1e-3)
