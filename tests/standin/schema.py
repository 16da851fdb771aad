"""The published schema of a release as pydantic classes: what upstream's `TorchLlmArgs` accepts, in its own words.

The JSON files of `tests/data/trtllm_schema` state names, types, defaults, choices and conditions; pydantic gives the
text of the errors, as it does upstream.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from tests.standin.validators import CHECKS

FOLDER = Path(__file__).parents[1] / "data" / "trtllm_schema"

_TYPES: Mapping[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "path": str,
    "dict": dict[str, Any],
    "object": Any,
    "list[int]": list[int],
    "list[str]": list[str],
    "list[object]": list[Any],
    "list[list[int]]": list[list[int]],
    "set[int]": set[int],
    "dict[int,int]": dict[int, int],
    "dict[str,str]": dict[str, str],
    "dict[int,list[int]]": dict[int, list[int]],
}


class JudgedModel(BaseModel):
    """A class of the schema with its validators: the conditions that can be judged from the values alone."""

    checks: ClassVar[tuple[Callable[[Mapping[str, Any]], str | None], ...]] = ()

    @model_validator(mode="after")
    def _judge(self) -> JudgedModel:
        values = self.model_dump()
        for check in self.checks:
            message = check(values)
            if message is not None:
                raise ValueError(message)
        return self


@functools.cache
def schema(release: str) -> dict[str, Any]:
    """The JSON file of a release."""
    data: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))
    return data


@functools.cache
def llm_args_class(release: str) -> type[BaseModel]:
    """`TorchLlmArgs` of a release (a key of the schema files)."""
    data = schema(release)
    return _class("TorchLlmArgs", release, "", data["llm_args"], data["extra"])


def sub_config_class(release: str, name: str) -> type[BaseModel]:
    """The class behind one nested object, such as `kv_cache_config`."""
    sub = schema(release)["sub_configs"][name]
    return _class(_class_name(name), release, name, sub["fields"], sub.get("extra", "ignore"))


def _class(name: str, release: str, place: str, fields: Mapping[str, Any], extra: str) -> type[BaseModel]:
    conditions = {each["condition"] for each in schema(release)["validators"] if each["severity"] == "error"}
    checks = tuple(check for condition, check in CHECKS.get(place, {}).items() if condition in conditions)
    base = type(name, (JudgedModel,), {"model_config": _config(extra), "checks": checks, "__module__": __name__})
    told = " ".join(conditions)
    built: type[BaseModel] = create_model(
        name,
        __base__=base,
        **{key: _field(release, spec, key, bounded=key not in told) for key, spec in fields.items()},
    )
    return built


def _config(extra: str) -> ConfigDict:
    known: dict[str, Literal["forbid", "ignore", "allow"]] = {"forbid": "forbid", "allow": "allow"}
    return ConfigDict(extra=known.get(extra, "ignore"), protected_namespaces=(), populate_by_name=True)


def _field(release: str, spec: Mapping[str, Any], name: str, *, bounded: bool) -> Any:
    """A field; its bounds are pydantic's where no validator of the release words them."""
    annotation = _annotation(release, spec)
    options: dict[str, Any] = dict(_BOUNDS.get(spec.get("constraint", "").partition(";")[0], {})) if bounded else {}
    aliases = _aliases(spec)
    if aliases:
        options["validation_alias"] = AliasChoices(name, *aliases)
    if spec.get("required"):
        return (annotation, Field(**options))
    if spec.get("default") == "defaults":
        return (annotation, Field(default_factory=sub_config_class(release, spec["ref"]), **options))
    return (annotation, Field(default=spec.get("default"), **options))


_BOUNDS: Mapping[str, Mapping[str, int]] = {
    ">= 0": {"ge": 0},
    "> 0": {"gt": 0},
    ">= 1": {"ge": 1},
    "0..1": {"ge": 0, "le": 1},
    "> 0 and <= 1": {"gt": 0, "le": 1},
}


def _aliases(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(spec.get("aliases", ()))


def _annotation(release: str, spec: Mapping[str, Any]) -> Any:
    nullable = "null" in spec["type"] or (spec.get("default") is None and not spec.get("required"))
    if "ref" in spec and "object" in spec["type"]:
        annotation = _nested(release, spec["ref"])
    elif "choices" in spec and not spec["type"].startswith("list"):
        annotation = _choice(spec)
    else:
        kinds = [_TYPES[part] for part in spec["type"].split("|") if part != "null"]
        annotation = Any if Any in kinds else functools.reduce(operator.or_, kinds) if kinds else type(None)
    return annotation | None if nullable and annotation not in (Any, type(None)) else annotation


def _choice(spec: Mapping[str, Any]) -> Any:
    literal: Any = Literal[tuple(spec["choices"])]
    if "case-insensitive" not in spec.get("note", ""):
        return literal

    def known(value: Any) -> Any:
        if isinstance(value, str) and value.lower() not in spec["choices"]:
            raise ValueError(f"Invalid LoadFormat: {value}")
        return value.lower() if isinstance(value, str) else value

    return Annotated[literal, BeforeValidator(known)]


def _nested(release: str, name: str) -> Any:
    """A nested object's class, or the union of its variants by their tag (`decoding_type`)."""
    sub = schema(release)["sub_configs"][name]
    if "variants" not in sub:
        return sub_config_class(release, name)
    key, variants = sub["dispatch"], sub["variants"]

    def tagged(value: Any) -> Any:
        tag = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and tag not in variants:
            raise ValueError(_WRONG_TAG[key].format(tag=tag) if tag else _NO_TAG[key])
        return value

    classes = [
        _class(
            _class_name(f"{tag}_{name}"),
            release,
            f"{name}[{tag}]",
            {**fields, key: {"type": "str", "choices": [tag], "required": True}},
            sub.get("extra", "forbid"),
        )
        for tag, fields in variants.items()
    ]
    union = functools.reduce(operator.or_, classes)
    return Annotated[Annotated[union, Field(discriminator=key)], BeforeValidator(tagged)]


_WRONG_TAG = {"decoding_type": "Invalid decoding type: {tag}", "algorithm": "Invalid algorithm: {tag}"}
_NO_TAG = {"decoding_type": "Invalid decoding type: None", "algorithm": "Sparse attention algorithm is required"}


def _class_name(name: str) -> str:
    """`kv_cache_config` -> `KvCacheConfig`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
