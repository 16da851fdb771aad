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
COST, ENERGY = "cost_per_million_tok", "energy_j_per_million_tok"
OBJECTIVES: tuple[str, ...] = (
    *THROUGHPUTS,
    "goodput",
    COST,
    ENERGY,
    *(f"{name}:{stat}" for name in LATENCIES for stat in STATISTICS),
)

_LIMIT = re.compile(r"(?P<latency>\w+):(?P<statistic>\w+)\s*<=?\s*(?P<limit>[\d.]+\s*(?:ms|s)?)", re.IGNORECASE)


class Objective(StrictModel):
    """One number per workload: a throughput to maximise; a `ttft:p95`-like latency, a cost or an energy to minimise."""

    metric: str = "output_tok_per_s_per_gpu"
    gpu_price_usd_per_hour: float | None = Field(default=None, gt=0, description="Of one GPU; none = no cost is told")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in OBJECTIVES:
            raise ValueError(str(unknown_name("objective", metric, OBJECTIVES)))
        return metric

    @property
    def direction(self) -> Direction:
        """Latencies, cost and energy are minimised, everything else maximised."""
        return "minimize" if self.latency or self.metric in (COST, ENERGY) else "maximize"

    @property
    def latency(self) -> str | None:
        """The latency it is about, None where it is about none."""
        name, separator, _ = self.metric.partition(":")
        return name if separator else None

    def value(self, metrics: Metrics) -> float | None:
        """The objective of one measurement, or None where it is undefined (TPOT of one-token outputs)."""
        if self.latency:
            return latency_ms(metrics, *self.metric.split(":"))
        if self.metric == COST:
            return self.cost_per_million_tok(metrics)
        value: float | None = getattr(metrics, "goodput_request_per_s" if self.metric == "goodput" else self.metric)
        return value

    def scale(self, metrics: Metrics) -> float | None:
        """A predicted number above zero to express gains in; None where the objective is undefined.

        That is its value, but where not one request keeps the limits: then all requests/s stand for goodput. Energy
        cannot be predicted: then its unit stands for itself.
        """
        if self.metric == ENERGY:
            return 1.0
        return self.value(metrics) or (metrics.request_per_s if self.metric == "goodput" else None)

    def cost_per_million_tok(self, metrics: Metrics) -> float | None:
        """USD of GPU time for a million output tokens: price / (3,600 x output tok/s per GPU) x 10^6."""
        if self.gpu_price_usd_per_hour is None or not metrics.output_tok_per_s_per_gpu:
            return None
        return self.gpu_price_usd_per_hour / 3600 / metrics.output_tok_per_s_per_gpu * 1e6

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
    """An objective by name: a throughput, goodput, a latency with its statistic, cost or energy.

    Raises:
        BadInput: unknown name.
    """
    if text not in OBJECTIVES:
        raise unknown_name("objective", text, OBJECTIVES)
    return Objective(metric=text)


def check_objective(objective: Objective, slo: Slo) -> None:
    """Refuse an objective that lacks what defines it.

    Raises:
        BadInput: goodput without limits, cost without a price.
    """
    if objective.metric == "goodput" and not slo.limits:
        raise BadInput("--objective goodput counts requests that keep limits: give them, as --slo ttft:p95<2s.")
    if objective.metric == COST and objective.gpu_price_usd_per_hour is None:
        raise BadInput(f"--objective {COST} needs the price of a GPU: give --gpu-price, in USD per GPU and hour.")


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
