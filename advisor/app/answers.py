"""The answers of a study's launches: what each is asked, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.context import StudyContext
from advisor.domain.answers import Agreement, AnswerCheck, AnswerQuestion, Departure, GreedyAnswers
from advisor.domain.serving_config import ServingConfig
from advisor.domain.study import SearchSpace
from advisor.domain.trial import TrialRecord
from advisor.metrics.answers import agreement, noise_floor


def answer_dimensions(space: SearchSpace) -> tuple[str, ...]:
    """Searched dimensions that can change what the model says."""
    return tuple(each.name for each in space.active if each.changes_answers and len(each.values) > 1)


def answer_question(
    context: StudyContext, records: Sequence[TrialRecord], config: ServingConfig
) -> AnswerQuestion | None:
    """What the launch of a configuration is asked; None where nothing that is searched can change answers."""
    if not answer_dimensions(context.space):
        return None
    known = _of_baseline(records)
    if not known:
        return AnswerQuestion()
    answers = _answers(known)
    limit = None if config == known[0].config else context.max_answer_drift
    return AnswerQuestion(reference=answers[0], floor=noise_floor(answers), limit=limit)


def answer_check(
    context: StudyContext, records: Sequence[TrialRecord], best: ServingConfig | None
) -> AnswerCheck | None:
    """What came of it; None where nothing that is searched can change answers."""
    dimensions = answer_dimensions(context.space)
    if not dimensions:
        return None
    known = _answers(_of_baseline(records))
    if not known:
        return AnswerCheck(dimensions=dimensions, limit=context.max_answer_drift)
    floor, found = noise_floor(known), agreements(records)
    of_best = [found[record.number] for record in records if record.config == best and record.number in found]
    most = floor + context.max_answer_drift
    return AnswerCheck(
        dimensions=dimensions,
        n_tokens=known[0].n_tokens,
        floor=floor,
        limit=context.max_answer_drift,
        best=max(of_best, key=lambda each: each.differing, default=None),
        departed=tuple(
            Departure(trial=number, differing=each.differing) for number, each in found.items() if each.differing > most
        ),
    )


def agreements(records: Sequence[TrialRecord]) -> dict[int, Agreement]:
    """The answers of each trial, by its number, against the first of the baseline; empty where nothing was asked."""
    known = _answers(_of_baseline(records))
    return {
        record.number: agreement(record.answers.texts, known[0].texts)
        for record in records
        if known and record.answers is not None
    }


def _of_baseline(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Launches of the first baseline that answered."""
    first = next((record for record in records if record.role == "baseline" and record.answers is not None), None)
    return [] if first is None else [r for r in records if r.config == first.config and r.answers is not None]


def _answers(records: Sequence[TrialRecord]) -> list[GreedyAnswers]:
    return [record.answers for record in records if record.answers is not None]
