"""What launches answer to the same prompts: whether a dimension that can change answers did."""

from __future__ import annotations

from pydantic import Field

from advisor.domain.strict import StrictModel

DEFAULT_MOST_DRIFT = 0.25  # assumed: half of the prompts of a broken kernel differ, see docs/decisions/answers.md


class GreedyAnswers(StrictModel):
    """Texts that one launch gave at temperature 0, one a prompt, in the order of the prompts."""

    n_tokens: int = Field(ge=1, description="Most tokens of an answer")
    texts: tuple[str, ...] = Field(min_length=1)
    again: tuple[str, ...] = Field(default=(), description="The same prompts asked once more; of baselines only")


class AnswerQuestion(StrictModel):
    """Has a trial asked for its answers, and says when they are too far from those of the baseline."""

    reference: GreedyAnswers | None = Field(default=None, description="Of the baseline; none: this launch is to be it")
    floor: float = Field(default=0.0, ge=0, le=1, description="Share in which the baseline differs from itself")
    limit: float | None = Field(default=None, ge=0, le=1, description="Most drift beyond the floor; none: any")


class Agreement(StrictModel):
    """How two lists of answers compare, prompt by prompt."""

    n_prompts: int
    differing: float = Field(description="Share of prompts whose answers are not equal")
    common_prefix: float = Field(description="Mean length of the equal beginning, a share of the reference's answer")


class Departure(StrictModel):
    """A trial whose answers are further from the baseline's than the limit allows."""

    trial: int
    differing: float


class AnswerCheck(StrictModel):
    """Whether answers changed, in a study that searches dimensions which can change them."""

    dimensions: tuple[str, ...]
    n_tokens: int | None = Field(default=None, description="Of an answer; null where nothing was checked (the twin)")
    floor: float | None = Field(default=None, description="Share in which the baseline differs from itself")
    limit: float = Field(description="Share of prompts, beyond the floor, that may differ")
    best: Agreement | None = Field(default=None, description="The best against the baseline, its worst launch")
    departed: tuple[Departure, ...] = ()
