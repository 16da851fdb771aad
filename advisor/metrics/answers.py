"""How far the answers of one launch are from those of another.

Greedy answers part for good once one token differs, so equal beginnings tell more than the number of equal words.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from advisor.domain.answers import Agreement, AnswerQuestion, GreedyAnswers


def agreement(texts: Sequence[str], reference: Sequence[str]) -> Agreement:
    """Compare answers to the same prompts.

    Args:
        texts: In the order of the prompts.
        reference: As many.
    """
    pairs = list(zip(texts, reference, strict=True))
    shares = [_common(ours, theirs) / len(theirs) if theirs else float(not ours) for ours, theirs in pairs]
    return Agreement(
        n_prompts=len(pairs),
        differing=sum(ours != theirs for ours, theirs in pairs) / len(pairs),
        common_prefix=sum(shares) / len(pairs),
    )


def noise_floor(launches: Sequence[GreedyAnswers]) -> float:
    """Share of prompts in which one configuration differs from itself: asked twice on a launch, or on two launches."""
    twice = [(each.again, each.texts) for each in launches if each.again]
    apart = [(each.texts, launches[0].texts) for each in launches[1:]]
    return max((agreement(*pair).differing for pair in (*twice, *apart)), default=0.0)


def drift_refusal(answers: GreedyAnswers, asked: AnswerQuestion) -> str | None:
    """Why answers are too far from the baseline's; None when they are not, or when nothing limits them."""
    if asked.reference is None or asked.limit is None:
        return None
    found = agreement(answers.texts, asked.reference.texts)
    if found.differing <= asked.floor + asked.limit:
        return None
    return (
        f"answers differ from the baseline in {100 * found.differing:.0f} % of {found.n_prompts} prompts; "
        f"{100 * asked.limit:.0f} % are allowed beyond the {100 * asked.floor:.0f} % in which the baseline differs "
        "from itself (--max-answer-drift)"
    )


def _common(a: str, b: str) -> int:
    """Characters of the equal beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
