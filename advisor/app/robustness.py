"""One configuration for all workloads of a study, and what it costs on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from advisor.app.context import StudyContext
from advisor.domain.measurement import MemoryReport
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel, changed
from advisor.domain.trial import TrialRecord
from advisor.search.robust import regrets, robust
from advisor.search.standings import Standing, comparison, standings


class RobustChoice(StrictModel):
    """The configuration with the least maximum regret over all workloads of a study."""

    serving_config: ServingConfig
    regret: dict[str, float] = Field(description="Share of the objective lost against the best there, by workload")
    max_regret: float = Field(ge=0)
    kind: Literal["remeasured", "single_run"] = Field(description="Whether it was launched again for this comparison")
    memory_gib: MemoryReport | None
    trials: tuple[int, ...] = Field(description="Numbers of the trials behind it")


def robust_choice(context: StudyContext, records: Sequence[TrialRecord]) -> RobustChoice | None:
    """The robust configuration, chosen from the search's measurements, as winners are.

    One that broke a limit or ran out of memory when it was launched again is passed over. Regrets are against winner
    and baseline of each workload, in the numbers that the results show: those of the confirmation where there are any.
    None for a study of one workload, or where nothing serves every workload.
    """
    tables = context.race.searched_tables(records)
    again = {name: _launched_again(context, records, name) for name in tables}
    kept = {
        name: [
            changed(
                each,
                feasible=each.feasible and again[name].get(each.config, each).feasible,
            )
            for each in table
        ]
        for name, table in tables.items()
    }
    chosen = robust(kept, context.objective) if len(tables) > 1 else None
    if chosen is None:
        return None
    reference = comparison(records)
    decisions = context.race.decisions(records)
    shown: dict[str, list[Standing]] = {}
    for name, searched in tables.items():
        winner = decisions[name].standing
        wanted = {chosen, *([winner.config] if winner else []), *([reference.config] if reference else [])}
        shown[name] = [again[name].get(each.config, each) for each in searched if each.config in wanted]
    lost = regrets(chosen, shown, context.objective)
    own = [record for record in records if record.config == chosen and record.measured]
    return RobustChoice(
        serving_config=chosen,
        regret=lost,
        max_regret=max(lost.values()),
        kind="remeasured" if any(record.role == "confirmation" for record in own) else "single_run",
        memory_gib=own[-1].memory_measured_gib,
        trials=tuple(record.number for record in own),
    )


def _launched_again(
    context: StudyContext, records: Sequence[TrialRecord], workload: str
) -> dict[ServingConfig, Standing]:
    """Standings from baseline and confirmation alone, which nobody picked for being high."""
    fair = [record for record in records if record.role in ("baseline", "confirmation")]
    return {each.config: each for each in standings(fair, workload, context.objective, context.slo)}
