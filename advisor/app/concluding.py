"""How a study's records become its results: a pure function of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from advisor.app.answers import answer_check
from advisor.app.context import StudyContext
from advisor.app.decided import decided_by_default
from advisor.app.pareto import alike, pareto_front
from advisor.app.results import (
    BaselineEntry,
    Confidence,
    Counts,
    PredictedRow,
    ReferenceLaunch,
    Result,
    ResultEntry,
    Status,
    StudySummary,
)
from advisor.app.robustness import robust_choice
from advisor.app.trial_maker import launches
from advisor.domain.measurement import RefereeReport
from advisor.domain.strict import changed
from advisor.domain.trial import Soak, TrialRecord
from advisor.domain.workload import Workload
from advisor.engines.spoken import spoken_by
from advisor.memory.profiled import residuals
from advisor.metrics.confidence import mean_interval, ratio_interval
from advisor.metrics.definitions import average
from advisor.search.racing import LEVEL, UNBIASED, Contest
from advisor.search.standings import Standing, comparison, deciding, standings
from advisor.search.stopping import expected_gains, outlook

CERTAIN_SDS = 2.0  # of a drift, for it to be told
NOTABLE_DRIFT = 0.01


def count(records: Sequence[TrialRecord]) -> Counts:
    """Counts over all trials."""
    kinds = [record.outcome.kind for record in records if record.role != "probe"]
    return Counts(
        trials=len(records),
        launches=launches(records),
        oom=kinds.count("out_of_memory"),
        rejected=kinds.count("rejected"),
        hopeless=kinds.count("hopeless"),
        failed=sum(kind in ("crashed", "timed_out", "infrastructure", "bad_config", "unhealthy") for kind in kinds),
        probes=len(records) - len(kinds),
        reference=sum(record.n_attempts for record in records if record.role == "reference"),
    )


def summarise(context: StudyContext, records: Sequence[TrialRecord], stopped_by: str, top_n: int = 5) -> StudySummary:
    """The whole study, one result per workload."""
    duration_s = sum(record.duration_s for record in records)
    searched_s = sum(record.duration_s for record in deciding(records))
    ahead = outlook(expected_gains(records), launches(records), searched_s / 3600)
    return StudySummary(
        study=context.name,
        run=context.run_name,
        source=context.identity.source,
        label=context.identity.label,
        stopped_by=stopped_by,
        counts=count(records),
        duration_s=duration_s,
        results=tuple(result(context, records, workload, stopped_by, top_n) for workload in context.workloads),
        robust=robust_choice(context, deciding(records)),
        outlook=None if stopped_by == "exhausted" else ahead,
        pareto=pareto_front(deciding(records), context.workloads, context.slo),
    )


def result(
    context: StudyContext, records: Sequence[TrialRecord], workload: Workload, stopped_by: str, top_n: int = 5
) -> Result:
    """The recommendation for one workload."""
    all_records, records = records, deciding(records)
    everything = standings(records, workload.name, context.objective, context.slo)
    decision = context.race.decision(records, workload)
    # Whoever was picked for a high value owes it partly to noise: its own numbers are those of the confirmation.
    confirmed, unbiased = (
        standings([record for record in records if record.role in roles], workload.name, context.objective, context.slo)
        for roles in (("confirmation",), UNBIASED)
    )
    winner = decision.standing
    reference = comparison(records)
    base = next((s for s in everything if reference is not None and s.config == reference.config), None)
    shown_base = _same(unbiased, base) or base
    confidence = _confidence(context, confirmed, winner, base, shown_base)
    if winner is not None and base is not None and base.feasible and _keep_baseline(confidence, winner, base):
        status: Status = "baseline_within_noise"
    elif winner is None:
        status = "interrupted" if stopped_by == "cancelled" else "nothing_feasible"
    elif confidence.kind == "remeasured":
        status = "confirmed"
    else:
        status = "interrupted" if stopped_by == "cancelled" else "candidate"
    best = shown_base if status == "baseline_within_noise" else _same(unbiased, winner) or winner
    again = _same(everything, best)
    confidence = _with_best(confidence, decision.contest, best, again=again is not None and len(again.values) > 1)
    repeats = [standing.values for standing in unbiased if len(standing.values) > 1]
    others = [s for s in everything if s.feasible and best is not None and s.config != best.config]
    return Result(
        status=status,
        source=context.identity.source,
        label=context.identity.label,
        study=context.name,
        engine=context.deployment.engine,
        engine_version=context.deployment.engine_version,
        twin_world=int(context.engine.options.get("world", 0)),
        deployment=context.deployment,
        max_seq_len=context.max_seq_len,
        workload=workload,
        workload_name=workload.name,
        objective=context.objective,
        slo=context.slo,
        best=None if best is None else _entry(context, best, repeats),
        baseline=_baseline(context, records, shown_base, repeats),
        runner_up=_entry(context, others[0], repeats) if others else None,
        top=tuple(_entry(context, s, repeats) for s in ([] if best is None else [best]) + others[: top_n - 1]),
        predicted_baselines=_predicted(context, workload),
        confidence=confidence,
        reference=() if best is None else _references(all_records, workload, best),
        soak=None if best is None else _soak_of(all_records, best),
        referee=_referees(records, workload, best, base),
        pareto=pareto_front(records, alike(workload, context.workloads), context.slo),
        decided_by_default=()
        if best is None
        else decided_by_default(context, workload, best, base, others, stopped_by),
        answers=answer_check(context, records, None if best is None else best.config),
        counts=count(all_records),
        stopped_by=stopped_by,
        seed=context.seed,
        sampler=context.sampler,
    )


def _referees(
    records: Sequence[TrialRecord], workload: Workload, best: Standing | None, base: Standing | None
) -> dict[Literal["best", "baseline"], RefereeReport]:
    """What the engine's own benchmark said of winner and baseline, where it ran."""
    contenders: dict[Literal["best", "baseline"], Standing | None] = {"best": best, "baseline": base}
    found: dict[Literal["best", "baseline"], RefereeReport] = {}
    for name, standing in contenders.items():
        for record in records:
            outcome = record.workload(workload.name)
            if standing is not None and record.config == standing.config and outcome and outcome.referee:
                found[name] = outcome.referee
    return found


def _references(records: Sequence[TrialRecord], workload: Workload, best: Standing) -> tuple[ReferenceLaunch, ...]:
    """Launches of the recommendation that only later verifications count."""
    own = [record for record in records if record.role == "reference" and record.config == best.config]
    outcomes = [(record.number, record.workload(workload.name)) for record in own if record.measured]
    return tuple(
        ReferenceLaunch(trial=number, metrics=outcome.metrics)
        for number, outcome in outcomes
        if outcome is not None and outcome.metrics is not None
    )


def _soak_of(records: Sequence[TrialRecord], standing: Standing) -> Soak | None:
    """The latest soak of a configuration."""
    return next((r.soak for r in reversed(records) if r.config == standing.config and r.soak is not None), None)


def _same(table: Sequence[Standing], chosen: Standing | None) -> Standing | None:
    return next((s for s in table if chosen is not None and s.config == chosen.config), None)


def _confidence(
    context: StudyContext,
    confirmed: Sequence[Standing],
    chosen: Standing | None,
    base: Standing | None,
    shown_base: Standing | None,
) -> Confidence:
    """Winner over baseline, from every launch that was not picked for being high.

    Of the winner these are the confirmation's, of the baseline all. Those of the confirmation alternate, so that no
    drift is taken for a gain; a drift since the first baseline widens the interval.
    """
    if chosen is None or base is None or shown_base is None:
        return Confidence(kind="none")
    again = _same(confirmed, chosen)
    if chosen.config == base.config:
        return Confidence(kind="remeasured" if len(base.values) > 1 else "single_run", n_baseline=len(base.values))
    ours, theirs = (chosen, base) if again is None else (again, shown_base)
    better, worse = (ours, theirs) if context.objective.direction == "maximize" else (theirs, ours)
    others = [each.values for each in confirmed if each.config not in (chosen.config, base.config)]
    interval = ratio_interval(better.values, worse.values, others) if again is not None else None
    return Confidence(
        kind="single_run" if again is None else "remeasured",
        level=None if interval is None else interval.level,
        gain=context.objective.gain(ours.mean, theirs.mean),
        interval=interval,
        n_winner=len(ours.values),
        n_baseline=len(theirs.values),
    )


def _with_best(confidence: Confidence, contest: Contest | None, best: Standing | None, *, again: bool) -> Confidence:
    """How sure it is that nothing that was launched is better than what is recommended.

    Args:
        confidence: Of the gain.
        contest: Of the workload.
        best: What is recommended.
        again: It was launched more than once, so that it may be announced.
    """
    place = None if contest is None or best is None else contest.place_of(best.config)
    if contest is None or place is None:
        return confidence
    p_best, (drift, sd) = contest.p_best(place), contest.drift
    announced = again and p_best >= LEVEL
    return changed(
        confidence,
        p_best=p_best,
        is_best=announced,
        tied_with=() if announced else tuple(contest.table[rival].numbers[0] for rival in contest.rivals(place)),
        drift=math.expm1(drift) if abs(drift) > max(CERTAIN_SDS * sd, NOTABLE_DRIFT) else None,
    )


def _keep_baseline(confidence: Confidence, winner: Standing, base: Standing) -> bool:
    """True when the winner is the baseline, or was measured again and is not clearly better."""
    if winner.config == base.config:
        return True
    return confidence.interval is not None and confidence.interval.low <= 1.0


def _entry(
    context: StudyContext, standing: Standing, repeats: Sequence[Sequence[float]], name: str | None = None
) -> ResultEntry:
    others = [values for values in repeats if values != standing.values]
    interval = mean_interval(standing.values, others) if repeats else None
    measured = tuple(outcome.metrics for outcome in standing.outcomes if outcome.metrics is not None)
    metrics = average(measured)
    return ResultEntry(
        serving_config=standing.config,
        memory_fraction_kind=spoken_by(context.deployment).memory.fraction,
        metrics=changed(metrics, cost_per_million_tok=context.objective.cost_per_million_tok(metrics)),
        memory_gib=standing.memory_gib,
        memory_residuals_gib=_residuals(context, standing),
        surprises=standing.surprises,
        concurrency=standing.concurrency,
        limited_by=standing.outcomes[-1].limited_by,
        ci95=None if interval is None else (interval.low, interval.high),
        trials=standing.numbers,
        repeats=measured,
        effective=standing.effective,
        name=name,
    )


def _residuals(context: StudyContext, standing: Standing) -> dict[str, float]:
    if context.identity.source != "measured" or standing.memory_gib is None or standing.memory_predicted_gib is None:
        return {}
    return residuals(standing.memory_predicted_gib, standing.memory_gib)


def _baseline(
    context: StudyContext, records: Sequence[TrialRecord], base: Standing | None, repeats: Sequence[Sequence[float]]
) -> BaselineEntry:
    asked = context.baseline
    own = next((r for r in records if r.role == "baseline" and r.config == asked.config), None)
    entry = None if base is None else _entry(context, base, repeats, asked.name)
    fields = {name: getattr(entry, name) for name in ResultEntry.model_fields if name != "name"} if entry else {}
    return BaselineEntry(
        name=asked.name,
        why=asked.why,
        asked=asked.config,
        outcome="not launched" if own is None else own.ending,
        is_substitute=base is not None and base.config != asked.config,
        **fields,
    )


def _predicted(context: StudyContext, workload: Workload) -> tuple[PredictedRow, ...]:
    return tuple(
        PredictedRow(
            name=entry.name,
            why=entry.why,
            serving_config=entry.config,
            prediction=None if entry.config is None else context.predict(entry.config, workload),
        )
        for entry in context.baselines
    )
