"""The space as a grid, against plain enumeration."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig, config_from_flat
from advisor.domain.strict import changed, parse
from advisor.domain.study import Condition, Dimension, SearchSpace
from advisor.search.space import (
    all_configs,
    checked,
    columns,
    completed,
    config_at,
    contains,
    grid_size,
    indices_of,
    neighbours,
    restrict,
    widened,
)

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
SIZES = st.sets(st.integers(1, 3000), min_size=1, max_size=4).map(sorted).map(tuple)


def dimension(name: str, *values: object) -> Dimension:
    return Dimension.model_validate({"name": name, "values": tuple(values), "reason": "test"})


def at_most(setting: str, partner: str) -> Condition:
    return Condition(setting=setting, at_most=partner, reason="test")


def space_of(batch: tuple[int, ...], tokens: tuple[int, ...], graphs: tuple[int, ...]) -> SearchSpace:
    return SearchSpace(
        name="test",
        description="test",
        dimensions=(
            dimension("max_batch_size", *batch),
            dimension("max_num_tokens", *tokens),
            dimension("cuda_graph_max_batch_size", *graphs),
            dimension("kv_cache_free_gpu_memory_fraction", 0.5, 0.9),
            dimension("stream_interval", 1, 4),
            changed(dimension("kv_cache_dtype", "auto", "fp8"), enabled=False),
        ),
        # The chain is listed in the wrong order on purpose: it must settle all the same.
        conditions=(
            at_most("cuda_graph_max_batch_size", "max_batch_size"),
            at_most("max_batch_size", "max_num_tokens"),
        ),
    )


SPACE = space_of((8, 96, 384), (64, 1024), (0, 64, 512, 1024))


def lowered(batch: int, tokens: int, graphs: int) -> tuple[int, int, int]:
    batch = min(batch, tokens)
    return batch, tokens, min(graphs, batch)


def enumerated(batch: tuple[int, ...], tokens: tuple[int, ...], graphs: tuple[int, ...]) -> set[ServingConfig]:
    """The grid by hand: every combination, the conditions as two `min`."""
    found = set()
    for b, t, g, f, s in itertools.product(batch, tokens, graphs, (0.5, 0.9), (1, 4)):
        settings = dict(zip(FOUR_SETTINGS, (*lowered(b, t, g), f), strict=True))
        found.add(config_from_flat({**settings, "stream_interval": s}))
    return found


@settings(max_examples=30)
@given(batch=SIZES, tokens=SIZES, graphs=SIZES)
def test_grid_is_every_combination_lowered_once(
    batch: tuple[int, ...], tokens: tuple[int, ...], graphs: tuple[int, ...]
) -> None:
    space = space_of(batch, tokens, graphs)
    configs = all_configs(space)
    assert len(configs) == len(set(configs))
    assert set(configs) == enumerated(batch, tokens, graphs)
    assert len(configs) <= grid_size(space) == len(batch) * len(tokens) * len(graphs) * 4
    for name, column in columns(space).items():
        assert column.tolist() == [config.flat()[name] for config in configs]
    for config in configs:
        assert contains(space, config)
        assert config_at(space, indices_of(space, config)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces(path: Path) -> None:
    space = parse(SearchSpace, yaml.safe_load(path.read_text()), path.name)
    searched = restrict(space, ["enable_attention_dp", "enable_chunked_prefill"])
    configs = all_configs(searched)
    assert len(set(configs)) == len(configs) <= grid_size(searched)
    for config in configs[:: max(1, len(configs) // 300)]:
        assert config_at(searched, indices_of(searched, config)) == config
        assert config.max_batch_size <= config.max_num_tokens
        values = config.flat()
        for each in (each for each in space.conditions if each.at_most is not None):
            assert values[str(each.setting)] <= values[str(each.at_most)]  # type: ignore[operator]


def test_graphs_up_to_the_batch_size_are_on_the_grid_between_ladder_steps() -> None:
    index = {"max_batch_size": 2, "max_num_tokens": 1, "kv_cache_free_gpu_memory_fraction": 0, "stream_interval": 0}
    first, second = (config_at(SPACE, {**index, "cuda_graph_max_batch_size": step}) for step in (2, 3))
    assert first == second
    assert (first.max_batch_size, first.cuda_graph_max_batch_size) == (384, 384)
    assert indices_of(SPACE, first)["cuda_graph_max_batch_size"] == 2


def test_indices_of_a_baseline_beside_the_ladders_are_the_nearest_by_ratio() -> None:
    config = ServingConfig(
        max_batch_size=30,
        max_num_tokens=300,
        cuda_graph_max_batch_size=5,
        kv_cache_free_gpu_memory_fraction=0.72,
        options={"stream_interval": 100},
    )
    assert not contains(SPACE, config)
    assert indices_of(SPACE, config) == {
        "max_batch_size": 1,  # 30/8 = 3.8, 96/30 = 3.2
        "max_num_tokens": 1,  # 300/64 = 4.7, 1024/300 = 3.4
        "cuda_graph_max_batch_size": 0,
        "kv_cache_free_gpu_memory_fraction": 1,
        "stream_interval": 1,
    }


def test_a_configuration_that_leaves_an_option_open_is_completed_from_the_deployment() -> None:
    config = changed(all_configs(SPACE)[0], options={})
    deployment = Deployment(model="m", quantization="fp8", gpu="g", gpus=1, tp=1, stream_interval=4)
    with pytest.raises(BadInput, match="stream_interval"):
        indices_of(SPACE, config)
    assert not contains(SPACE, config)
    assert completed(SPACE, config, deployment).options == {"stream_interval": 4}
    stated = changed(config, options={"stream_interval": 1})
    assert completed(SPACE, stated, deployment) == stated


@given(st.data())
def test_neighbours_are_other_points_one_setting_away_and_so_are_we(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(all_configs(SPACE)))
    for near in neighbours(SPACE, config):
        assert near != config
        assert contains(SPACE, near)
    lone = changed(SPACE, conditions=())
    for near in neighbours(lone, config_at(lone, indices_of(SPACE, config))):
        back = config_at(lone, indices_of(SPACE, config))
        assert sum(near.flat()[name] != back.flat()[name] for name in near.flat()) == 1
        assert back in neighbours(lone, near)


def test_neighbours_connect_the_whole_grid() -> None:
    reached, ring = set(all_configs(SPACE)[:1]), list(all_configs(SPACE)[:1])
    while ring:
        ring = [near for here in ring for near in neighbours(SPACE, here) if near not in reached]
        reached.update(ring)
    assert reached == set(all_configs(SPACE))


def test_restrict_enables_what_varies_and_pins_what_is_fixed() -> None:
    searched = restrict(SPACE, vary=["kv_cache_dtype"], fixed={"stream_interval": 10, "max_batch_size": 100})
    assert {config.options["kv_cache_dtype"] for config in all_configs(searched)} == {"auto", "fp8"}
    assert {config.options["stream_interval"] for config in all_configs(searched)} == {10}
    assert {config.max_batch_size for config in all_configs(searched)} == {64, 100}
    assert "kv_cache_dtype" not in all_configs(restrict(SPACE))[0].options


def without(name: str) -> SearchSpace:
    dimensions = tuple(changed(d, enabled=False) if d.name == name else d for d in SPACE.dimensions)
    return changed(SPACE, dimensions=dimensions)


def replaced(*new: Dimension) -> SearchSpace:
    by_name = {d.name: d for d in new}
    return changed(SPACE, dimensions=tuple(by_name.get(d.name, d) for d in SPACE.dimensions))


@pytest.mark.parametrize("name", FOUR_SETTINGS)
def test_a_space_without_one_of_the_four_settings_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=rf"leaves out {name}.*ladder of one value"):
        checked(without(name))


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (replaced(dimension("kv_cache_free_gpu_memory_fraction", 0.9, 1.0)), "less than 1"),
        (replaced(dimension("max_batch_size", 0, 8)), "greater than or equal to 1"),
        (replaced(dimension("max_num_tokens", 8.5)), "integer"),
        (changed(SPACE, conditions=(at_most("stream_interval", "kv_cache_free_gpu_memory_fraction"),)), "same kind"),
        (replaced(dimension("stream_interval", False, True)), None),
    ],
)
def test_ladders_that_cannot_be_meant(space: SearchSpace, words: str | None) -> None:
    if words is None:
        assert checked(space) is space
    else:
        with pytest.raises(BadInput, match=words):
            checked(space)


def test_unknown_dimension_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean 'stream_interval'"):
        restrict(SPACE, vary=["stream_intervall"])


def test_conditions_on_sleeping_dimensions_sleep() -> None:
    space = changed(SPACE, conditions=(at_most("stream_interval", "max_batch_size"),))
    assert 4 in columns(space)["stream_interval"]
    pinned = restrict(space, fixed={"max_batch_size": 2})
    assert set(columns(pinned)["stream_interval"].tolist()) == {1, 2}


def test_columns_keep_their_kind() -> None:
    searched = restrict(SPACE, vary=["kv_cache_dtype"])
    kinds = {name: column.dtype.kind for name, column in columns(searched).items()}
    assert [kinds[name] for name in FOUR_SETTINGS] == ["i", "i", "i", "f"]
    assert kinds["kv_cache_dtype"] == "U"
    assert all(type(value) is int for value in (all_configs(searched)[0].max_batch_size,))


def test_a_space_widened_by_a_configuration_has_it_on_the_grid_with_all_it_says() -> None:
    own = changed(all_configs(SPACE)[0], max_num_tokens=777, options={"stream_interval": 3, "attn_backend": "TRTLLM"})
    assert not contains(SPACE, own)
    space = widened(SPACE, own)
    assert contains(space, own)
    assert {config.options["attn_backend"] for config in all_configs(space)} == {"TRTLLM"}
    with pytest.raises(BadInput, match="leaves stream_interval open"):
        widened(SPACE, changed(own, options={}))
