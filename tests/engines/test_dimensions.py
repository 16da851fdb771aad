"""Any key of a release's YAML as a dimension: found, checked, spelled, read back, and carried to other releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.domain.deployment import GRAPH_SIZES, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed, parse
from advisor.domain.study import SearchSpace
from advisor.engines.dimensions import check_dimensions, spoken_space
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import Dialect, canonical, check_option, dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.identify import objections
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.trtllm.spoken import trtllm_dialect
from advisor.engines.words import as_mapping
from advisor.search.space import all_configs, completed, restrict
from advisor.store import catalog
from advisor.twin.graphs import NAMED_SIZES, ladder
from advisor.twin.predict import Twin
from tests.engines.trtllm.builders import EVERY_RELEASE, GUIDE, MAVERICK, config

FACTS = catalog.model_facts(MAVERICK.model)
NEWEST = dialect("1.2.0")
SAMPLES: dict[str, list[Any]] = {"bool": [True], "int": [1, 8, 64], "float": [0.5, 1.0, 0], "list": ["[1]", "[1.0]"]}


def sample(spoken: Dialect, name: str) -> Any:
    """A value that the release takes; None where it is free text."""
    option = spoken.table[spoken.option_paths[name]]
    kind = spoken.options[name]
    values = [*option.choices] if kind == "str" else SAMPLES.get(kind, [])
    if kind == "list" and option.choices:
        values = [json.dumps([option.choices[0]])]
    return next((value for value in values if accepted(spoken, name, value)), None)


def accepted(spoken: Dialect, name: str, value: Any) -> bool:
    try:
        check_option(spoken, name, value)
    except BadInput:
        return False
    return True


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_every_key_of_one_value_is_written_as_the_release_takes_it_and_read_back(release: str) -> None:
    spoken = dialect(release)
    plain = changed(MAVERICK, stream_interval=1, attention_dp=False)
    n_written = 0
    for name in list(spoken.options)[EVERY_RELEASE.index(release) % 3 :: 3]:  # between them the releases cover all
        value = sample(spoken, name)
        where = spoken.option_paths[name]
        if value is None or where.startswith(("$", "--")):
            continue
        try:
            entries = to_yaml(spoken, plain, config(options={name: value}), 5120)
        except BadInput:  # means something beside another key only, which the release's validators know
            continue
        document = as_mapping(entries)
        assert objections(spoken, flatten(document)) == ()
        read = config_from_yaml(yaml.safe_load(yaml.safe_dump(document)), spoken, plain).config
        assert {spoken.option_paths[own]: said for own, said in read.options.items()} == {where: value}, name
        n_written += 1
    assert n_written > 8


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("moe_config.backend", "moe_backend"),
        ("kv_cache_config.dtype", "kv_cache_dtype"),
        ("cuda_graph_config.batch_sizes", GRAPH_SIZES),
        ("cuda_graph_config.enable_padding", "graph_padding"),
        ("pytorch_backend_config.attn_backend", "attn_backend"),
        ("tensor_parallel_size", "tp"),
        ("moe_expert_parallel_size", "ep"),
        ("scheduler_config.capacity_scheduler_policy", "scheduler_config.capacity_scheduler_policy"),
        ("kv_cache_config.free_gpu_memory_fraction", "kv_cache_free_gpu_memory_fraction"),
        ("nothing_known", "nothing_known"),
    ],
)
def test_every_spelling_is_one_dimension(said: str, meant: str) -> None:
    assert canonical(NEWEST, said) == meant
    assert canonical(NEWEST, meant) == meant


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scheduler_config.capacity_sheduler_policy", "x", "Did you mean 'scheduler_config.capacity_scheduler_policy'"),
        ("scheduler_config.capacity_scheduler_policy", "MAX_UTILISATION", "Did you mean 'MAX_UTILIZATION'"),
        ("scheduler_config.waiting_queue_policy", "fcfs", "These releases have it: 1.3.0rc, 1.3.0rc24, main"),
        ("speculative_config.max_draft_len", 3, "one of several kinds"),
        ("scheduler_config", "x", "It is a mapping"),
        ("pp", 2, "advisor sets it itself"),
        ("batch_wait_max_tokens_ratio", 2.0, "0 to 1"),
        ("kv_cache_config.max_attention_window", "4096", "a list"),
        (GRAPH_SIZES, "powers_of_3", "Did you mean 'powers_of_2'"),
        (GRAPH_SIZES, "[0, 1]", "is no list of graph sizes"),
    ],
)
def test_what_the_release_does_not_take_is_refused_before_any_launch(name: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check_option(NEWEST, name, value)


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_a_list_of_graph_sizes_is_written_out_and_known_again(release: str) -> None:
    spoken = dialect(release)
    plain = changed(MAVERICK, stream_interval=1, attention_dp=False)
    for rule in (*NAMED_SIZES, "[1, 2, 3, 100, 512]"):
        asked = config(cuda_graph_max_batch_size=512, options={GRAPH_SIZES: rule})
        document = as_mapping(to_yaml(spoken, plain, asked, 5120))
        leaves = flatten(document)
        assert leaves[spoken.keys[GRAPH_SIZES]] == list(ladder(512, padding=True, rule=rule))
        assert spoken.keys["cuda_graph_max_batch_size"] not in leaves
        argv = to_argv(spoken, plain, asked, 5120, host="127.0.0.1", port=8000, config_path="a.yml")
        assert config_from_yaml(document, spoken, plain, argv).config == asked
    off = config(cuda_graph_max_batch_size=0, options={GRAPH_SIZES: "every_8"})
    assert spoken.keys[GRAPH_SIZES] not in flatten(as_mapping(to_yaml(spoken, plain, off, 5120)))


@pytest.mark.parametrize("rule", [*NAMED_SIZES, "[4, 2, 2]"])
def test_sizes_ascend_to_the_maximum_and_the_twin_prices_each(rule: str) -> None:
    for largest in (1, 7, 64, 500, 2048):
        sizes = ladder(largest, padding=True, rule=rule)
        assert list(sizes) == sorted(set(sizes)) and sizes[-1] == largest
    twin = Twin(FACTS, catalog.step_tables)
    sized = config(cuda_graph_max_batch_size=512, options={GRAPH_SIZES: rule})
    assert twin.memory_settings(MAVERICK, sized).n_graphs == len(ladder(512, padding=True, rule=rule))


def space_of(*dimensions: dict[str, Any], conditions: tuple[dict[str, Any], ...] = ()) -> SearchSpace:
    four = {"max_batch_size": 64, "max_num_tokens": 8192, "cuda_graph_max_batch_size": 64}
    known = [{"name": name, "values": [value]} for name, value in four.items()]
    known += [{"name": "kv_cache_config.free_gpu_memory_fraction", "values": [0.8, 0.9]}, *dimensions]
    document = {
        "name": "mine",
        "description": "test",
        "dimensions": [{"reason": "test", **each} for each in known],
        "conditions": [{"reason": "test", **each} for each in conditions],
    }
    return parse(SearchSpace, document, "mine.yaml")


def searched(space: SearchSpace, *vary: str, deployment: Deployment = MAVERICK, release: str = "1.2.0") -> SearchSpace:
    spoken = trtllm_dialect(release)
    found = restrict(spoken_space(space, vary, spoken, deployment), vary)
    check_dimensions(found, spoken, deployment, FACTS)
    return found


POLICY = {
    "name": "scheduler_config.capacity_scheduler_policy",
    "values": ["GUARANTEED_NO_EVICT", "MAX_UTILIZATION"],
    "default": "GUARANTEED_NO_EVICT",
}
BACKEND = {"name": "moe_config.backend", "values": ["CUTLASS", "TRTLLM"], "enabled": False}


def test_a_space_of_one_s_own_is_searched_in_advisor_s_words() -> None:
    policy, backend, chunked = str(POLICY["name"]), "moe_backend", "enable_chunked_prefill"
    space = searched(
        space_of(
            POLICY,
            BACKEND,
            {"name": chunked, "values": [False, True]},
            conditions=({"forbid": {"moe_config.backend": "TRTLLM", chunked: True}},),
        ),
        backend,
    )
    found = {tuple(each.options[name] for name in (policy, backend, chunked)) for each in all_configs(space)}
    assert len(found) == 2 * 3 and not any(backend == "TRTLLM" and chunked for _, backend, chunked in found)
    baseline = completed(space, GUIDE, MAVERICK)
    assert baseline.options[policy] == "GUARANTEED_NO_EVICT" and baseline.options[chunked] is False
    assert baseline.options[backend] == NEWEST.moe_backend_default, "what the release does unless told"
    document = as_mapping(to_yaml(NEWEST, MAVERICK, baseline, 5120))
    assert document["scheduler_config"] == {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
    with pytest.raises(BadInput, match="These releases have it"):
        to_yaml(NEWEST, MAVERICK, config(options={"scheduler_config.waiting_queue_policy": "fcfs"}), 5120)


def test_the_example_of_the_manual_can_be_searched() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "search-spaces.md").read_text(encoding="utf-8")
    example = manual.partition("```yaml\n")[2].partition("```")[0]
    space = parse(SearchSpace, yaml.safe_load(example), "search-spaces.md")
    assert "moe_backend" not in all_configs(searched(space))[0].options
    sizes = {config.options[GRAPH_SIZES] for config in all_configs(searched(space, "moe_backend"))}
    assert sizes == {"auto", "powers_of_2", "every_64", "[1, 2, 4, 8, 16, 32, 64, 96, 128]"}


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        ({**BACKEND, "enabled": True}, "--vary moe_backend"),
        ({**POLICY, "default": None}, "State its `default`"),
        ({**POLICY, "values": ["STATIC"]}, "dimension scheduler_config.capacity_scheduler_policy: .*it takes"),
        ({"name": "ep", "values": [1, 3]}, "ep 3 does not divide tp 8"),
        ({"name": "moe_expert_parallel_size", "values": [16]}, "ep 16 does not divide"),
        ({"name": "tp", "values": [3, 8]}, "8 GPUs are given"),
        ({"name": "free_gpu_memory_fraction", "values": [0.8]}, "is listed twice"),
    ],
)
def test_a_dimension_that_cannot_be_had_is_named_with_the_way_out(dimension: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        searched(space_of(dimension))


def test_a_dense_model_has_no_backend_of_experts() -> None:
    dense = catalog.model_facts("meta-llama/Llama-3.1-8B-Instruct")
    space = restrict(
        spoken_space(space_of(BACKEND), ("moe_backend",), trtllm_dialect("1.2.0"), MAVERICK), ("moe_backend",)
    )
    with pytest.raises(BadInput, match="has no experts"):
        check_dimensions(space, trtllm_dialect("1.2.0"), changed(MAVERICK, ep=1), dense)


def test_layouts_with_the_gpus_fixed() -> None:
    both = ({"name": "tp", "values": [4, 8]}, {"name": "ep", "values": [1, 8]})
    with pytest.raises(BadInput, match=r"tp 4 with ep 8: .*multiple_of: ep"):
        searched(space_of(*both))
    space = searched(space_of(*both, conditions=({"setting": "tp", "multiple_of": "ep"},)))
    layouts = {(each.options["tp"], each.options["ep"]) for each in all_configs(space)}
    assert layouts == {(4, 1), (8, 1), (8, 8)}
    deployed = MAVERICK.with_options({"tp": 4, "ep": 1})
    assert (deployed.gpus, deployed.tp, deployed.pp, deployed.ep) == (8, 4, 2, 1)
    assert MAVERICK.with_options({"tp": 4}).ep == 4, "all ranks, as the study has it"
    assert MAVERICK.with_options({"disable_overlap_scheduler": True}).overlap_scheduler is False
