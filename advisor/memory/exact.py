"""Remedies made exact by the memory law: the least change that covers the shortfall, what it frees and what it costs.

Only differences of the law count, between the settings as they are and as they would be, at the stage that ran out.
After the KV pool is sized that is sobering: what activations or graphs give up, the pool takes its fraction of.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from advisor.domain.strict import changed
from advisor.memory.known import Known
from advisor.memory.pricing import Price, Pricing, Setting
from advisor.memory.remedies import (
    FRACTION_STEP,
    LEAST_FRACTION,
    LEAST_TOKENS,
    MARGIN,
    MOST_FRACTION,
    Remedy,
    Symptom,
    change,
    patch_of,
)
from advisor.memory.stages import LOAD, POOL, law_stage

WORTH_SAYING = 0.25  # of what is needed; GiB where nobody knows how much is
DEEPEST_CUT = 1 / 8  # of a limit: below, another remedy is meant
_DOUBT = {"high": 0.0, "medium": 0.02, "low": 0.05}  # what less confidence weighs, as a share of throughput
PRICED: tuple[Setting, ...] = ("fraction", "tokens", "batch", "graphs")

Changes = Mapping[Setting, float]


@dataclass(frozen=True)
class _Goal:
    """What has to be won: GiB at the stage that ran out, or KV tokens. `needed` None where nobody knows how much."""

    gain: Callable[[Changes], float]
    needed: float | None
    in_tokens: bool = False

    def is_met(self, gain: float) -> bool | None:
        """Whether a gain is enough."""
        return None if self.needed is None else gain >= self.needed


def exact(found: Sequence[Remedy], symptom: Symptom, known: Known) -> tuple[Remedy, ...]:
    """The remedies with the law's figures, those that are enough alone first; what frees nothing is left out.

    Without the law, or where it has no say or contradicts the log, they stay as they are.
    """
    goal = _goal(symptom, known)
    if goal is None or known.pricing is None or (goal.in_tokens and goal.is_met(goal.gain({}))):
        return tuple(found)
    settings = {known.spelling(setting).name: setting for setting in PRICED}
    priced = [
        _priced(each, settings[each.setting], goal, known.pricing, known) if each.setting in settings else each
        for each in found
    ]
    return _ranked(priced, settings)


def ready_patch(found: Sequence[Remedy], symptom: Symptom, known: Known) -> tuple[str | None, tuple[str, ...]]:
    """YAML to merge that covers the shortfall at the least cost, and flags for what the release has no key for.

    The first remedy that is enough alone; else the first ones together until they are; else the first that can be said.
    """
    settings = {known.spelling(setting).name: setting for setting in PRICED}
    changes: dict[Setting, float] = {}
    alone = next((each for each in found if each.covers), None)
    goal = _goal(symptom, known)
    for each in [alone] if alone else found:
        if each.setting in settings and isinstance(each.to, (int, float)):
            changes[settings[each.setting]] = each.to
            if alone or goal is None or goal.needed is None or goal.is_met(goal.gain(changes)):
                break
    if not changes:
        said = () if symptom.kind == "host_oom" else found  # whose patches are for the container
        first = next((each for each in said if each.yaml_patch or each.flag), None)
        flag = first.flag if first and not first.yaml_patch else None
        return first.yaml_patch if first else None, (flag,) if flag else ()
    unsaid = (setting for setting in changes if known.spelling(setting).path is None)
    flags = tuple(f"{known.spelling(setting).flag} {changes[setting]:g}" for setting in unsaid)
    return patch_of(known, changes), flags


def prices(known: Known) -> tuple[Price, ...]:
    """What a step of each setting is worth, where the law is known."""
    return () if known.pricing is None else known.pricing.prices(lambda setting: known.spelling(setting).name)


def _goal(symptom: Symptom, known: Known) -> _Goal | None:
    pricing = known.pricing
    if pricing is None:
        return None
    if symptom.kind in ("insufficient_kv", "benign"):
        said = symptom.cause.number("wanted_tokens") if symptom.cause else None
        longest = said or known.settings.get("seq")
        return _Goal(lambda changes: float(pricing.kv_tokens(changes)), longest, in_tokens=True)
    stage = law_stage(symptom.stage, symptom.component)
    if symptom.kind != "oom" or stage is None or stage == LOAD:
        return None
    needed = None if symptom.missing_gib is None else MARGIN * symptom.missing_gib
    if stage == POOL:  # a pool larger than what was free: less of it is the gain
        now_gib = float(pricing.budget().kv_pool_gib)
        return _Goal(lambda changes: now_gib - float(pricing.budget(changes).kv_pool_gib), needed)
    return _Goal(lambda changes: pricing.frees_gib(stage, changes), needed)


def _priced(remedy: Remedy, setting: Setting, goal: _Goal, pricing: Pricing, known: Known) -> Remedy | None:
    """The least step that is enough, else the deepest one that still helps; None where no step does."""
    base = goal.gain({}) if goal.in_tokens else 0.0
    worth = base + WORTH_SAYING * ((goal.needed or 1.0) - base)
    steps = _ladder(setting, pricing.settings[setting], goal.in_tokens)
    gains = {to: gain for to in steps if (gain := goal.gain({setting: to})) > worth}
    if not gains:
        return None
    usual = remedy.to if goal.needed is None and remedy.to in gains else None
    nearest, deepest = next(iter(gains)), next(reversed(gains))
    enough = next((to for to, gain in gains.items() if goal.is_met(gain)), None)
    to = enough or (float(usual) if usual is not None else nearest if goal.needed is None else deepest)
    now, after = pricing.budget(), pricing.budget({setting: to})
    freed = gains[to] if not goal.in_tokens else float(after.kv_pool_gib - now.kv_pool_gib)
    told = "" if setting in known.settings else f"; from {pricing.settings[setting]:g}, the default, as nothing says"
    ratio = known.throughput({setting: to}) if known.throughput else None
    return changed(
        change(known, setting, to, remedy.why + told, remedy.confidence, freed),
        covers=goal.is_met(gains[to]),
        kv_tokens_change=int(after.kv_tokens) - int(now.kv_tokens),
        throughput_change=None if ratio is None else round(ratio - 1.0, 4),
    )


def _ladder(setting: Setting, now: float, up: bool) -> Iterator[float]:
    """Values to try, the nearest first: a fraction goes up where the pool is too small, everything else goes down.

    Down it goes a whole step at least: the allocation that failed first is rarely the last.
    """
    if setting == "fraction":
        first = round(100 * now) + 1 if up else round(100 * (now - FRACTION_STEP))
        last = round(100 * (MOST_FRACTION if up else LEAST_FRACTION))
        yield from (percent / 100 for percent in (range(first, last + 1) if up else range(first, last - 1, -1)))
        return
    least = max(LEAST_TOKENS if setting == "tokens" else 1, DEEPEST_CUT * now)
    steps = sorted({2**k * odd // 2 for k in range(1, 18) for odd in (2, 3)}, reverse=True)
    yield from (float(step) for step in steps if least <= step < now)
    if setting == "graphs" and now > 0:
        yield 0.0


def _ranked(found: Iterable[Remedy | None], priced: Container[str]) -> tuple[Remedy, ...]:
    """Of the settings that have a price, those that are enough alone first, among them by lost throughput and doubt
    where both are known. Everything else keeps its place.
    """

    def rank(remedy: Remedy) -> tuple[bool, float]:
        lost = 0.0 if remedy.throughput_change is None else _DOUBT[remedy.confidence] - remedy.throughput_change
        return remedy.covers is False, lost

    kept = [each for each in found if each is not None]
    ranked = iter(sorted((each for each in kept if each.setting in priced), key=rank))
    return tuple(next(ranked) if each.setting in priced else each for each in kept)
