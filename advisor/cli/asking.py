"""From shared options to a Question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.app.setup import Question


def question(**said: Any) -> Question:
    """The question that these options ask; lists become tuples, what was not said stays None.

    Raises:
        BadInput: a value that cannot be meant.
    """
    from advisor.app.setup import Question
    from advisor.domain.strict import parse

    plain = {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in said.items()}
    for repeatable in ("workloads", "vary"):
        plain[repeatable] = plain.get(repeatable) or []
    return parse(Question, plain, "options")
