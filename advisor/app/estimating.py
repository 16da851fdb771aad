"""`estimate` and `plan`: what the twin predicts, without a launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from advisor.app.baseline_choice import choose_baselines
from advisor.app.calibrate import calibrated, label_of
from advisor.app.calibration import UNTAUGHT, Taught, launches_of, taught_below
from advisor.app.energy import check_measurable
from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.app.setup import Question, Resolved, resolve
from advisor.domain.calibration import Calibration
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput, NothingFeasible
from advisor.domain.measurement import Source
from advisor.domain.objective import Objective, Slo
from advisor.domain.outcome import Unhealthy
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed, parse
from advisor.domain.workload import Workload
from advisor.memory.pricing import Price
from advisor.search.admission import LEAST_P_FITS
from advisor.search.space import all_configs, completed
from advisor.store.calibrations import calibration_below

RERANKED = 60  # the approximate ranking's best, simulated exactly before they are shown


class Estimate(Prediction):
    """`advisor estimate --output json`: a prediction with what it is about."""

    schema_version: Literal[1] = 1
    source: Source = "predicted"
    deployment: Deployment
    workload: Workload
    workload_name: str
    serving_config: ServingConfig
    expected_shortfall_gib: float = Field(
        ge=0, description="GiB missing on average at the tightest moment, counting where it fits as missing none"
    )
    prices: tuple[Price, ...] = Field(
        default=(),
        description="What a step of each setting is worth, by the memory law and the launches known",
    )
    twin_calibration: str = Field(default="none", description="Launches that the twin's constants were fitted to")


class PlanRow(StrictModel):
    """One configuration of a plan."""

    serving_config: ServingConfig
    prediction: Prediction
    keeps_slo: bool


class Plan(StrictModel):
    """`advisor plan --output json`: the space ranked for one workload."""

    schema_version: Literal[1] = 1
    source: Source = "predicted"
    study: str
    deployment: Deployment
    workload: Workload
    workload_name: str
    objective: Objective
    slo: Slo
    searched: dict[str, int] = Field(description="Dimensions of the space and the steps of each")
    conditions: tuple[str, ...] = Field(description="Conditions between them, in words")
    n_configs: int = Field(description="Distinct configurations of the space")
    n_fit: int = Field(description="Of those, how many the memory law lets run and the workload can use")
    rows: tuple[PlanRow, ...]
    baseline: PlanRow
    twin_calibration: str = Field(default="none", description="Launches that the twin's constants were fitted to")


def estimate(
    deployment: Deployment, workload: Workload, serving_config: ServingConfig | Sequence[ServingConfig]
) -> Estimate | list[Estimate]:
    """Predict one configuration, or many.

    Raises:
        BadInput: unknown model, GPU or release, an impossible layout or workload.
    """
    estimator = Estimator(deployment, workload)
    deployment.check_model(estimator.nominal.facts)
    deployment.check_workload(workload, estimator.nominal.facts)
    if isinstance(serving_config, ServingConfig):
        return estimator(serving_config)
    return [estimator(each) for each in serving_config]


class Estimator:
    """Estimates of one workload: the twin as it is calibrated, and the memory law as earlier launches left it."""

    def __init__(
        self,
        deployment: Deployment,
        workload: Workload,
        slo: Slo | None = None,
        known: Taught = UNTAUGHT,
        calibration: Calibration | None = None,
    ) -> None:
        constants = calibrated(calibration, deployment)
        self.nominal = Forecaster(deployment, (workload,), slo, constants=constants)
        self.known, self.workload, self.twin_calibration = known, workload, label_of(calibration)
        self.fitted = self.nominal
        if known.n_launches:
            self.fitted = Forecaster(deployment, (workload,), slo, constants=known.frontier.constants(constants))

    def __call__(self, config: ServingConfig) -> Estimate:
        prediction, frontier = self.fitted.predict(config, self.workload), self.known.frontier
        margins_gib, J = self.nominal.slopes([config])
        fields = {name: getattr(prediction, name) for name in Prediction.model_fields}
        if self.known.n_launches:
            serves = not isinstance(prediction.failure, Unhealthy)
            fields["p_fits"] = float(frontier.p_fits(J, margins_gib)[0]) if serves else 0.0
            fields["calibration"] = self.known.label
        return Estimate(
            **fields,
            deployment=self.nominal.deployment.with_options(config.options),
            workload=self.workload,
            workload_name=self.workload.name,
            serving_config=config,
            expected_shortfall_gib=float(frontier.expected_shortfall_gib(J, margins_gib)[0]),
            prices=self.nominal.prices(config, frontier),
            twin_calibration=self.twin_calibration,
        )


def estimate_question(
    question: Question,
    settings: Mapping[str, OptionValue],
    results: Path | None = None,
    twin_world: int = 0,
    calibrations: Path | None = None,
) -> list[Estimate]:
    """Estimates for every workload of a question.

    Args:
        question: Deployment and workloads.
        settings: Those not given are the baseline's.
        results: Folder with studies whose launches of the same deployment correct the memory law; none for no such.
        twin_world: World whose simulated launches are meant; 0 for measured ones.
        calibrations: Folder with studies whose calibration of this engine, release and GPU is used; none for nominal.

    Raises:
        BadInput: also for settings that the engine would refuse, such as prompts that do not fit one step.
    """
    resolved = resolve(question)
    calibration = _calibration(resolved, calibrations, twin_world)
    forecaster, baseline = _baseline(resolved)
    four = {name: value for name, value in settings.items() if name in FOUR_SETTINGS}
    options = {**baseline.options, **{name: value for name, value in settings.items() if name not in FOUR_SETTINGS}}
    flat = {**baseline.model_dump(), **four, "options": options}
    config = parse(ServingConfig, flat, "settings")
    deployment, workloads = resolved.deployment, resolved.workloads
    violations = forecaster.dialect.violations(deployment, config, workloads, deployment.seq_len(workloads))
    refused = [violation.message for violation in violations if violation.severity == "error"]
    if refused:
        raise BadInput(f"settings: {refused[0]}")
    known, constants = UNTAUGHT, calibrated(calibration, deployment)
    if results is not None:
        known = taught_below(results, deployment, resolved.workloads, twin_world, constants)
    return [
        Estimator(deployment, workload, resolved.slo, known, calibration)(config) for workload in resolved.workloads
    ]


def plan_question(question: Question, top_n: int, calibrations: Path | None = None, twin_world: int = 0) -> list[Plan]:
    """The space ranked for every workload of a question; arguments as in `estimate_question`."""
    resolved = resolve(question)
    check_measurable(resolved.objective, "predicted", resolved.deployment.gpus)
    calibration = _calibration(resolved, calibrations, twin_world)
    _, baseline = _baseline(resolved)
    constants = calibrated(calibration, resolved.deployment)
    forecaster = Forecaster(resolved.deployment, resolved.workloads, resolved.slo, constants=constants)
    found = [plan(resolved, forecaster, baseline, workload, top_n) for workload in resolved.workloads]
    return [changed(each, twin_calibration=label_of(calibration)) for each in found]


def plan(resolved: Resolved, forecaster: Forecaster, baseline: ServingConfig, workload: Workload, top_n: int) -> Plan:
    """Rank everything approximately, simulate the best exactly, and show the top.

    Raises:
        NothingFeasible: no configuration of the space serves the workload.
    """
    configs = all_configs(resolved.space)
    ranking = forecaster.rank(configs, workload)
    order_found = best_first(log_scores(ranking, resolved.objective, resolved.slo, workload))
    if not order_found:
        raise NothingFeasible(
            f"no configuration of search space {resolved.space.name!r} serves {workload.name} on "
            f"{resolved.deployment.gpus} x {resolved.deployment.gpu}: {forecaster.nearest_miss(resolved.space)}"
        )
    likely = [place for place in order_found if ranking.p_fits[place] >= LEAST_P_FITS]
    shown = (likely or order_found)[: max(RERANKED, top_n)]
    rows = [_row(resolved, forecaster, configs[place], workload) for place in shown]
    rows = [row for row in rows if row.prediction.metrics is not None]
    sign = 1 if resolved.objective.direction == "minimize" else -1

    def order(row: PlanRow) -> tuple[bool, float]:
        assert row.prediction.metrics is not None
        value = resolved.objective.value(row.prediction.metrics)
        return not row.keeps_slo, np.inf if value is None else sign * value

    ranked = distinct_results(sorted(rows, key=order), resolved.objective)
    return Plan(
        study=resolved.study.name,
        deployment=resolved.deployment,
        workload=workload,
        workload_name=workload.name,
        objective=resolved.objective,
        slo=resolved.slo,
        searched={dimension.name: len(dimension.values) for dimension in resolved.space.active},
        conditions=tuple(condition.text for condition in resolved.space.conditions),
        n_configs=len(configs),
        n_fit=len(order_found),
        rows=tuple(ranked[:top_n]),
        baseline=_row(resolved, forecaster, baseline, workload),
    )


def distinct_results(rows: Sequence[PlanRow], objective: Objective) -> list[PlanRow]:
    """One row for configurations that come to the same, the one with most memory left."""
    best: dict[str, PlanRow] = {}
    for row in rows:
        assert row.prediction.metrics is not None
        value = objective.value(row.prediction.metrics)
        same = "undefined" if value is None else f"{value:.6g}"
        if same not in best or row.prediction.memory_gib.headroom > best[same].prediction.memory_gib.headroom:
            best[same] = row
    return list(best.values())


def _row(resolved: Resolved, forecaster: Forecaster, config: ServingConfig, workload: Workload) -> PlanRow:
    prediction = forecaster.predict(config, workload)
    keeps = prediction.metrics is not None and resolved.slo.met(prediction.metrics)
    return PlanRow(serving_config=config, prediction=prediction, keeps_slo=keeps)


def _calibration(resolved: Resolved, calibrations: Path | None, twin_world: int) -> Calibration | None:
    source, engine_label = launches_of(twin_world)
    if calibrations is None:
        return None
    return calibration_below(calibrations, resolved.deployment, source, engine_label)


def _baseline(resolved: Resolved) -> tuple[Forecaster, ServingConfig]:
    forecaster = Forecaster(resolved.deployment, resolved.workloads, resolved.slo)
    entries, launched = choose_baselines(resolved, (), forecaster)
    config = next(entry.config for entry in entries if entry.name == launched[0])
    assert config is not None
    return forecaster, completed(resolved.space, config, resolved.deployment)
