"""What to maximise or minimise, and the limits a configuration must keep."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from advisor.domain.errors import BadInput
from advisor.domain.measurement import LatencySummary, Metrics
from advisor.domain.strict import StrictModel, unknown_name
from advisor.domain.units import parse_duration_ms

Direction = Literal["maximize", "minimize"]
LatencyName = Literal["ttft", "tpot", "itl", "e2e"]
Statistic = Literal["mean", "p50", "p90", "p95", "p99"]

LATENCIES: tuple[str, ...] = ("ttft", "tpot", "itl", "e2e")
STATISTICS: tuple[str, ...] = ("mean", "p50", "p90", "p95", "p99")
THROUGHPUTS: tuple[str, ...] = (
    "output_tok_per_s_per_gpu",
    "output_tok_per_s",
    "request_per_s",
    "output_tok_per_s_per_user",
)
OBJECTIVES: tuple[str, ...] = (*THROUGHPUTS, *(f"{name}:{stat}" for name in LATENCIES for stat in STATISTICS))

_LIMIT = re.compile(r"(?P<latency>\w+):(?P<statistic>\w+)\s*<=?\s*(?P<limit>[\d.]+\s*(?:ms|s)?)", re.IGNORECASE)


class Objective(StrictModel):
    """One number per workload: a throughput to maximise, or `ttft:p95`-like latency to minimise."""

    metric: str = "output_tok_per_s_per_gpu"

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in OBJECTIVES:
            raise ValueError(str(unknown_name("objective", metric, OBJECTIVES)))
        return metric

    @property
    def direction(self) -> Direction:
        """Latencies are minimised, everything else maximised."""
        return "minimize" if ":" in self.metric else "maximize"

    def value(self, metrics: Metrics) -> float | None:
        """The objective of one measurement, or None where it is undefined (TPOT of one-token outputs)."""
        if ":" in self.metric:
            latency, statistic = self.metric.split(":")
            return latency_ms(metrics, latency, statistic)
        value: float = getattr(metrics, self.metric)
        return value

    def gain(self, value: float, reference: float) -> float:
        """How many times better `value` is than `reference`; above 1 is better in either direction."""
        return reference / value if self.direction == "minimize" else value / reference


class SloLimit(StrictModel):
    """One limit: `statistic` of `latency` at most `limit_ms`."""

    latency: LatencyName
    statistic: Statistic
    limit_ms: float = Field(gt=0)

    @property
    def name(self) -> str:
        """Spelled as on the command line: `ttft:p95`."""
        return f"{self.latency}:{self.statistic}"

    def excess(self, metrics: Metrics) -> float:
        """measured / limit - 1: above zero breaks the limit. Undefined latencies keep it."""
        measured = latency_ms(metrics, self.latency, self.statistic)
        return 0.0 if measured is None else measured / self.limit_ms - 1.0


class Slo(StrictModel):
    """All limits together; none by default."""

    limits: tuple[SloLimit, ...] = ()

    def met(self, metrics: Metrics) -> bool:
        """True when every limit is kept."""
        return all(limit.excess(metrics) <= 0 for limit in self.limits)

    @property
    def text(self) -> str:
        """As on the command line: `ttft:p95<2000ms,tpot:mean<20ms`."""
        return ",".join(f"{limit.name}<{limit.limit_ms:g}ms" for limit in self.limits)


def latency_ms(metrics: Metrics, latency: str, statistic: str) -> float | None:
    """One statistic of one latency in ms, None where undefined."""
    summary: LatencySummary | None = getattr(metrics, f"{latency}_ms")
    return None if summary is None else float(getattr(summary, statistic))


def parse_objective(text: str) -> Objective:
    """An objective by name: a throughput, or a latency with its statistic.

    Raises:
        BadInput: unknown name.
    """
    if text not in OBJECTIVES:
        raise unknown_name("objective", text, OBJECTIVES)
    return Objective(metric=text)


def parse_slo(text: str) -> Slo:
    """Limits from `ttft:p95<2s,tpot:mean<20ms`; empty text is no limit.

    Raises:
        BadInput: anything that is not such a list, or a limit given twice.
    """
    limits = []
    for part in (piece.strip() for piece in text.split(",")) if text.strip() else ():
        match = _LIMIT.fullmatch(part)
        if not match:
            raise BadInput(
                f"--slo {part or text!r} is not a limit: "
                "write it like ttft:p95<2s or tpot:mean<20ms, separated by commas."
            )
        latency, statistic = match["latency"].lower(), match["statistic"].lower()
        if latency not in LATENCIES:
            raise unknown_name("latency in --slo", latency, LATENCIES)
        if statistic not in STATISTICS:
            raise unknown_name("statistic in --slo", statistic, STATISTICS)
        limits.append(
            SloLimit.model_validate(
                {"latency": latency, "statistic": statistic, "limit_ms": parse_duration_ms(match["limit"])}
            )
        )
    names = [limit.name for limit in limits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"--slo limits {', '.join(twice)} more than once.")
    return Slo(limits=tuple(limits))
