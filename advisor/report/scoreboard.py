"""Where a study stands: counts, the incumbent against the baseline, what the budget leaves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from advisor.app.context import StudyContext
from advisor.app.trial_maker import launches
from advisor.domain.trial import TrialRecord
from advisor.report.spans import span_text

COUNTED = (
    ("out_of_memory", "OOM"),
    ("rejected", "rejected"),
    ("hopeless", "stopped early"),
    ("unhealthy", "unhealthy"),
    ("bad_config", "refused"),
    ("timed_out", "timed out"),
    ("crashed", "crashed"),
    ("infrastructure", "machine"),
)
ALWAYS_SHOWN = ("out_of_memory", "rejected", "hopeless")


class Scoreboard:
    """Counts trials as they end.

    Args:
        context: Of the study.
        records: Of earlier starts of the same study.
        now_s: By the clock that every later time comes from.
    """

    def __init__(self, context: StudyContext, records: Sequence[TrialRecord], now_s: float) -> None:
        self.context = context
        self._began_s, self._new_launches = now_s, 0
        self.launches, self.server_s = 0, 0.0
        self._kinds: Counter[str] = Counter()
        self._best: tuple[float, int] | None = None
        self._baseline: float | None = None
        self._searches = True
        for record in records:
            self.add(record)
        self._new_launches = 0

    def add(self, record: TrialRecord) -> float | None:
        """Count a trial; its log gain over the baseline where both are known."""
        self.launches += launches([record])
        self._new_launches += launches([record])
        self.server_s += record.duration_s
        self._kinds[record.outcome.kind] += 1
        self._searches = record.role != "reference"
        value = self.context.value_of(record)
        if value is None:
            return None
        if record.role == "baseline" and self._baseline is None:
            self._baseline = value
        if self._searches and (self._best is None or value > self._best[0]):
            self._best = value, record.number
        return None if self._baseline is None else value - self._baseline

    @property
    def best_text(self) -> str:
        """The incumbent against the baseline."""
        if self._best is None:
            return "no measurement yet" if self.context.identity.source == "measured" else "nothing simulated yet"
        value, number = self._best
        if self._baseline is None:
            return f"#{number}, with no baseline to compare"
        return f"#{number}, {gain_text(value - self._baseline)} on {self.context.baseline.name}"

    @property
    def counts_text(self) -> str:
        """What became of the trials that told nothing new about speed."""
        shown = [(kind, word) for kind, word in COUNTED if kind in ALWAYS_SHOWN or self._kinds[kind]]
        return ", ".join(f"{self._kinds[kind]} {word}" for kind, word in shown)

    @property
    def spent(self) -> float:
        """Share of the budget that is used up, 0 to 1: of launches or of hours, whichever is more."""
        share = self.launches / self.context.budget.max_launches
        return min(1.0, max(share, self.server_s / 3600 / self.context.server_hours))

    @property
    def budget_text(self) -> str:
        """What was spent of the budget."""
        hours, gpus = self.server_s / 3600, self.context.deployment.gpus
        limit = "" if math.isinf(self.context.server_hours) else f" of {self.context.server_hours:.1f}"
        kind = "virtual server h" if self.context.identity.source == "simulated" else "server h"
        launched = f"{self.launches} of {self.context.budget.max_launches} launches"
        return f"{launched}, {hours:.1f}{limit} {kind} ({hours * gpus:.1f} GPU-h)"

    def eta_s(self, now_s: float) -> float | None:
        """Seconds until the budget is used up at the pace so far; it may well end before. None before and after."""
        if not (self._new_launches and self._searches):
            return None
        left_s = (self.context.budget.max_launches - self.launches) * (now_s - self._began_s) / self._new_launches
        if self.context.identity.source == "measured":  # the clock on the wall is that of the budget
            left_s = min(left_s, 3600 * self.context.server_hours - self.server_s)
        return max(0.0, left_s)

    def eta_text(self, now_s: float) -> str:
        """`at most 12 min left`, empty where it cannot be told or no second is left."""
        eta_s = self.eta_s(now_s)
        return "" if eta_s is None or eta_s < 1 else f"at most {span_text(eta_s)} left"


def gain_text(log_gain: float | None) -> str:
    """`+12.3 %` of a log gain, empty when unknown."""
    return "" if log_gain is None else f"{100 * math.expm1(log_gain):+.1f} %"
