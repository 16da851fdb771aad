"""A workload: how long requests are, how many come at a time, and its short name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel, parse
from advisor.domain.units import TOKENS_PER_K, format_tokens, parse_tokens

DEFAULT_CONCURRENCY = 1024  # the TensorRT-LLM guide's
DEFAULT_WAVES = 8  # requests = waves x concurrency, the guide's ratio
MOST_WORKLOADS = 24  # of one study: each launch benchmarks all of them
OPEN_LOOP_SECONDS = 60.0  # arrivals simulated or sent when a request rate is given

_NAME = re.compile(
    r"(?:(?P<isl_k>\d+)k(?P<osl_k>\d+)k|(?P<isl>\d+k?(?:to\d+k?)?)-(?P<osl>\d+k?(?:to\d+k?)?))"
    r"(?:_c(?P<concurrency>\d+)|_r(?P<rate>\d+(?:\.\d+)?))?(?:_n(?P<n_requests>\d+))?",
    re.IGNORECASE,
)


class Workload(StrictModel):
    """What the server will be asked: prompt and output lengths in tokens, and the load.

    `isl` and `osl` are the longest lengths; with `isl_min` / `osl_min` lengths are uniform in [min, max].
    Exactly one of `concurrency` (closed loop) and `request_rate_per_s` (Poisson) is set.
    """

    isl: int = Field(ge=1, description="Longest prompt, tokens")
    osl: int = Field(ge=1, description="Longest output, tokens")
    isl_min: int | None = Field(default=None, ge=1, description="Shortest prompt, tokens; none = all alike")
    osl_min: int | None = Field(default=None, ge=1, description="Shortest output, tokens; none = all alike")
    concurrency: int | None = Field(default=None, ge=1, description="Requests in flight, over all ranks")
    request_rate_per_s: float | None = Field(default=None, gt=0, description="Poisson arrivals per second")
    n_requests: int | None = Field(default=None, ge=1, description="Requests of one benchmark; none = by waves")
    shared_prefix_tokens: int = Field(default=0, ge=0, description="Leading tokens that all prompts share")

    @model_validator(mode="before")
    @classmethod
    def _default_load(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("concurrency") is None and data.get("request_rate_per_s") is None:
            return {**data, "concurrency": DEFAULT_CONCURRENCY}
        return data

    @model_validator(mode="after")
    def _possible(self) -> Workload:
        if self.concurrency is not None and self.request_rate_per_s is not None:
            raise ValueError("give a concurrency or a request rate, not both.")
        if self.isl_min is not None and self.isl_min > self.isl:
            raise ValueError(f"the shortest prompt ({self.isl_min}) is longer than the longest ({self.isl}).")
        if self.osl_min is not None and self.osl_min > self.osl:
            raise ValueError(f"the shortest output ({self.osl_min}) is longer than the longest ({self.osl}).")
        if self.shared_prefix_tokens >= (self.isl_min or self.isl):
            raise ValueError("the shared prefix must be shorter than the shortest prompt.")
        return self

    @property
    def max_tokens_per_request(self) -> int:
        """Longest prompt plus longest output, tokens."""
        return self.isl + self.osl

    @property
    def is_ranged(self) -> bool:
        """True when lengths vary between requests."""
        return (self.isl_min or self.isl) != self.isl or (self.osl_min or self.osl) != self.osl

    @property
    def shape(self) -> str:
        """Lengths alone: `4k1k`, `3000-700`, `3000to4096-700`."""
        if not self.is_ranged and self.isl % TOKENS_PER_K == 0 and self.osl % TOKENS_PER_K == 0:
            return format_tokens(self.isl) + format_tokens(self.osl)
        return f"{_spelled(self.isl_min, self.isl)}-{_spelled(self.osl_min, self.osl)}"

    @property
    def name(self) -> str:
        """Short name, fit for a folder: `4k1k_c1024`, `3000-700_r12.5`; `4k1k_c64_n128` where requests are given."""
        rate = self.request_rate_per_s
        load = f"c{self.concurrency}" if rate is None else f"r{rate:g}"
        given = "" if self.n_requests is None else f"_n{self.n_requests}"
        return f"{self.shape}_{load}{given}"

    def requests(self, waves: float = DEFAULT_WAVES) -> int:
        """Requests of one benchmark: as given, else `waves` x concurrency, else a minute of arrivals."""
        if self.n_requests is not None:
            return self.n_requests
        if self.request_rate_per_s is not None:
            return max(64, round(self.request_rate_per_s * OPEN_LOOP_SECONDS))
        return max(1, round(waves * (self.concurrency or DEFAULT_CONCURRENCY)))


def _spelled(low: int | None, high: int) -> str:
    return str(high) if low is None or low == high else f"{low}to{high}"


def parse_lengths(text: str, what: str) -> tuple[int | None, int]:
    """(min or None, max) tokens from `4096`, `4k` or a range `3000:4096`.

    Raises:
        BadInput: not a length.
    """
    low, separator, high = text.replace("to", ":").partition(":")
    if not separator:
        return None, parse_tokens(low)
    if parse_tokens(low) > parse_tokens(high):
        raise BadInput(f"{what} range {text!r} runs backwards: write the shorter length first, as 3000:4096.")
    return parse_tokens(low), parse_tokens(high)


class Matrix(StrictModel):
    """Every combination of prompt lengths, output lengths and concurrencies: a workload each.

    Lengths are written as on the command line: 4096, `4k`, or a range `3000:4096`.
    """

    isl: tuple[int | str, ...] = Field(min_length=1, description="Prompt lengths, tokens")
    osl: tuple[int | str, ...] = Field(min_length=1, description="Output lengths, tokens")
    concurrency: tuple[int, ...] = Field(default=(), description="Requests in flight; none = the default")

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """The workloads, ISL changing slowest.

        Raises:
            BadInput: not a length, or more workloads than a study can have.
        """
        return crossed(list(map(str, self.isl)), list(map(str, self.osl)), self.concurrency or (None,))


def crossed(
    isls: Sequence[str],
    osls: Sequence[str],
    concurrencies: Sequence[int | None] = (None,),
    request_rate_per_s: float | None = None,
) -> tuple[Workload, ...]:
    """Every combination of lengths and loads, ISL changing slowest.

    Raises:
        BadInput: not a length, an impossible workload, or more workloads than a study can have.
    """
    n_workloads = len(isls) * len(osls) * len(concurrencies)
    if n_workloads > MOST_WORKLOADS:
        raise BadInput(f"{len(isls)} ISL x {len(osls)} OSL x {len(concurrencies)} loads are {too_many(n_workloads)}")
    lengths = [(parse_lengths(isl, "ISL"), parse_lengths(osl, "OSL")) for isl in isls for osl in osls]
    data = [
        {"isl": isl, "osl": osl, "isl_min": isl_min, "osl_min": osl_min, "concurrency": concurrency}
        for (isl_min, isl), (osl_min, osl) in lengths
        for concurrency in concurrencies
    ]
    return tuple(parse(Workload, {**each, "request_rate_per_s": request_rate_per_s}, "workload") for each in data)


def too_many(n_workloads: int) -> str:
    """What is wrong with so many workloads, and what to do."""
    return (
        f"{n_workloads} workloads, and every launch would benchmark all of them; a study takes at most "
        f"{MOST_WORKLOADS}. Name fewer sizes, or run several studies."
    )


def parse_workload(text: str, concurrency: int | None = None, request_rate_per_s: float | None = None) -> Workload:
    """A workload from its short name: `1k1k`, `4k1k_c256`, `3000-700_c64`, `3000to4096-700_r12.5`.

    Args:
        text: The name; `_n128` behind it sends 128 requests. A load in the name wins over the other arguments.
        concurrency: Used when the name carries no load.
        request_rate_per_s: Used when the name carries no load.

    Raises:
        BadInput: not a workload name.
    """
    match = _NAME.fullmatch(text.strip())
    if not match:
        raise BadInput(
            f"{text!r} is not a workload name. Write 4k1k (ISL 4,096, OSL 1,024), 4k1k_c256 for 256 requests in "
            "flight, 4k1k_r12.5 for 12.5 requests/s, or spell the lengths: 3000-700_c256. 4k1k_n512 sends 512."
        )
    isl_min, isl = parse_lengths(match["isl"] or f"{match['isl_k']}k", "ISL")
    osl_min, osl = parse_lengths(match["osl"] or f"{match['osl_k']}k", "OSL")
    if match["concurrency"] or match["rate"]:
        concurrency = int(match["concurrency"]) if match["concurrency"] else None
        request_rate_per_s = float(match["rate"]) if match["rate"] else None
    n_requests = int(match["n_requests"]) if match["n_requests"] else None
    if 0 in (concurrency, request_rate_per_s, n_requests):
        raise BadInput(f"{text!r}: the load must be above zero.")
    return Workload(
        isl=isl,
        osl=osl,
        isl_min=isl_min,
        osl_min=osl_min,
        concurrency=concurrency,
        request_rate_per_s=request_rate_per_s,
        n_requests=n_requests,
    )
