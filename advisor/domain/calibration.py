"""What a calibration is: the twin's constants as fitted to launches, how sure they are, and what the fit left."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.domain.deployment import Deployment
from advisor.domain.measurement import Source
from advisor.domain.strict import StrictModel


class FittedConstant(StrictModel):
    """One constant of the twin."""

    name: str
    part: Literal["time", "memory"]
    nominal: float
    fitted: float
    sd: float = Field(ge=0, description="Standard deviation of the fitted value, in its own unit")
    pinned: float = Field(ge=0, le=1, description="Share of the variance assumed before that the launches removed")


class FitError(StrictModel):
    """Predicted over measured - 1 of one benchmark, with the nominal constants and with the fitted ones."""

    run: str
    trial: int = Field(ge=0)
    workload: str
    before: dict[str, float] = Field(description="By output: output_tok_per_s, ttft:mean, tpot:mean")
    after: dict[str, float]


class MedianError(StrictModel):
    """Median of the absolute errors of one output over all benchmarks of the fit."""

    output: str
    before: float = Field(ge=0)
    after: float = Field(ge=0)


class Calibration(StrictModel):
    """`calibration/<engine>-<release>-<gpu>.json`: the twin's constants on one engine, release and GPU."""

    schema_version: Literal[1] = 1
    source: Source
    engine_label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    engine: str
    engine_version: str
    gpu: str
    deployments: tuple[Deployment, ...] = Field(min_length=1, description="Whose launches it was fitted to")
    runs: tuple[str, ...] = Field(min_length=1, description="Their folders")
    n_launches: int = Field(ge=1)
    constants: tuple[FittedConstant, ...]
    median_errors: tuple[MedianError, ...]
    errors: tuple[FitError, ...]

    @property
    def label(self) -> str:
        """`8 launches in a/b`."""
        launches = "1 launch" if self.n_launches == 1 else f"{self.n_launches} launches"
        return f"{launches} in {', '.join(self.runs)}"

    def is_about(self, deployment: Deployment) -> bool:
        """True on the engine, release and GPU that it was fitted on."""
        theirs = self.engine, self.engine_version, self.gpu
        return theirs == (deployment.engine, deployment.engine_version, deployment.gpu)

    def is_of(self, source: Source, engine_label: str) -> bool:
        """True of launches of this source; what one world of the twin showed says nothing of another one."""
        return self.source == source and (source == "measured" or self.engine_label == engine_label)
