"""`compare`: two results, and which of their differences are real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advisor.app.changes import memory_changes, metric_changes, others_of, reference_of
from advisor.app.result_folders import max_seq_len_of, read_result, result_folders, spelled
from advisor.app.results import Result
from advisor.app.verification import last_verification
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics, Source
from advisor.domain.strict import StrictModel
from advisor.metrics.verdict import Change

FIXED_FIELDS = ("engine", "engine_version")  # told once, with the results


class Compared(StrictModel):
    """One of the two sides under one workload."""

    folder: str
    workload_name: str
    study: str
    source: Source
    label: str
    engine: str
    engine_version: str
    status: str
    n_launches: int = Field(description="Behind the numbers of its best; 0 where it has none")


class Difference(StrictModel):
    """One setting, field or key here and there, as text; null where one side does not have it."""

    name: str
    a: str | None
    b: str | None


class WorkloadComparison(StrictModel):
    """One workload: differences of B against A."""

    a: Compared
    b: Compared
    caveats: tuple[str, ...] = Field(description="Why they are not like with like; empty where they are")
    settings: tuple[Difference, ...] = Field(description="Of the best configurations, in neutral names")
    keys: tuple[Difference, ...] = Field(description="Of the configuration files, as each release spells them")
    environment: tuple[Difference, ...] = Field(description="Engine, release and deployment")
    changes: tuple[Change, ...] = Field(description="Metrics of the best; empty where one side has none")
    memory: tuple[Change, ...]

    @property
    def n_real(self) -> int:
        """Metrics that differ beyond noise."""
        return sum(each.kind == "real" for each in self.changes)


class Comparison(StrictModel):
    """`advisor compare A B --output json`."""

    schema_version: Literal[1] = 1
    a: str
    b: str
    workloads: tuple[WorkloadComparison, ...] = Field(min_length=1)
    only_a: tuple[str, ...] = Field(description="Workloads that B does not have")
    only_b: tuple[str, ...]


def compare(a: Path, b: Path) -> Comparison:
    """Hold two results, or all workloads of two runs, against each other.

    A single workload on each side is compared even where the two are not the same, and that is said.

    Raises:
        BadInput: no result, a damaged one, or no workload in common.
    """
    ours, theirs = _read(a), _read(b)
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    if not pairs and len(ours) == len(theirs) == 1:
        one, other = *ours.values(), *theirs.values()
        return Comparison(a=str(a), b=str(b), workloads=(_compared(one, other),), only_a=(), only_b=())
    if not pairs:
        raise BadInput(
            f"{a} ({', '.join(ours)}) and {b} ({', '.join(theirs)}) have no workload in common: name one workload's "
            "folder of each."
        )
    return Comparison(
        a=str(a),
        b=str(b),
        workloads=tuple(_compared(*pair) for pair in pairs),
        only_a=tuple(name for name in ours if name not in theirs),
        only_b=tuple(name for name in theirs if name not in ours),
    )


def _read(path: Path) -> dict[str, tuple[Path, Result]]:
    """Results by the name of their workload."""
    found = [(folder, read_result(folder)) for folder in result_folders(path)]
    return {result.workload_name: (folder, result) for folder, result in found}


def _compared(a: tuple[Path, Result], b: tuple[Path, Result]) -> WorkloadComparison:
    (folder_a, ours), (folder_b, theirs) = a, b
    both = None if ours.best is None or theirs.best is None else (ours.best, theirs.best)
    return WorkloadComparison(
        a=_side(folder_a, ours),
        b=_side(folder_b, theirs),
        caveats=_caveats(ours, theirs),
        settings=() if both is None else _differences(both[0].serving_config.flat(), both[1].serving_config.flat()),
        keys=() if both is None else _differences(_keys(folder_a, ours), _keys(folder_b, theirs)),
        environment=_differences(_environment(ours), _environment(theirs)),
        changes=()
        if both is None
        else metric_changes(_runs(folder_a, ours), _runs(folder_b, theirs), (*others_of(ours), *others_of(theirs))),
        memory=()
        if both is None
        else memory_changes((both[0].memory_gib, both[0].effective), (both[1].memory_gib, both[1].effective)),
    )


def _side(folder: Path, result: Result) -> Compared:
    return Compared(
        folder=str(folder),
        workload_name=result.workload_name,
        study=result.study,
        source=result.source,
        label=result.label,
        engine=result.engine,
        engine_version=result.engine_version,
        status=result.status,
        n_launches=0 if result.best is None else len(_runs(folder, result)),
    )


def _runs(folder: Path, result: Result) -> tuple[Metrics, ...]:
    """Launches of the best, with those of the verifications that passed."""
    verified = last_verification(folder)
    return reference_of(result) if verified is None else verified.reference


def _caveats(a: Result, b: Result) -> tuple[str, ...]:
    found = []
    if a.source != b.source:
        found.append(
            f"A is {a.source}, B is {b.source}: no difference below is one between two measurements, and an interval "
            "does not hold the error of the twin, which is within 20 %."
        )
    if a.served != b.served:
        found.append(f"The loads differ: A is {a.served.name}, B is {b.served.name}.")
    if a.deployment.gpus != b.deployment.gpus:
        found.append(
            f"A runs on {a.deployment.gpus} GPUs, B on {b.deployment.gpus}: output_tok_per_s is of all of them."
        )
    if a.slo != b.slo:
        found.append(f"The limits differ: A keeps {a.slo.text or 'none'}, B keeps {b.slo.text or 'none'}.")
    if a.objective.metric != b.objective.metric:
        found.append(f"A was tuned for {a.objective.metric}, B for {b.objective.metric}.")
    for name, result in (("A", a), ("B", b)):
        if result.best is None:
            found.append(f"{name} found no configuration that serves its workload.")
        elif result.status == "candidate":
            found.append(f"{name} is a candidate: it was picked for one high run, which is high partly by luck.")
    return tuple(found)


def _keys(folder: Path, result: Result) -> Mapping[str, Any]:
    return spelled(result, max_seq_len_of(folder, result))


def _environment(result: Result) -> dict[str, Any]:
    """What a study holds fixed, and who measured."""
    fixed = result.deployment.model_dump(mode="json", exclude=set(FIXED_FIELDS))
    options = fixed.pop("engine_options")
    return {"engine": result.engine, "engine_version": result.engine_version, "label": result.label, **fixed, **options}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Names whose values differ, in the order of A and then of B."""
    names = dict.fromkeys([*a, *b])
    texts = [(name, _text(a, name), _text(b, name)) for name in names]
    return tuple(Difference(name=name, a=ours, b=theirs) for name, ours, theirs in texts if ours != theirs)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
