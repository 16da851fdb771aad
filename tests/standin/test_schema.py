"""The stand-in reads command lines and YAML as the published schema of each release says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.standin.command_line import UsageError, parse
from tests.standin.ladder import captured, ladder
from tests.standin.releases import MARK, RELEASES
from tests.standin.schema import FOLDER, llm_args_class, schema
from tests.standin.settings import ConfigRefused, Settings, understand
from tests.standin.validators import CHECKS

EVERY = pytest.mark.parametrize("release", RELEASES)
GRAPHS_ON: dict[str, dict[str, Any]] = {
    "nested": {"pytorch_backend_config": {"use_cuda_graph": True, "cuda_graph_padding_enabled": True}},
    "flat": {"use_cuda_graph": True, "cuda_graph_padding_enabled": True},
    "object": {"cuda_graph_config": {"enable_padding": True}},
}


def settings(release: str, *options: str, **document: Any) -> Settings:
    return understand(RELEASES[release], parse(release, ["some/model", *options]), document)


def refusal(release: str, **document: Any) -> str:
    with pytest.raises(ConfigRefused) as caught:
        settings(release, **document)
    return str(caught.value)


def test_there_is_a_row_for_every_schema_file_and_a_mark_on_every_version() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RELEASES)
    assert all(row.version.endswith(MARK) for row in RELEASES.values())


@EVERY
def test_every_option_and_alias_of_a_release_is_taken_and_no_other(release: str) -> None:
    for name, spec in schema(release)["serve_flags"].items():
        value = {"int": "7", "float": "0.5", "flag": None}.get(spec["type"], spec.get("choices", ["text"])[0])
        for spelling in (name, *spec.get("aliases", ())):
            line = parse(release, ["m", spelling] if value is None else ["m", f"{spelling}={value}"])
            assert name in line.typed
    for wrong in ("--kv_cache_free_gpu_mem_fraction", "--max-batch-size", "--set"):
        with pytest.raises(UsageError, match=f"No such option: {wrong}"):
            parse(release, ["m", wrong, "1"])
    assert parse(release, ["serve", "m"]) == parse(release, ["m"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Missing argument 'MODEL'."),
        (["m", "n"], r"Got unexpected extra argument \(n\)"),
        (["m", "--port", "x"], "'x' is not a valid integer."),
        (["m", "--port"], "Option '--port' requires an argument."),
        (["m", "--trust_remote_code=1"], "does not take a value"),
        (["m", "--backend", "cpp"], "'cpp' is not one of 'pytorch', 'tensorrt', '_autodeploy'."),
        (["m", "--config", "f"], "No such option: --config"),
    ],
)
def test_mistakes_on_the_command_line_are_told_as_click_does(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse("1.1.0", argv)
    assert str(caught.value).startswith("Usage: trtllm-serve serve [OPTIONS] MODEL\n")


@EVERY
def test_a_key_that_no_release_knows(release: str) -> None:
    if schema(release)["extra"] == "allow":
        settings(release, no_such_key=1)
        return
    text = refusal(release, no_such_key=1)
    assert "1 validation error for TorchLlmArgs\nno_such_key\n  Extra inputs are not permitted" in text


@pytest.mark.parametrize(
    ("release", "document", "text"),
    [
        ("0.20.0", {"pytorch_backend_config": {"stream_interval": 4}}, "unexpected keyword argument 'stream_interval'"),
        ("0.21.0", {"stream_interval": 4}, "stream_interval\n  Extra inputs"),
        ("0.21.0", {"cuda_graph_config": {}}, "cuda_graph_config\n  Extra inputs"),
        (
            "1.0.0",
            {"cuda_graph_config": {"padding_enabled": True}},
            "cuda_graph_config.padding_enabled\n  Extra inputs",
        ),
        ("1.0.0", {"kv_cache_config": {"tokens_per_block": 64}}, "kv_cache_config.tokens_per_block\n  Extra inputs"),
        ("1.0.0", {"use_cuda_graph": True}, "use_cuda_graph\n  Extra inputs"),
        ("1.0.0", {"moe_config": {"backend": "TRITON"}}, "moe_config.backend\n  Input should be"),
        ("1.1.0", {"kv_cache_free_gpu_memory_fraction": 0.8}, "Extra inputs"),
        ("1.1.0", {"stream_interval": 0}, "stream_interval must be positive, got 0"),
        ("1.1.0", {"max_batch_size": "many"}, "max_batch_size\n  Input should be a valid integer"),
        ("1.1.0", {"speculative_config": {"decoding_type": "Guess"}}, "Invalid decoding type: Guess"),
        ("1.1.0", {"cuda_graph_config": {"max_batch_size": 8, "batch_sizes": [1, 2]}}, "Please don't set both"),
        ("1.2.0", {"kv_cache_config": {"free_gpu_memory_fraction": 1.5}}, "must be a float between 0 and 1"),
        ("1.2.0", {"moe_config": {"load_balancer": "/no/such/file"}}, "config file not found: /no/such/file"),
        ("1.3.0rc", {"stream_interval": 0}, "stream_interval\n  Input should be greater than 0"),
        ("1.3.0rc", {"cuda_graph_config": {"max_batch_size": 8, "batch_sizes": [1, 2]}}, "is incompatible with"),
    ],
)
def test_wrong_yaml_is_refused_in_the_words_of_the_release(release: str, document: dict[str, Any], text: str) -> None:
    assert text in refusal(release, **document)


def test_every_condition_that_is_judged_is_one_that_a_schema_file_states() -> None:
    stated = {
        each["condition"]
        for path in FOLDER.glob("*.json")
        for each in json.loads(path.read_text(encoding="utf-8"))["validators"]
    }
    assert {condition for place in CHECKS.values() for condition in place} <= stated


@EVERY
def test_every_default_of_the_schema_is_a_value_of_its_field(release: str) -> None:
    built = llm_args_class(release)
    assert built(model="m").model_dump()["model"] == "m"
    with pytest.raises(ValidationError):
        built()


# -- precedence and graphs ---------------------------------------------------------------------------------------------


@EVERY
def test_who_wins_where_yaml_and_command_line_differ(release: str) -> None:
    row = RELEASES[release]
    options = ("--max_batch_size", "64", "--kv_cache_free_gpu_memory_fraction", "0.8")
    both = settings(release, *options, max_batch_size=32, kv_cache_config={"enable_block_reuse": False})
    assert both.max_batch_size == (64 if row.sizes == "build_config" else 32)
    assert both.kv_fraction == (0.8 if row.merges_kv else 0.9)
    assert not both.block_reuse
    built = settings(release, *options, build_config={"max_batch_size": 16})
    assert (built.max_batch_size, built.max_num_tokens) == ((64, 8192) if row.sizes == "plain" else (16, 8192))


@EVERY
def test_graphs_are_on_by_default_from_one_zero(release: str) -> None:
    row = RELEASES[release]
    assert bool(settings(release).graph_sizes) == (row.graphs == "object")
    on = settings(release, "--max_batch_size", "512", **GRAPHS_ON[row.graphs])
    assert on.graph_padding
    assert on.graph_sizes == (1, 2, 4, *range(8, 129, 8))
    if row.graphs == "object":
        assert settings(release, cuda_graph_config=None).graph_sizes == ()


def test_ladders_are_those_of_the_contract() -> None:
    tails = {
        rounding: {top: ladder(top, True, rounding)[19:] for top in (128, 256, 384, 720, 1024, 1536, 2048)}
        for rounding in ("floor", "ceil")
    }
    assert tails["floor"] == {
        128: (), 256: (256,), 384: (384,), 720: (256, 720), 1024: (256, 512, 1024), 1536: (256, 512, 1536),
        2048: (256, 512, 1024, 2048),
    }  # fmt: skip
    assert tails["ceil"] == {
        **tails["floor"], 384: (256, 384), 720: (256, 512, 720), 1536: (256, 512, 1024, 1536)
    }  # fmt: skip
    assert (len(ladder(128, False, "ceil")), len(ladder(1024, False, "ceil"))) == (34, 37)
    assert captured(ladder(1024, True, "ceil"), True, 200, 8192)[-2:] == (128, 200)
    assert captured(ladder(1024, False, "ceil"), False, 200, 100)[-1] == 64
