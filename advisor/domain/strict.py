"""The base of all models, and the door through which foreign data enter."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from advisor.domain.errors import BadInput


class StrictModel(BaseModel):
    """Frozen, no unknown keys, no silent conversion. Change one with `changed`, which validates again."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=StrictModel)


def changed(model: ModelT, /, **updates: Any) -> ModelT:
    """A validated copy with some fields replaced (`model_copy` alone does not validate)."""
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return type(model)(**{**fields, **updates})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` when something known is close, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown_name(what: str, word: str, known: Iterable[str]) -> BadInput:
    """The error for a name that is none of the known ones."""
    names = sorted(known)
    return BadInput(f"Unknown {what} {word!r}.{did_you_mean(word, names)} Known: {', '.join(names)}.")


def parse(model: type[ModelT], data: Mapping[str, Any], where: str) -> ModelT:
    """Build a model from plain data (a YAML or JSON mapping), or explain in one paragraph why not.

    Args:
        model: The model to build.
        data: Plain data; lists stand for tuples, as in JSON.
        where: What the data are, for the message: a path, `--slo` ...

    Raises:
        BadInput: with the place and meaning of every mistake, and the nearest known key for unknown ones.
    """
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise BadInput(f"{where}: {explain(error, model)}") from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: not plain data ({error}).") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The mistakes of a pydantic error as one sentence each."""
    sentences = []
    for mistake in error.errors(include_url=False):
        place = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "extra_forbidden":
            key = str(mistake["loc"][-1])
            sentences.append(f"unknown key {place!r}.{did_you_mean(key, _keys_near(model, mistake['loc']))}")
        elif mistake["type"] == "missing":
            sentences.append(f"{place!r} is missing.")
        elif mistake["type"] == "too_short":
            sentences.append(f"{place!r} is empty; at least {mistake['ctx']['min_length']} is needed.")
        elif mistake["type"] == "value_error":
            sentences.append(f"{place}: {mistake['ctx']['error']}" if place else str(mistake["ctx"]["error"]))
        else:
            sentences.append(f"{place}: {mistake['msg']} (got {mistake['input']!r}).")
    return " ".join(sentences)


def _keys_near(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names that would have been legal where an unknown key stood."""
    current: type[BaseModel] = model
    for part in loc[:-1]:
        field = current.model_fields.get(str(part))
        inner = _model_inside(field.annotation) if field else None
        if inner is not None:
            current = inner
    return list(current.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_inside(inner)
        if found is not None:
            return found
    return None
