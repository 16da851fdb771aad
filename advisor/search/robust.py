"""One configuration for many workloads: the one that loses least where it loses most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.domain.objective import Objective
from advisor.domain.serving_config import ServingConfig
from advisor.search.standings import TIE_FRACTION, Standing


def regrets(config: ServingConfig, tables: Mapping[str, Sequence[Standing]], objective: Objective) -> dict[str, float]:
    """What a configuration loses on each workload against the best feasible one there, as a fraction: 1 - value/best.

    Args:
        config: Feasible on every workload.
        tables: Standings by workload.
        objective: Says in which direction better lies; of a latency to minimise the fraction is 1 - best/value.
    """
    lost = {}
    for workload, table in tables.items():
        gains = [objective.gain(_of(config, table).mean, rival.mean) for rival in table if rival.feasible]
        lost[workload] = 1.0 - min([1.0, *gains])
    return lost


def robust(tables: Mapping[str, Sequence[Standing]], objective: Objective) -> ServingConfig | None:
    """The configuration with the least maximum regret among those measured and feasible on every workload.

    Of those that differ by less than a benchmark can tell, the one with most memory left. None when no configuration
    serves every workload within the limits.
    """
    sets = [{standing.config.key for standing in table if standing.feasible} for table in tables.values()]
    everywhere = set.intersection(*sets) if sets else set()
    first = next(iter(tables.values()), ())
    candidates = [standing for standing in first if standing.config.key in everywhere]
    if not candidates:
        return None
    worst = [max(regrets(standing.config, tables, objective).values()) for standing in candidates]
    tied = [place for place, regret in enumerate(worst) if regret <= min(worst) + TIE_FRACTION]
    return candidates[max(tied, key=lambda place: (candidates[place].headroom_gib, -worst[place]))].config


def _of(config: ServingConfig, table: Sequence[Standing]) -> Standing:
    return next(standing for standing in table if standing.config.key == config.key)
