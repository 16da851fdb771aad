"""The metrics of a comparison in their order, once for the terminal and once for the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advisor.domain.measurement import Metrics
from advisor.domain.objective import latency_ms

NONE = "–"


@dataclass(frozen=True)
class Row:
    """One metric of the comparison. `sign` +1: more is better."""

    title: str
    unit: str
    digits: int
    sign: int
    read: Callable[[Metrics], float | None]

    def text(self, metrics: Metrics | None) -> str:
        """The number alone; the unit stands at the head of its row."""
        value = None if metrics is None else self.read(metrics)
        return NONE if value is None else f"{value:,.{self.digits}f}"


METRICS = (
    Row("Output", "tok/s", 0, 1, lambda m: m.output_tok_per_s),
    Row("Output per GPU", "tok/s", 0, 1, lambda m: m.output_tok_per_s_per_gpu),
    Row("Output per user", "tok/s", 1, 1, lambda m: m.output_tok_per_s_per_user),
    Row("TTFT p50", "ms", 0, -1, lambda m: m.ttft_ms.p50),
    Row("TTFT p99", "ms", 0, -1, lambda m: m.ttft_ms.p99),
    Row("TPOT mean", "ms", 2, -1, lambda m: latency_ms(m, "tpot", "mean")),
    Row("E2E p99", "ms", 0, -1, lambda m: m.e2e_ms.p99),
    Row("Goodput", "requests/s", 2, 1, lambda m: m.goodput_request_per_s),
    Row("Cost", "USD per million tokens", 3, -1, lambda m: m.cost_per_million_tok),
    Row("Energy", "J per million tokens", 0, -1, lambda m: m.energy_j_per_million_tok),
)
