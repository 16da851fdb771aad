"""What a verification says: its documents, and the judgement of one launch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from advisor.app.exporting import read_json
from advisor.app.manifest import RESULT_NAME
from advisor.app.result_folders import sha256
from advisor.domain.errors import BadInput
from advisor.domain.measurement import EffectiveSettings, Metrics, Source
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import Soak, TrialRecord
from advisor.metrics.verdict import Change, Decision

VERIFIED = "verify.json"
SAME_KV = 0.02  # of the KV pool's tokens between two starts

Verdict = Literal["PASS", "DRIFT", "FAIL"]


class TestedMetric(StrictModel):
    """A metric that decides, as of the last look."""

    metric: str
    n_reference: int = Field(description="Launches behind the result, with those of earlier verifications")
    n_launches: int
    decision: Decision


class LimitCheck(StrictModel):
    """One limit of the workload."""

    limit: str
    limit_ms: float
    mean_ms: float
    state: Literal["kept", "edge", "broken"] = Field(description="`edge`: above the limit within noise")


class VerifyLaunch(StrictModel):
    """One launch of the verification."""

    seed: int
    ending: str
    metrics: Metrics | None


class Verification(StrictModel):
    """`verify.json`: one workload's winner, verified."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    direction: Literal["same", "slower", "faster"] | None = Field(description="null: it never came to a comparison")
    reasons: tuple[str, ...] = Field(description="What failed or drifted, in words")
    comparison: Literal["like_with_like", "prediction"] = Field(
        description="`prediction`: one side is simulated, and agreement is no confirmation of a measurement"
    )
    differences: tuple[str, ...] = Field(description="Of engine, release or GPU, against the result")
    notes: tuple[str, ...] = ()
    folder: str
    workload_name: str
    source: Source
    label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    result_label: str
    result_sha256: str
    serving_config: ServingConfig
    tested: tuple[TestedMetric, ...] = ()
    limits: tuple[LimitCheck, ...] = ()
    changes: tuple[Change, ...] = Field(default=(), description="Of every metric, for information")
    memory: tuple[Change, ...] = ()
    soak: Soak | None = Field(
        default=None, description="The heaviest load of the workload once more, where the result survived its soak"
    )
    launches: tuple[VerifyLaunch, ...]
    max_launches: int
    reference: tuple[Metrics, ...] = Field(description="What the next verification compares with, one a launch")
    n_ever: int = Field(ge=0, description="Launches of all verifications so far: none shares a seed with another")
    date: str


class VerifyReport(StrictModel):
    """`advisor verify --output json`: every workload of the folder, and the worst of their verdicts."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    workloads: tuple[Verification, ...] = Field(min_length=1)


def unlike(then: EffectiveSettings | None, now: EffectiveSettings | None, *, capacity: bool) -> list[str]:
    """What the server uses other than it did; nothing where one side does not tell.

    Args:
        then: Of the result.
        now: Of the verification.
        capacity: Hold KV tokens and graph sizes against each other too, which are no choice but follow from memory.
    """
    if then is None or now is None:
        return []
    names = ["max_batch_size", "max_num_tokens", "max_seq_len"]
    names += ["cuda_graph_sizes"] if capacity else []
    found = [
        f"the effective {name} is {getattr(now, name)}, it was {getattr(then, name)}"
        for name in names
        if getattr(now, name) != getattr(then, name)
    ]
    if capacity and abs(now.kv_tokens - then.kv_tokens) > SAME_KV * then.kv_tokens:
        found.append(f"the KV pool holds {now.kv_tokens:,} tokens, it held {then.kv_tokens:,}")
    return found


def drift_text(tested: TestedMetric) -> str:
    """One drift in words; the ratio is a gain, below 1 is worse."""
    ratio = tested.decision.ratio
    return (
        f"{tested.metric} is {tested.decision.direction}: {100 * (ratio.estimate - 1):+.1f} % "
        f"({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f} %)"
    )


def seen(record: TrialRecord) -> VerifyLaunch:
    """A launch as it is kept."""
    metrics = record.workloads[0].metrics if record.workloads else None
    return VerifyLaunch(seed=record.seed, ending=record.ending, metrics=metrics)


def last_verification(folder: Path) -> Verification | None:
    """The last verification of this very result, None where there is none.

    Raises:
        BadInput: it is damaged.
    """
    path = folder / VERIFIED
    if not path.is_file():
        return None
    try:
        found = read_json(Verification, path)
    except BadInput as error:
        raise BadInput(f"{error} Remove {path} to begin anew: the result itself is whole.") from None
    return found if found.result_sha256 == sha256(folder / RESULT_NAME) else None
