"""One trial: one server launch, watched and benchmarked on every workload."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.answers import GreedyAnswers
from advisor.domain.measurement import EffectiveSettings, MemoryReport, ProfiledMemory, Source, WorkloadOutcome
from advisor.domain.outcome import Hopeless, Infrastructure, Measured, Outcome, OutOfMemory, Rejected, summary
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel

Role = Literal["baseline", "start", "search", "probe", "confirmation", "reference"]
"""Two of them are beside the budget of launches. A `probe` starts, reads memory and stops: it is never a winner. A
`reference` launches the recommendation once more, for later verifications: it decides nothing unless it fails."""


class PhaseTiming(StrictModel):
    """Time one phase of a launch took; virtual seconds on the twin."""

    name: str
    duration_s: float = Field(ge=0)
    held: bool = Field(
        default=False,
        description="Its process had imported beforehand (`--hold-next`): not to be compared with one that had not",
    )


class Soak(StrictModel):
    """A launch under the heaviest load of its study, with every request as long as its longest."""

    survived: bool
    n_requests: int = Field(ge=1)
    tokens_per_request: int = Field(ge=1, description="Prompt plus output")
    concurrency: int | None = Field(default=None, description="Requests in flight; none under a request rate")
    free_gib: float | None = Field(default=None, description="Least memory left on the fullest GPU; null if unknown")


class TrialRecord(StrictModel):
    """All that a trial showed: written to `trials/<number>/outcome.json`, which is its commit point."""

    schema_version: Literal[1] = 1
    number: int = Field(ge=0)
    role: Role
    origin: str = Field(description="Who proposed it, in words: `baseline guide`, `tpe`, `twin rank 2` ...")
    config: ServingConfig
    source: Source
    engine_label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    seed: int
    outcome: Outcome
    workloads: tuple[WorkloadOutcome, ...] = ()
    phases: tuple[PhaseTiming, ...] = ()
    effective: EffectiveSettings | None = None
    memory_predicted_gib: MemoryReport | None = None
    memory_measured_gib: MemoryReport | None = None
    profiled_gib: ProfiledMemory | None = None
    surprises: tuple[str, ...] = Field(default=(), description="What the server really uses, other than asked")
    answers: GreedyAnswers | None = Field(
        default=None, description="To fixed prompts, where a dimension that can change answers is searched"
    )
    soak: Soak | None = Field(default=None, description="Of a launch that was to win")
    expected_gain: float | None = Field(
        default=None, description="What its proposer expected of it, as a fraction of the incumbent; null if unsaid"
    )
    n_attempts: int = Field(default=1, ge=0, description="Process starts it cost; 0 when rejected")

    @property
    def launched(self) -> bool:
        """True when a process was started for it."""
        return not isinstance(self.outcome, Rejected)

    @property
    def measured(self) -> bool:
        """True when every workload has metrics that count."""
        return isinstance(self.outcome, Measured)

    @property
    def served(self) -> bool:
        """True when its server did all it was asked, though a hopeless benchmark may have been stopped."""
        return isinstance(self.outcome, (Measured, Hopeless))

    @property
    def ending(self) -> str:
        """How it ended in one clause; a success on the twin reads `simulated`, never `measured`."""
        return self.source if self.measured else summary(self.outcome)

    @property
    def out_of_memory(self) -> bool:
        """True when it ran out of GPU memory."""
        return isinstance(self.outcome, OutOfMemory)

    @property
    def infrastructure(self) -> bool:
        """True when it says nothing about its configuration."""
        return isinstance(self.outcome, Infrastructure)

    @property
    def duration_s(self) -> float:
        """Launch and load together, seconds (virtual on the twin)."""
        return sum(phase.duration_s for phase in self.phases)

    def workload(self, name: str) -> WorkloadOutcome | None:
        """The outcome of one workload by its short name."""
        return next((outcome for outcome in self.workloads if outcome.workload == name), None)
