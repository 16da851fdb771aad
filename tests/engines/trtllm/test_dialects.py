"""The release table against the published facts of each release."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.domain.errors import BadInput
from advisor.engines.trtllm.dialects import check_option, default_config, dialect, dialects, extra_options
from advisor.engines.trtllm.rules import graph_sizes
from advisor.engines.trtllm.spellings import spellings
from tests.engines.trtllm.builders import EVERY_RELEASE, FACTS, MAVERICK, WITH_FACTS, WITHOUT_STREAM_INTERVAL, config


def test_table_has_the_releases_in_order() -> None:
    assert tuple(row.release for row in dialects()) == EVERY_RELEASE


@pytest.mark.parametrize("release", WITH_FACTS)
def test_defaults_are_the_command_lines_own(release: str) -> None:
    flags, defaults = FACTS[release]["serve_flags"], default_config(dialect(release))
    assert defaults.max_batch_size == flags["--max_batch_size"]["default"]
    assert defaults.max_num_tokens == flags["--max_num_tokens"]["default"]
    assert defaults.kv_cache_free_gpu_memory_fraction == flags["--kv_cache_free_gpu_memory_fraction"]["default"]
    assert defaults.cuda_graph_max_batch_size == (0 if release in WITHOUT_STREAM_INTERVAL else 128)


@pytest.mark.parametrize("release", WITH_FACTS)
def test_every_spelling_is_known_to_the_release(release: str) -> None:
    spoken, facts = dialect(release), FACTS[release]
    assert set(spoken.flags.values()) <= set(facts["serve_flags"])
    for path in (*spoken.keys.values(), *spoken.graphs_off):
        top, _, member = path.partition(".")
        assert top in facts["llm_args"]
        assert not member or member in facts["sub_configs"][top]
    backend = FACTS[release]["sub_configs"].get("moe_config", {}).get("backend", {})
    assert list(spoken.moe_backends) == backend.get("choices", [])


@pytest.mark.parametrize("release", WITH_FACTS)
def test_options_are_the_single_valued_keys_of_the_release_with_their_types(release: str) -> None:
    spoken, facts = dialect(release), FACTS[release]
    top = {name: fact["type"].partition("|")[0] for name, fact in facts["llm_args"].items()}
    for name, kind in spoken.options.items():
        where, _, member = spoken.option_paths[name].partition(".")
        if where.startswith("$"):
            assert (where, kind) == (f"${name}", "str")
            continue
        if where.startswith("--"):
            found = facts["serve_flags"][where]["type"]
        elif member:
            fact = facts["sub_configs"].get(where, {}).get(member)
            if fact is None:  # of a mapping whose page shows no members
                assert spoken.table[spoken.option_paths[name]].types[0] == kind
                continue
            found = fact["type"].partition("|")[0].partition("[")[0]
        else:
            found = top[where.removeprefix("_")].partition("[")[0]
        assert {"choice": "str", "path": "str"}.get(found, found) == kind
    served_by = {"disagg_cluster"}  # trtllm-serve's own, not of the argument class
    objects = {"object", "dict", "dict[str,str]", "list[int]", "bool|object"}
    assert {top.get(name) for name in set(spoken.structured) - served_by} <= objects | {"bool"}
    reachable = {spoken.option_paths[name].partition(".")[0].removeprefix("_") for name in spoken.options}
    own = {path.partition(".")[0] for path in (*spoken.keys.values(), *spoken.graphs_off)} | {"model", "backend"}
    # ignored at the top level of the file, or filled by Python objects alone
    unreachable = {"mpi_session", "moe_load_balancer", "moe_max_num_tokens"} | (
        set()
        if spoken.size_limits_in_yaml
        else {"max_batch_size", "max_num_tokens", "max_seq_len", "max_beam_width", "max_input_len"}
    )
    by_flag = {"num_postprocess_workers", "reasoning_parser"} if release == "0.20.0" else set()
    assert set(top) - own - unreachable - by_flag - reachable - set(spoken.structured) == set()


@pytest.mark.parametrize("release", WITH_FACTS)
def test_column_of_options_is_the_releases_schema(release: str) -> None:
    column, facts = dialect(release).table, FACTS[release]
    for name, fact in facts["llm_args"].items():
        option = column[name if name in column else f"_{name}"]
        assert ("null" in option.types) == fact["type"].endswith("null")
        assert set(fact.get("choices", ())) <= set(option.choices)
    for mapping, members in facts["sub_configs"].items():
        known = {path.partition(".")[2] for path in column if path.startswith(f"{mapping}.") and path.count(".") == 1}
        assert known == set(members)
    assert {name for name in column if name.startswith("--")} == set(facts["serve_flags"])


def test_every_spelling_is_one_meaning_only() -> None:
    ways = [way for group in spellings().same for way in group]
    assert len(ways) == len(set(ways))


@pytest.mark.parametrize(
    ("version", "speaks", "warned"),
    [
        ("1.0.0", "1.0.0", False),
        ("v1.2.0", "1.2.0", False),
        ("1.2", "1.2.0", False),
        ("0.20.0.post1", "0.20.0", True),
        ("1.0.0rc0", "0.21.0", True),
        ("1.0.0rc1", "1.0.0rc1", True),
        ("1.0.0rc2.post1", "1.0.0rc1", True),
        ("1.0.0rc3", "1.0.0", True),
        ("1.1.0rc3", "1.0.0", True),
        ("1.1.0.post2", "1.1.0", True),
        ("1.2.1", "1.2.0", True),
        ("1.3.0.dev2025101000", "1.2.0", True),
        ("1.3.0rc0", "1.3.0rc", True),
        ("1.3.0rc5.post1+g0123abc", "1.3.0rc", True),
        ("1.3.0rc", "1.3.0rc", True),
        ("1.3.0rc23", "1.3.0rc", True),
        ("1.3.0rc24", "1.3.0rc24", True),
        ("1.3.0rc29", "1.3.0rc24", True),
        ("1.3.0", "1.3.0rc24", True),
        ("1.4.0rc2.dev20260901", "main", True),
        ("main", "main", True),
        ("9.0", "main", True),
    ],
)
def test_version_finds_its_dialect(version: str, speaks: str, warned: bool) -> None:
    spoken = dialect(version)
    assert spoken.release == speaks
    assert (spoken.warning is not None) == warned
    if spoken.warning:
        assert version in spoken.warning or version in EVERY_RELEASE
        assert ("newer than every" in spoken.warning) == (version in ("9.0", "1.4.0rc2.dev20260901"))


@pytest.mark.parametrize("version", ["0.17.0", "0.20.0rc3", "0.9"])
def test_too_old_a_release_is_refused_with_those_that_are_known(version: str) -> None:
    with pytest.raises(BadInput, match=r"1\.0\.0, 1\.1\.0, 1\.2\.0"):
        dialect(version)


@pytest.mark.parametrize(
    ("graph_max", "tail_floor", "tail_ceil", "n_floor", "n_ceil"),
    [
        (128, (), (), 19, 19),
        (256, (256,), (256,), 20, 20),
        (384, (384,), (256, 384), 20, 21),
        (512, (256, 512), (256, 512), 21, 21),
        (720, (256, 720), (256, 512, 720), 21, 22),
        (1024, (256, 512, 1024), (256, 512, 1024), 22, 22),
        (1536, (256, 512, 1536), (256, 512, 1024, 1536), 22, 23),
        (2048, (256, 512, 1024, 2048), (256, 512, 1024, 2048), 23, 23),
    ],
)
def test_ladder_of_each_release_is_the_published_one(
    graph_max: int, tail_floor: tuple[int, ...], tail_ceil: tuple[int, ...], n_floor: int, n_ceil: int
) -> None:
    wide = config(max_batch_size=4096, max_num_tokens=8192, cuda_graph_max_batch_size=graph_max)
    for release, tail, n in (
        ("0.20.0", tail_floor, n_floor),
        ("0.21.0", tail_floor, n_floor),
        ("1.0.0", tail_floor, n_floor),
        ("1.1.0", tail_ceil, n_ceil),
        ("1.2.0", tail_ceil, n_ceil),
        ("1.3.0rc", tail_ceil, n_ceil),
    ):
        sizes = graph_sizes(dialect(release), MAVERICK, wide)
        assert tuple(size for size in sizes if size > 128) == tail
        assert len(sizes) == n


@pytest.mark.parametrize(
    ("graph_max", "n"), [(128, 19), (256, 21), (384, 23), (512, 25), (720, 29), (1024, 33), (1536, 41), (2048, 49)]
)
def test_ladder_of_the_newest_is_the_published_one(graph_max: int, n: int) -> None:
    wide = config(max_batch_size=4096, max_num_tokens=8192, cuda_graph_max_batch_size=graph_max)
    for release in ("1.3.0rc24", "main"):
        assert len(graph_sizes(dialect(release), MAVERICK, wide)) == n


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"enable_autotuna": True}, "Did you mean 'enable_autotuner'"),
        ({"max_seq_len": 4096}, "no option 'max_seq_len'"),
        ({"enable_autotuner": 1}, "takes a bool"),
        ({"num_postprocess_workers": True}, "takes a int"),
        ({"attn_backend": 3}, "takes a str"),
    ],
)
def test_option_that_the_release_does_not_know_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        extra_options(dialect("1.2.0"), config(options=options))


def test_option_follows_its_release() -> None:
    asked = config(options={"batch_wait_timeout_ms": 2, "stream_interval": 3})
    assert extra_options(dialect("1.1.0"), asked) == {"batch_wait_timeout_ms": 2}
    with pytest.raises(BadInput, match="batch_wait_timeout_ms"):
        extra_options(dialect("1.0.0"), asked)


@pytest.mark.parametrize("release", WITHOUT_STREAM_INTERVAL)
def test_dimension_that_the_release_has_no_word_for_is_refused_before_any_launch(release: str) -> None:
    check_option(dialect(release), "stream_interval", 1)
    with pytest.raises(BadInput, match="has no stream_interval"):
        check_option(dialect(release), "stream_interval", 4)
