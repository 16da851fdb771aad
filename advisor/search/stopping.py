"""What a budget buys: how many launches go to the search and how many are kept for the confirmation."""

from __future__ import annotations

from advisor.domain.study import Budget

MAX_ROUNDS = 2  # with the search's own run this gives three values a side: an interval that can decide 3 %


def confirmation_rounds(budget: Budget, n_workloads: int) -> int:
    """Alternate re-measurements of winners and baseline that the budget can spare: at most a third of it.

    Zero below six launches: then the winner is only a candidate.
    """
    per_round = n_workloads + 1  # at worst every workload has its own winner
    return min(MAX_ROUNDS, budget.max_launches // 3 // per_round)


def search_launches(budget: Budget, n_workloads: int) -> int:
    """Launches left for baselines and search once the confirmation is reserved."""
    return budget.max_launches - confirmation_rounds(budget, n_workloads) * (n_workloads + 1)
