"""Who leads: measured configurations of a study, ordered by objective, with their repeats pooled."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from advisor.domain.measurement import EffectiveSettings, MemoryReport, WorkloadOutcome
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.trial import TrialRecord

TIE_FRACTION = 0.005  # below the repeatability of any serving benchmark: such a lead decides nothing
HEADROOM_STEP_GIB = 0.5  # less than this between two configurations is no difference in memory


class Standing(StrictModel):
    """One configuration under one workload: all its measurements in order of trial number."""

    config: ServingConfig
    numbers: tuple[int, ...]
    values: tuple[float, ...]
    outcomes: tuple[WorkloadOutcome, ...]
    memory_gib: MemoryReport | None
    memory_predicted_gib: MemoryReport | None
    surprises: tuple[str, ...]
    feasible: bool
    effective: EffectiveSettings | None = None

    @property
    def mean(self) -> float:
        """Geometric mean of the repeats."""
        return math.exp(sum(math.log(value) for value in self.values) / len(self.values))

    @property
    def concurrency(self) -> int | None:
        """The least of the loads found on its launches; None where the load was not searched."""
        return min((each.concurrency for each in self.outcomes if each.concurrency is not None), default=None)

    @property
    def headroom_gib(self) -> float:
        """GiB left on the fullest GPU; minus infinity when unknown."""
        return -math.inf if self.memory_gib is None else self.memory_gib.headroom


def comparison(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The baseline trial that ran: the one asked for, or the nearest that does."""
    return next((r for r in records if r.role == "baseline" and r.measured), None)


def fallen(records: Iterable[TrialRecord]) -> set[ServingConfig]:
    """Configurations that died, wherever they were measured as well: of memory, or when they were launched again."""
    return {
        record.config
        for record in records
        if record.out_of_memory
        or (record.role in ("confirmation", "reference") and not (record.measured or record.infrastructure))
    }


def deciding(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Trials that decide who wins: without those that only went well once more, for later verifications."""
    return tuple(record for record in records if not (record.role == "reference" and record.measured))


def standings(records: Sequence[TrialRecord], workload: str, objective: Objective, slo: Slo) -> list[Standing]:
    """Every configuration measured on `workload`, best first; last come those that break a limit or are `fallen`."""
    runs: dict[str, list[tuple[TrialRecord, WorkloadOutcome, float]]] = defaultdict(list)
    dead = fallen(records)
    for record in records:
        outcome = record.workload(workload)
        if outcome is None or outcome.metrics is None or not record.served:
            continue
        value = objective.value(outcome.metrics)
        if value is not None and value > 0:
            runs[record.config.key].append((record, outcome, value))
    table = [_standing(run, slo, dead=run[0][0].config in dead) for run in runs.values()]
    sign = 1 if objective.direction == "minimize" else -1
    return sorted(table, key=lambda standing: (not standing.feasible, sign * standing.mean))


def _standing(run: Sequence[tuple[TrialRecord, WorkloadOutcome, float]], slo: Slo, *, dead: bool) -> Standing:
    excesses = [
        sum(limit.excess(outcome.metrics) for _, outcome, _ in run if outcome.metrics) / len(run)
        for limit in slo.limits
    ]
    return Standing(
        config=run[0][0].config,
        numbers=tuple(record.number for record, _, _ in run),
        values=tuple(value for _, _, value in run),
        outcomes=tuple(outcome for _, outcome, _ in run),
        memory_gib=run[-1][0].memory_measured_gib,
        memory_predicted_gib=run[-1][0].memory_predicted_gib,
        surprises=run[-1][0].surprises,
        feasible=not dead and all(excess <= 0 for excess in excesses),
        effective=run[-1][0].effective,
    )


def pick(table: Sequence[Standing], objective: Objective) -> Standing | None:
    """The winner of a table by what was measured alone: the best feasible one, ties as in `preferred`."""
    feasible = [standing for standing in table if standing.feasible]
    if not feasible:
        return None
    leader = feasible[0]
    return preferred([s for s in feasible if objective.gain(leader.mean, s.mean) <= 1 + TIE_FRACTION])


def preferred(tied: Sequence[Standing], default: ServingConfig | None = None) -> Standing:
    """Of configurations that are equally fast: more memory headroom, then fewer settings unlike the engine's default.

    Args:
        tied: Fastest first, which decides what nothing else does.
        default: The engine's own; None where it is not known.
    """

    def virtues(standing: Standing) -> tuple[float, int]:
        steps = standing.headroom_gib // HEADROOM_STEP_GIB if standing.memory_gib is not None else -math.inf
        return steps, 0 if default is None else -n_overrides(standing.config, default)

    return max(tied, key=virtues)


def n_overrides(config: ServingConfig, default: ServingConfig) -> int:
    """Settings and options that say something else than the engine's default."""
    usual = default.flat()
    return sum(usual.get(name) != value for name, value in config.flat().items())
