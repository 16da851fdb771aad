"""Conditions between dimensions against a plain enumeration in Python, and what cannot be meant."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig, config_from_flat
from advisor.domain.strict import changed, parse
from advisor.domain.study import SearchSpace
from advisor.search.space import (
    all_configs,
    config_at,
    contains,
    indices_of,
    is_kept,
    neighbours,
    restrict,
)

BACKENDS, LISTS = ("CUTLASS", "TRTLLM", "DEEPGEMM"), ("auto", "powers_of_2", "[1, 2, 4]")
LADDERS: dict[str, list[Any]] = {
    "max_batch_size": [8, 24, 64],
    "max_num_tokens": [64, 100, 512],
    "cuda_graph_max_batch_size": [0, 16, 64],
    "kv_cache_free_gpu_memory_fraction": [0.5, 0.9],
    "moe_backend": list(BACKENDS),
    "cuda_graph_batch_sizes": ["auto", "powers_of_2", [1, 2, 4]],
    "ep": [1, 2, 4],
}
DEFAULTS = {"moe_backend": "CUTLASS", "cuda_graph_batch_sizes": "auto", "ep": 1}
CONDITIONS: list[dict[str, Any]] = [
    {"setting": "cuda_graph_max_batch_size", "at_most": "max_batch_size"},
    {"setting": "max_num_tokens", "at_least": "ep * max_batch_size"},
    {"setting": "max_num_tokens", "multiple_of": 8},
    {"setting": "max_num_tokens", "at_most": "10 * max_batch_size"},
    {"setting": "cuda_graph_batch_sizes", "unless": {"cuda_graph_max_batch_size": 0}},
    {"setting": "moe_backend", "only_when": {"ep": [2, 4], "kv_cache_free_gpu_memory_fraction": [0.9]}},
    {"forbid": {"moe_backend": "TRTLLM", "ep": 4}},
]


def document(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    dimensions = [
        {"name": name, "values": values, "reason": "test", "default": DEFAULTS.get(name)}
        for name, values in LADDERS.items()
    ]
    return {
        "name": "test",
        "description": "test",
        "dimensions": dimensions,
        "conditions": [{**each, "reason": "test"} for each in conditions],
    }


def space_of(conditions: list[dict[str, Any]]) -> SearchSpace:
    return parse(SearchSpace, document(conditions), "test.yaml")


def by_hand(chosen: list[dict[str, Any]]) -> set[ServingConfig]:
    """Every combination, each condition written out once more, in an order that respects what depends on what."""
    at_most, at_least, multiple, ten, unless, only, forbid = (each in chosen for each in CONDITIONS)
    found = set()
    for batch, tokens, graphs, fraction, backend, sizes, ep in itertools.product(*LADDERS.values()):
        graphs = min(graphs, batch) if at_most else graphs
        low, high = ep * batch if at_least else 0, 10 * batch if ten else 10**9
        for condition in chosen:
            if condition.get("at_least"):
                tokens = max(tokens, low)
            if condition.get("at_most") == "10 * max_batch_size":
                tokens = min(tokens, high)
        backend = "CUTLASS" if only and not (ep in (2, 4) and fraction == 0.9) else backend
        sizes = "auto" if unless and graphs == 0 else sizes
        left_out = (
            (forbid and backend == "TRTLLM" and ep == 4) or (multiple and tokens % 8) or not low <= tokens <= high
        )
        if not left_out:
            values = (batch, tokens, graphs, fraction, backend, str(sizes), ep)
            found.add(config_from_flat(dict(zip(LADDERS, values, strict=True))))
    return found


@settings(max_examples=6)
@given(st.permutations(CONDITIONS), st.integers(0, len(CONDITIONS)))
def test_the_grid_is_the_plain_enumeration_each_server_once(conditions: list[dict[str, Any]], n: int) -> None:
    space = space_of(conditions[:n])
    configs = all_configs(space)
    assert len(configs) == len(set(configs))
    assert set(configs) == by_hand(conditions[:n])
    for config in configs[:: max(1, len(configs) // 6)]:
        assert contains(space, config)
        assert config_at(space, indices_of(space, config)) == config
        assert all(near != config and contains(space, near) for near in neighbours(space, config))


def test_what_is_left_out_is_not_of_the_grid() -> None:
    space = space_of([CONDITIONS[-1]])
    here = dict.fromkeys(LADDERS, 0)
    out = config_at(space, {**here, "moe_backend": 1, "ep": 2})
    assert not is_kept(space, out) and not contains(space, out) and out not in all_configs(space)


def test_a_sleeping_partner_stands_at_its_default() -> None:
    """Graphs that depend on a dimension which is not searched see where it stands."""
    space = space_of([{"setting": "moe_backend", "only_when": {"ep": [2, 4]}}])
    asleep = changed(
        space,
        dimensions=tuple(changed(each, enabled=False) if each.name == "ep" else each for each in space.dimensions),
    )
    assert {config.options["moe_backend"] for config in all_configs(asleep)} == {"CUTLASS"}
    other = tuple(changed(each, default=2) if each.name == "ep" else each for each in asleep.dimensions)
    assert {config.options["moe_backend"] for config in all_configs(changed(asleep, dimensions=other))} == set(BACKENDS)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"setting": "ep", "at_lest": 2}, "Did you mean 'at_least'"),
        ({"setting": "ep", "at_most": "max_bath_size"}, "no dimension of this space. Did you mean 'max_batch_size'"),
        ({"setting": "ep", "at_most": 4, "at_least": 2}, "exactly one of .* at_most and at_least"),
        ({"setting": "ep"}, "this one says none"),
        ({"at_most": 4}, "at_most needs the setting"),
        ({"setting": "ep", "forbid": {"ep": 1}}, "forbid takes no setting"),
        ({"setting": "ep", "at_most": "2 + ep"}, "is no limit"),
        ({"forbid": {}}, "names no dimension"),
        ({"forbid": {"moe_backend": "TRTLM"}}, "not on its ladder .* Did you mean 'TRTLLM'"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused_with_the_way_out(condition: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        space_of([condition])


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([{"setting": "moe_backend", "at_most": "ep"}], "needs ladders of numbers"),
        ([{"setting": "ep", "at_most": "kv_cache_free_gpu_memory_fraction"}], "needs ladders of numbers"),
        ([{"setting": "max_batch_size", "unless": {"ep": 1}}], "state its `default`"),
        ([{"forbid": {"ep": [1, 2, 4]}}], "leave no combination"),
    ],
)
def test_a_space_that_cannot_be_searched(conditions: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        restrict(space_of(conditions))


def test_conditions_in_a_circle_and_spaces_too_large_are_refused() -> None:
    circle = [
        {"setting": "max_batch_size", "at_most": "max_num_tokens"},
        {"setting": "cuda_graph_max_batch_size", "at_most": "max_batch_size"},
        {"setting": "max_num_tokens", "at_least": "cuda_graph_max_batch_size"},
    ]
    with pytest.raises(BadInput, match=r"round in a circle \(.*max_num_tokens.*\)"):
        space_of(circle)
    wide = document([])
    wide["dimensions"] += [{"name": f"option_{i}", "values": list(range(9)), "reason": "test"} for i in range(4)]
    with pytest.raises(BadInput, match="combinations; at most"):
        restrict(parse(SearchSpace, wide, "wide.yaml"))


def test_what_changes_answers_is_switched_on_by_name_only() -> None:
    loud = document([])
    loud["dimensions"][4]["changes_answers"] = True
    space = parse(SearchSpace, loud, "loud.yaml")
    with pytest.raises(BadInput, match="--vary moe_backend"):
        restrict(space)
    assert {config.options["moe_backend"] for config in all_configs(restrict(space, ["moe_backend"]))} == set(BACKENDS)


@pytest.mark.parametrize("values", [[1, True], [1, 1.0], ["a", "a"]])
def test_steps_that_would_be_equal_configurations_are_one_step(values: list[Any]) -> None:
    with pytest.raises(BadInput, match="listed twice"):
        parse(SearchSpace, {**document([]), "dimensions": [{"name": "x", "values": values, "reason": "test"}]}, "x")
