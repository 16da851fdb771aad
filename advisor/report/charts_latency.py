"""How latencies are spread: TTFT and TPOT over requests, ITL over single gaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from advisor.app.report_sources import Latencies, contenders
from advisor.app.results import Result, ResultEntry
from advisor.domain.measurement import LatencySummary
from advisor.report.charts_data import Cell, Chart, chart

LATENCIES = ("ttft", "tpot", "itl")
PERCENTS = tuple(range(101))


def latency_chart(result: Result, latencies: dict[str, Latencies]) -> Chart | None:
    """Quantiles of the contenders' latencies; None where nothing was served.

    Args:
        result: Of the workload.
        latencies: By contender, where they were kept.
    """
    rows: list[dict[str, Cell]] = []
    for name, entry in contenders(result):
        for latency in LATENCIES:
            kept = latencies.get(name, {}).get(latency)
            found = _of_all(kept, latency) if kept is not None and kept.size else _of_summary(entry, latency)
            rows += [
                {"contender": name, "latency": latency, "percent": percent, "ms": ms, "of": of}
                for percent, ms, of in found
            ]
    if not rows:
        return None
    about = (
        f"Share of requests that are at least as fast, {result.source}; the further left a line, the better. TTFT and "
        "TPOT are of every request of all launches of a configuration, ITL of every gap between two chunks; of runs of "
        "earlier versions only its percentiles 50, 90, 95 and 99 are known. Dashed lines are limits."
    )
    limits: dict[str, Cell] = {f"{limit.name}_limit_ms": limit.limit_ms for limit in result.slo.limits}
    return chart(
        f"latency-{result.workload_name}",
        "latency",
        "How latencies are spread",
        about,
        result.source,
        rows,
        facts=limits,
    )


def _of_all(values_ms: NDArray[np.float64], latency: str) -> Iterator[tuple[int, float, str]]:
    """Every whole percentile, linearly interpolated."""
    of = "all gaps" if latency == "itl" else f"{values_ms.size:,} requests"
    for percent, ms in zip(PERCENTS, np.percentile(values_ms, PERCENTS).tolist(), strict=True):
        yield percent, ms, of


def _of_summary(entry: ResultEntry, latency: str) -> Iterator[tuple[int, float, str]]:
    """The percentiles that the metrics keep, a mean over the launches."""
    found: LatencySummary | None = getattr(entry.metrics, f"{latency}_ms")
    if found is not None:
        for percent in (50, 90, 95, 99):
            yield percent, getattr(found, f"p{percent}"), "percentiles"
