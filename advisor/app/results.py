"""What a study says in the end: the documents, one result per workload."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advisor.app.pareto import ParetoPoint
from advisor.app.rescue import RescueReport
from advisor.app.robustness import RobustChoice
from advisor.domain.answers import AnswerCheck
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import EffectiveSettings, LimitedBy, MemoryReport, Metrics, RefereeReport, Source
from advisor.domain.objective import Objective, Slo
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import Soak
from advisor.domain.workload import Workload
from advisor.memory.pricing import Price
from advisor.metrics.confidence import Interval
from advisor.search.loads import at_load
from advisor.search.misses import NearestMiss
from advisor.search.racing import MARGIN
from advisor.search.stopping import Outlook

Status = Literal["confirmed", "baseline_within_noise", "candidate", "nothing_feasible", "interrupted"]


class Counts(StrictModel):
    """What the study cost. `launches` counts process starts of the budget; rejected trials cost none."""

    trials: int
    launches: int
    oom: int
    rejected: int
    hopeless: int = Field(default=0, description="Launches of which a benchmark was stopped early")
    failed: int
    probes: int = Field(default=0, description="Starts for their memory only, apart from launches")
    reference: int = Field(default=0, description="Launches for later verifications, apart from the others")


class Confidence(StrictModel):
    """How the gain over the baseline was established, and how sure it is that nothing launched is better.

    What concerns the best is a probability under the model of `docs/decisions/confidence.md`, to which the twin
    belongs; the gain and its interval are of launches alone.
    """

    kind: Literal["remeasured", "single_run", "none"]
    level: float | None = None
    gain: float | None = Field(default=None, description="Winner over baseline in the objective, 1.0 = equal")
    interval: Interval | None = Field(default=None, description="Of the gain, from repeats; null without any")
    n_winner: int = 0
    n_baseline: int = 0
    p_best: float | None = Field(
        default=None, description="That no configuration launched is truly better by more than the margin"
    )
    margin: float = Field(default=MARGIN, description="A fraction; a smaller lead is no reason to change")
    is_best: bool = Field(default=False, description="Announced as best: `p_best` reaches 0.95 after a fresh start")
    tied_with: tuple[int, ...] = Field(
        default=(),
        description="Where it is not announced: first trials of the others that may be the best, at 95 %",
    )
    expected_distance: float | None = Field(
        default=None, description="To the best of the whole space, a fraction: a prediction; null where nobody can say"
    )
    drift: float | None = Field(
        default=None, description="Of the server's pace over the study, corrected for; null where none is certain"
    )


class ResultEntry(StrictModel):
    """One configuration with what it did, in the field names others rely on."""

    serving_config: ServingConfig
    memory_fraction_kind: Literal["of_free", "of_total", "bytes"]
    metrics: Metrics
    memory_gib: MemoryReport | None
    memory_residuals_gib: dict[str, float] = Field(
        default_factory=dict, description="Measured minus predicted, by component; empty where nothing was measured"
    )
    surprises: tuple[str, ...] = Field(default=(), description="What the server really uses other than asked")
    concurrency: int | None = Field(
        default=None, description="Requests in flight of these metrics, where the load was searched (goodput)"
    )
    limited_by: LimitedBy | None
    ci95: tuple[float, float] | None = Field(
        description="95 % interval of the objective, deviation pooled over all repeats; null without any"
    )
    trials: tuple[int, ...] = Field(description="Numbers of the trials behind it")
    repeats: tuple[Metrics, ...] = Field(default=(), description="Of each of these trials; `metrics` is their mean")
    effective: EffectiveSettings | None = Field(default=None, description="What the server really used")
    name: str | None = None


class BaselineEntry(StrictModel):
    """What the winner is compared with: the baseline asked for or, where that does not run, the nearest that does.

    The fields of a `ResultEntry` are null where nothing ran; `asked` and `outcome` tell of the baseline asked for.
    """

    name: str
    why: str
    asked: ServingConfig | None
    outcome: str = Field(description="How the launch of the baseline asked for ended")
    is_substitute: bool = Field(default=False, description="True when another configuration stands in for it")
    serving_config: ServingConfig | None = None
    memory_fraction_kind: Literal["of_free", "of_total", "bytes"] | None = None
    metrics: Metrics | None = None
    memory_gib: MemoryReport | None = None
    memory_residuals_gib: dict[str, float] = Field(default_factory=dict)
    surprises: tuple[str, ...] = ()
    concurrency: int | None = None
    limited_by: LimitedBy | None = None
    ci95: tuple[float, float] | None = None
    trials: tuple[int, ...] = ()
    repeats: tuple[Metrics, ...] = ()
    effective: EffectiveSettings | None = None

    @property
    def compared(self) -> ResultEntry | None:
        """The comparison as an entry, None where nothing ran."""
        if self.metrics is None or self.serving_config is None:
            return None
        return ResultEntry.model_validate({name: getattr(self, name) for name in ResultEntry.model_fields})

    @property
    def settings(self) -> ServingConfig | None:
        """Of the comparison; where nothing ran, as asked for."""
        return self.serving_config or self.asked


class PredictedRow(StrictModel):
    """A named baseline as the nominal twin predicts it, launched or not."""

    name: str
    why: str
    serving_config: ServingConfig | None
    prediction: Prediction | None


class ReferenceLaunch(StrictModel):
    """A further launch of the recommendation: nothing said of its speed comes from it, and verifications count it."""

    trial: int
    metrics: Metrics


class Result(StrictModel):
    """`result.json`: the recommendation for one workload."""

    schema_version: Literal[1] = 1
    status: Status
    source: Source
    label: str = Field(description="`measured on ...` or `simulated by the twin ...`")
    study: str
    engine: str
    engine_version: str
    twin_world: int = Field(default=0, ge=0, description="That the twin played; 0 is the nominal one")
    deployment: Deployment
    max_seq_len: int | None = Field(default=None, description="Of every launch: the study's longest request, tokens")
    workload: Workload
    workload_name: str
    objective: Objective
    slo: Slo
    best: ResultEntry | None
    baseline: BaselineEntry
    runner_up: ResultEntry | None
    top: tuple[ResultEntry, ...]
    predicted_baselines: tuple[PredictedRow, ...]
    confidence: Confidence
    nearest_miss: NearestMiss | None = Field(default=None, description="Where nothing is feasible: what came nearest")
    reference: tuple[ReferenceLaunch, ...] = Field(
        default=(), description="Launches of the best beyond `best.repeats`, behind a verification (`--verifiable`)"
    )
    noticeable_loss: float | None = Field(
        default=None,
        description="A fraction: with the launches behind the best, at the noise seen, a first verification notices a "
        "loss of so much in 99 % of cases; null without a best",
    )
    soak: Soak | None = Field(default=None, description="Of the best: the heaviest load that it survived")
    referee: dict[Literal["best", "baseline"], RefereeReport] = Field(
        default_factory=dict, description="The engine's own benchmark beside ours; empty on the twin"
    )
    prices: tuple[Price, ...] = Field(
        default=(), description="What a step of each setting is worth at the best, by the memory law and all launches"
    )
    pareto: tuple[ParetoPoint, ...] = Field(
        default=(), description="Of all trials and loads of these lengths: tok/s per GPU against tok/s per user"
    )
    decided_by_default: tuple[str, ...] = Field(
        default=(), description="Sentences on defaults, nobody's choice, that limit the result"
    )
    answers: AnswerCheck | None = Field(
        default=None, description="Where dimensions that can change answers were searched: whether they did"
    )
    counts: Counts
    stopped_by: str
    seed: int
    sampler: str

    @property
    def served(self) -> Workload:
        """The workload at the load of the best: its own, or the one that was found."""
        return at_load(self.workload, None if self.best is None else self.best.concurrency)


class StudySummary(StrictModel):
    """`summary.json` and `advisor tune --output json`: all workloads of a study together."""

    schema_version: Literal[1] = 1
    study: str
    run: str
    source: Source
    label: str
    stopped_by: str
    counts: Counts
    duration_s: float = Field(description="Launch and load of all trials, seconds; virtual on the twin")
    results: tuple[Result, ...]
    robust: RobustChoice | None = Field(
        default=None, description="One configuration for all workloads; null for one workload, or where none serves all"
    )
    outlook: Outlook | None = Field(
        default=None, description="Of one more hour, where the sampler said what it expects"
    )
    pareto: tuple[ParetoPoint, ...] = Field(default=(), description="The trade-off of each shape over all its loads")
    calibration: str = Field(default="none", description="Earlier launches that taught the memory law, and where")
    twin_calibration: str = Field(default="none", description="Launches that the twin's constants were fitted to")
    kernels: str | None = Field(
        default=None, description="Engine and release whose kernel times the twin goes by; null where it has none"
    )
    rescue: RescueReport | None = Field(default=None, description="Of `--rescue` only")
    taught_by: tuple[str, ...] = Field(default=(), description="Earlier runs that the search learnt from, in words")
    unmodelled: str | None = Field(
        default=None, description="What the twin does not know of the deployment, so that nothing was predicted"
    )

    @property
    def feasible(self) -> bool:
        """True when at least one workload has a winner."""
        return any(result.best is not None for result in self.results)
