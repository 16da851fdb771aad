"""`calibrate`: the twin's constants fitted to the launches of studies, kept for the next ones on the same hardware.

Memory first, by the frontier that every study fits anyway; then times, with the memory so found, against the twin's own
simulation of each benchmark. Of another model than those that were launched only the times are believed: what a law of
memory is wrong about may be the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.app.calibration import NO_CALIBRATION, said_in
from advisor.app.forecast import Forecaster
from advisor.domain.calibration import Calibration, FitError, FittedConstant, MedianError
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.objective import Objective, parse_slo
from advisor.domain.strict import changed, unknown_name
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.memory.frontier import FITTED_ERROR, Frontier
from advisor.search.expectation import log_measured
from advisor.search.kinship import distance
from advisor.search.loads import at_load
from advisor.search.prior import OBJECTIVE, outputs
from advisor.store import catalog
from advisor.store.run_card import CARD, RunCard, read_card
from advisor.store.trial_folder import committed
from advisor.twin.calibration import Fitted, Readings, that_matter
from advisor.twin.calibration import fit as fit_times
from advisor.twin.constants import ABSOLUTE_ERROR, KNOWN_ERROR, NOMINAL, TIME_ERROR, TwinConstants
from advisor.twin.predict import TablesFor, metrics_of

Array = NDArray[np.float64]

RATE = Objective(metric="output_tok_per_s")
OUTPUTS = outputs(parse_slo("ttft:mean<1s,tpot:mean<1s"))  # whatever the limits
TITLES = {OBJECTIVE: RATE.metric}
SENSES = np.array([-1.0 if name == OBJECTIVE else 1.0 for name in OUTPUTS])


@dataclass(frozen=True)
class StudiedRun:
    """A run with its finished trials."""

    folder: Path
    card: RunCard
    records: tuple[TrialRecord, ...]


@dataclass(frozen=True)
class Benchmark:
    """One workload that one launch served to its end."""

    run: StudiedRun
    record: TrialRecord
    workload: Workload
    outcome: WorkloadOutcome

    @property
    def log_measured(self) -> Array:
        """By output, NaN where one is not defined, shape (3,)."""
        return np.array([log_measured(name, self.outcome, RATE) for name in OUTPUTS])


def calibrate(folders: Sequence[Path], tables_for: TablesFor = catalog.step_tables) -> Calibration:
    """Fit the twin's constants to the finished trials of runs, whether these go on or not.

    Args:
        folders: `results/<study>/<run>/`, or `results/<study>/` for all of its runs; of one engine, release, GPU and
            source.
        tables_for: Step tables of a deployment.

    Raises:
        BadInput: no such run, nothing measured in it, no twin of its model, or runs that do not belong together.
    """
    runs = [StudiedRun(run, read_card(run), tuple(committed(run))) for folder in folders for run in _runs(folder)]
    first = runs[0].card
    for run in runs[1:]:
        _check_alike(runs[0], run)
    benchmarks = [each for run in runs for each in _benchmarks(run)]
    if not benchmarks:
        raise BadInput(
            f"Nothing to fit in {', '.join(map(str, folders))}: no finished trial served a workload to its end."
        )
    frontier = said_in(runs).frontier
    remembering = frontier.constants(NOMINAL)

    def logs(constants: TwinConstants) -> Array:
        return _simulated(benchmarks, constants, tables_for).reshape(-1)

    names = that_matter(logs, remembering, tuple(TIME_ERROR))
    fitted = fit_times(_readings(benchmarks), logs, remembering, names)
    errors = _errors(benchmarks, fitted.constants, tables_for)
    return Calibration(
        source=first.source,
        engine_label=first.engine_label,
        engine=first.deployment.engine,
        engine_version=first.deployment.engine_version,
        gpu=first.deployment.gpu,
        deployments=tuple(dict.fromkeys(run.card.deployment for run in runs)),
        runs=tuple(str(run.folder) for run in runs),
        n_launches=len({(each.run.folder, each.record.number) for each in benchmarks}),
        constants=(*_time_constants(names, fitted), *_memory_constants(frontier, fitted.constants)),
        median_errors=_medians(errors),
        errors=errors,
    )


def _runs(folder: Path) -> list[Path]:
    """The folder itself where it is a run, else the runs in it."""
    found = [folder] if (folder / CARD).is_file() else sorted(card.parent for card in folder.glob(f"*/{CARD}"))
    if not found:
        raise BadInput(f"{folder} is no run: give results/STUDY/RUN, a folder with {CARD} and trials/.")
    return found


def calibrated(found: Calibration | None, deployment: Deployment) -> TwinConstants:
    """The constants with which the twin plays a deployment: nominal where nothing was calibrated.

    Raises:
        BadInput: a constant that this version does not know.
    """
    if found is None:
        return NOMINAL
    known = any(distance(each, deployment) == 0 and each.model == deployment.model for each in found.deployments)
    for constant in found.constants:
        if constant.name not in KNOWN_ERROR:
            raise unknown_name("constant in a calibration", constant.name, KNOWN_ERROR)
    believed = {each.name: each.fitted for each in found.constants if known or each.part == "time"}
    return replace(NOMINAL, **believed)


def label_of(found: Calibration | None) -> str:
    """Whose launches the twin's constants were fitted to, in words, or `none`."""
    return NO_CALIBRATION if found is None else found.label


def _check_alike(one: StudiedRun, other: StudiedRun) -> None:
    a, b = ((r.card.deployment.engine, r.card.deployment.engine_version, r.card.deployment.gpu) for r in (one, other))
    labels = one.card.engine_label, other.card.engine_label
    if a != b or one.card.source != other.card.source or (one.card.source == "simulated" and len(set(labels)) > 1):
        raise BadInput(
            f"{one.folder} ({' '.join(a)}, {labels[0]}) and {other.folder} ({' '.join(b)}, {labels[1]}) do not belong "
            "together: calibrate each engine, release, GPU and source by itself."
        )


def _benchmarks(run: StudiedRun) -> list[Benchmark]:
    found = []
    for record in run.records:
        for workload in run.card.workloads:
            outcome = record.workload(workload.name)
            if outcome is not None and outcome.metrics is not None:
                found.append(Benchmark(run, record, at_load(workload, outcome.concurrency), outcome))
    return found


def _readings(benchmarks: Sequence[Benchmark]) -> Readings:
    n, m = len(benchmarks), len(OUTPUTS)
    return Readings(
        logs=np.concatenate([each.log_measured for each in benchmarks]),
        kinds=np.tile(np.arange(m), n),
        runs=np.repeat(np.arange(n), m),
        senses=np.tile(SENSES, n),
    )


def _simulated(benchmarks: Sequence[Benchmark], constants: TwinConstants, tables_for: TablesFor) -> Array:
    """Logarithms of what the twin says of each benchmark, NaN where it could not serve, shape (n, 3)."""
    forecasters = {
        each.run.folder: Forecaster(
            each.run.card.deployment, each.run.card.workloads, constants=constants, tables_for=tables_for
        )
        for each in benchmarks
    }
    return np.stack([_played(forecasters[each.run.folder], each) for each in benchmarks])


def _played(forecaster: Forecaster, benchmark: Benchmark) -> Array:
    """The same requests in virtual time, whether memory would allow them or not: it did."""
    deployment, config, outcome = benchmark.run.card.deployment, benchmark.record.config, benchmark.outcome
    assert outcome.metrics is not None
    n_requests = outcome.metrics.n_requests
    try:
        run = forecaster.twin.simulate(deployment, config, benchmark.workload, n_requests=n_requests, seed=outcome.seed)
    except BadInput:  # a KV pool predicted too small for a request
        return np.full(len(OUTPUTS), np.nan)
    deployed = deployment.with_options(config.options)
    simulated = changed(outcome, metrics=metrics_of(run, deployed.gpus, deployed.stream_interval))
    return np.array([log_measured(name, simulated, RATE) for name in OUTPUTS])


def _time_constants(names: Sequence[str], fitted: Fitted) -> list[FittedConstant]:
    """Fitted ones, and those that moved nothing as they were."""
    sds, found = dict(zip(names, fitted.sd.tolist(), strict=True)), []
    for name, sigma in TIME_ERROR.items():
        at, sd = float(getattr(fitted.constants, name)), sds.get(name, 1.0)
        unit = sigma * (1.0 if name in ABSOLUTE_ERROR else at)
        found.append(_constant(name, "time", at, sd * unit, 1.0 - sd**2))
    return found


def _memory_constants(frontier: Frontier, constants: TwinConstants) -> list[FittedConstant]:
    """The frontier is linear in relative errors, and lets a surprising constant become less certain than assumed."""
    found = []
    for (name, sigma), variance in zip(FITTED_ERROR.items(), np.diag(frontier.covariance), strict=False):
        sd = math.sqrt(variance) * math.sinh(sigma) * getattr(NOMINAL, name)
        found.append(_constant(name, "memory", float(getattr(constants, name)), sd, 1.0 - float(variance)))
    return found


def _constant(name: str, part: Literal["time", "memory"], fitted: float, sd: float, pinned: float) -> FittedConstant:
    pinned = min(1.0, max(0.0, pinned))
    return FittedConstant(
        name=name, part=part, nominal=float(getattr(NOMINAL, name)), fitted=fitted, sd=sd, pinned=pinned
    )


def _errors(benchmarks: Sequence[Benchmark], constants: TwinConstants, tables_for: TablesFor) -> tuple[FitError, ...]:
    measured = np.stack([each.log_measured for each in benchmarks])
    before, after = (np.expm1(_simulated(benchmarks, each, tables_for) - measured) for each in (NOMINAL, constants))
    return tuple(
        FitError(
            run=str(each.run.folder),
            trial=each.record.number,
            workload=each.workload.name,
            before=_by_output(before[row]),
            after=_by_output(after[row]),
        )
        for row, each in enumerate(benchmarks)
    )


def _by_output(errors: Array) -> dict[str, float]:
    """By name, those that are defined."""
    named = zip(OUTPUTS, errors.tolist(), strict=True)
    return {TITLES.get(name, name): error for name, error in named if math.isfinite(error)}


def _medians(errors: Sequence[FitError]) -> tuple[MedianError, ...]:
    found = []
    for output in (TITLES.get(name, name) for name in OUTPUTS):
        before, after = (
            [abs(error[output]) for each in errors if output in (error := getattr(each, when))]
            for when in ("before", "after")
        )
        if before and after:
            found.append(MedianError(output=output, before=float(np.median(before)), after=float(np.median(after))))
    return tuple(found)
