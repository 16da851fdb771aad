"""The nearest miss of a workload that nothing serves, with what the memory law says would help."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.context import StudyContext
from advisor.app.forecast import Forecaster
from advisor.app.results import StudySummary
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics
from advisor.domain.outcome import Rejected
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.memory.law import STAGES
from advisor.metrics.definitions import average
from advisor.search.admission import MEMORY_RULE
from advisor.search.misses import MemoryMiss, NearestMiss, nearest_memory_miss, nearest_slo_miss
from advisor.search.relaxation import Relaxation, gpus_for_slo
from advisor.search.space import all_configs
from advisor.twin.predict import memory_report


def with_nearest_misses(
    summary: StudySummary, context: StudyContext, records: Sequence[TrialRecord], forecaster: Forecaster
) -> StudySummary:
    """The summary with the nearest miss of each workload that nothing serves."""
    results = tuple(
        changed(result, nearest_miss=nearest_miss(context, records, result.workload_name, forecaster))
        if result.status == "nothing_feasible"
        else result
        for result in summary.results
    )
    return changed(summary, results=results)


def nearest_miss(
    context: StudyContext, records: Sequence[TrialRecord], workload: str, forecaster: Forecaster
) -> NearestMiss | None:
    """What came nearest: measured ones first, then launches that died of memory, then what the law predicts.

    None where neither limits nor memory are what stands in the way: crashes, rules of the engine.
    """
    slow = nearest_slo_miss(records, workload, context.slo)
    if slow is not None:
        return changed(slow, relaxations=(*slow.relaxations, *_more_gpus(context, records, workload, forecaster, slow)))
    miss = nearest_memory_miss(records, forecaster.needed_tokens)
    outcomes = [record.outcome for record in records]
    blind = forecaster.stand_in is not None
    if miss is None and not blind and any(isinstance(each, Rejected) and each.rule == MEMORY_RULE for each in outcomes):
        miss = predicted_miss(context, forecaster)
    if miss is None or miss.memory is None:
        return None
    return changed(miss, relaxations=forecaster.relaxations(miss.serving_config, miss.memory.short_gib, context.space))


def _more_gpus(
    context: StudyContext, records: Sequence[TrialRecord], workload: str, forecaster: Forecaster, slow: NearestMiss
) -> tuple[Relaxation, ...]:
    """More GPUs with which the twin expects the nearest configuration to keep the limits."""
    outcomes = [record.workload(workload) for record in records if record.number in slow.trials]
    came_to = average([each.metrics for each in outcomes if each is not None and each.metrics is not None])
    asked = next(each for each in context.workloads if each.name == workload)

    def predict(deployment: Deployment) -> Metrics | None:
        if forecaster.stand_in is not None:
            return None
        try:
            return forecaster.twin.predict(deployment, slow.serving_config, asked).metrics
        except BadInput:
            return None

    return gpus_for_slo(context.deployment, context.facts, context.slo, came_to, predict)


def predicted_miss(context: StudyContext, forecaster: Forecaster) -> NearestMiss:
    """The configuration of the space that the memory law sees nearest to fitting."""
    nearest = forecaster.roomiest(all_configs(context.space))
    budget = forecaster.budget(nearest)
    stage, short_gib = STAGES[int(budget.failing_stage)], max(0.0, -float(budget.headroom_gib))
    miss = MemoryMiss(
        phase=stage.phase if short_gib else None,
        component=stage.component if short_gib else "KV cache",
        short_gib=short_gib,
        kv_tokens=int(budget.kv_tokens),
        needed_tokens=forecaster.needed_tokens,
        memory_gib=memory_report(budget),
    )
    return NearestMiss(
        serving_config=nearest,
        source="predicted",
        trials=(),
        blocks="memory" if short_gib else "kv_cache",
        memory=miss,
    )
