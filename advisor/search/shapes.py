"""How far two workloads are apart: factors of two in ISL, OSL and concurrency."""

from __future__ import annotations

import math
from typing import Protocol

from pydantic import Field

from advisor.domain.errors import BadInput
from advisor.domain.strict import StrictModel
from advisor.domain.units import parse_tokens

UNSTATED_OCTAVES = 2.0  # a length or concurrency that one side does not state counts as a factor of four off
FAR_OCTAVES = 1.0  # beyond a factor of two in all, a configuration says little about another workload


class Shaped(Protocol):
    """Anything with lengths in tokens and a number of requests in flight, None where it is not stated."""

    @property
    def isl(self) -> int | None: ...
    @property
    def osl(self) -> int | None: ...
    @property
    def concurrency(self) -> int | None: ...


class Shape(StrictModel):
    """What somebody asks for by size alone."""

    isl: int = Field(ge=1, description="Prompt tokens")
    osl: int = Field(ge=1, description="Output tokens")
    concurrency: int | None = Field(default=None, ge=1, description="Requests in flight; null = any")


def octaves(theirs: Shaped, ours: Shaped) -> float:
    """Euclidean norm of the factors of two in ISL, OSL and, where `ours` states one, concurrency."""
    pairs = [(theirs.isl, ours.isl), (theirs.osl, ours.osl)]
    if ours.concurrency is not None:
        pairs.append((theirs.concurrency, ours.concurrency))
    return math.hypot(
        *(UNSTATED_OCTAVES if one is None or other is None else math.log2(one / other) for one, other in pairs)
    )


def parse_shape(text: str, concurrency: int | None = None) -> Shape:
    """A shape from `3000/700`, or `4k/1k`.

    Raises:
        BadInput: anything else.
    """
    isl, separator, osl = text.partition("/")
    if not separator:
        raise BadInput(f"{text!r} is not a shape: write ISL/OSL in tokens, such as 3000/700 or 4k/1k.")
    return Shape(isl=parse_tokens(isl.strip()), osl=parse_tokens(osl.strip()), concurrency=concurrency)
