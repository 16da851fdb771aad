"""A search space in the words of one release: names, defaults, what changes answers, which steps it would refuse."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import ValidationError

from advisor.domain.deployment import Deployment, ModelFacts
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue
from advisor.domain.strict import changed, explain
from advisor.domain.study import Condition, Dimension, SearchSpace
from advisor.engines.dialect import EngineDialect
from advisor.search.space import columns


def spoken_space(
    space: SearchSpace, vary: Collection[str], spoken: EngineDialect, deployment: Deployment
) -> SearchSpace:
    """The space with every dimension under advisor's own name, and with what is known about it.

    Where the baseline stands is what the space says, else what the deployment fixes, else what the release does; of a
    dimension that is not searched the deployment speaks first.

    Args:
        space: As its file says, in any spelling that some release has.
        vary: Dimensions searched besides those that are enabled, under advisor's own names.
        spoken: The release.
        deployment: Of the study.

    Raises:
        BadInput: two spellings of one dimension, or a condition on a value that is not on a ladder.
    """
    names = {each.name: spoken.canonical(each.name) for each in space.dimensions}
    try:
        return changed(
            space,
            dimensions=tuple(_known(each, names[each.name], vary, spoken, deployment) for each in space.dimensions),
            conditions=tuple(_renamed(condition, names) for condition in space.conditions),
        )
    except ValidationError as error:
        raise BadInput(f"Search space {space.name!r}: {explain(error, SearchSpace)}") from None


def check_dimensions(space: SearchSpace, spoken: EngineDialect, deployment: Deployment, facts: ModelFacts) -> None:
    """Refuse a step that the release, the deployment or the model cannot have, and a dimension without a default.

    Raises:
        BadInput: naming the space, the dimension and the step.
    """
    for dimension in space.active:
        if dimension.name in FOUR_SETTINGS:
            continue
        place = f"Search space {space.name!r}, dimension {dimension.name}"
        if dimension.name == "moe_backend" and not facts.is_moe:
            raise BadInput(f"{place}: {facts.name} has no experts, so there is no backend of them to choose.")
        default = () if dimension.default is None else (dimension.default,)
        for value in (*dimension.values, *default):
            try:
                spoken.check_option(dimension.name, value)
                deployment.with_options({dimension.name: value}).check_model(facts)
            except BadInput as error:
                raise BadInput(f"{place}: {error}") from None
        if not default:
            raise BadInput(f"{place}: nobody says where the baseline stands. State its `default` in the space.")
    _check_layouts(space, deployment, facts)


def _check_layouts(space: SearchSpace, deployment: Deployment, facts: ModelFacts) -> None:
    """Every combination of tp and ep on the grid must be a layout.

    Raises:
        BadInput: with the condition that would leave it out.
    """
    table = columns(space)
    if not {"tp", "ep"} <= set(table):
        return
    for tp, ep in sorted(set(zip(table["tp"].tolist(), table["ep"].tolist(), strict=True))):
        try:
            deployment.with_options({"tp": tp, "ep": ep}).check_model(facts)
        except BadInput as error:
            raise BadInput(
                f"Search space {space.name!r}, tp {tp} with ep {ep}: {error} Leave such combinations out with a "
                "condition, such as `setting: tp` and `multiple_of: ep`."
            ) from None


def _known(
    dimension: Dimension, name: str, vary: Collection[str], spoken: EngineDialect, deployment: Deployment
) -> Dimension:
    searched = dimension.enabled or name in vary
    fixed = deployment.option(name)
    of_release = spoken.silent_option(name)
    candidates = (dimension.default, fixed, of_release) if searched else (fixed, dimension.default, of_release)
    return changed(
        dimension,
        name=name,
        default=next((each for each in candidates if each is not None), None),
        changes_answers=dimension.changes_answers or name in spoken.changes_answers,
    )


def _renamed(condition: Condition, names: Mapping[str, str]) -> Condition:
    """The same relation between dimensions of other names."""

    def limit(said: OptionValue | None) -> OptionValue | None:
        if not isinstance(said, str):
            return said
        return " * ".join(names.get(part.strip(), part.strip()) for part in said.split("*"))

    limits = {name: limit(getattr(condition, name)) for name in ("at_most", "at_least", "multiple_of")}
    choices = {
        name: None if choice is None else {names[each]: values for each, values in choice.items()}
        for name, choice in (
            ("only_when", condition.only_when),
            ("unless", condition.unless),
            ("forbid", condition.forbid),
        )
    }
    setting = None if condition.setting is None else names[condition.setting]
    return changed(condition, setting=setting, **limits, **choices)
