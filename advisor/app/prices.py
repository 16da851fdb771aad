"""The price of each setting at the configurations that a study ends with, from everything that was launched."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.admission import MemoryGate
from advisor.app.results import Result, StudySummary
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord


def with_prices(summary: StudySummary, gate: MemoryGate, records: Sequence[TrialRecord]) -> StudySummary:
    """The summary with the prices at the best of each workload."""
    frontier = gate.frontier(records)

    def priced(result: Result) -> Result:
        if result.best is None:
            return result
        return changed(result, prices=gate.forecaster.prices(result.best.serving_config, frontier))

    return changed(summary, results=tuple(map(priced, summary.results)), calibration=gate.frontier.earlier.label)
