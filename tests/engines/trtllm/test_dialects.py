"""The release table against the published facts of each release."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.domain.errors import BadInput
from advisor.engines.trtllm.dialects import default_config, dialect, dialects, extra_options
from advisor.engines.trtllm.rules import graph_sizes
from tests.engines.trtllm.builders import FACTS, MAVERICK, RELEASES, config


def test_table_has_the_releases_in_order() -> None:
    assert tuple(row.release for row in dialects()) == RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_defaults_are_the_command_lines_own(release: str) -> None:
    flags, defaults = FACTS[release]["serve_flags"], default_config(dialect(release))
    assert defaults.max_batch_size == flags["--max_batch_size"]["default"]
    assert defaults.max_num_tokens == flags["--max_num_tokens"]["default"]
    assert defaults.kv_cache_free_gpu_memory_fraction == flags["--kv_cache_free_gpu_memory_fraction"]["default"]
    assert defaults.cuda_graph_max_batch_size == 128


@pytest.mark.parametrize("release", RELEASES)
def test_every_spelling_is_known_to_the_release(release: str) -> None:
    spoken, facts = dialect(release), FACTS[release]
    assert set(spoken.flags.values()) <= set(facts["serve_flags"])
    for path in spoken.keys.values():
        top, _, member = path.partition(".")
        assert top in facts["llm_args"]
        assert not member or member in facts["sub_configs"][top]
    assert set(spoken.graphs_off) <= set(facts["llm_args"])
    assert list(spoken.moe_backends) == facts["sub_configs"]["moe_config"]["backend"]["choices"]


@pytest.mark.parametrize("release", RELEASES)
def test_options_are_all_single_valued_keys_of_the_release_with_their_types(release: str) -> None:
    spoken, facts = dialect(release), FACTS[release]["llm_args"]
    types = {name: fact["type"].partition("|")[0] for name, fact in facts.items()}
    assert {name: types.get(name) for name in spoken.options} == spoken.options
    assert {types[name] for name in spoken.structured} <= {"object", "dict", "dict[str,str]", "list[int]"}
    own = {path.partition(".")[0] for path in spoken.keys.values()} | {"model", "backend"}
    size_limits = set() if spoken.size_limits_in_yaml else {"max_beam_width", "max_input_len"}
    assert set(facts) - own - size_limits == set(spoken.options) | set(spoken.structured)


@pytest.mark.parametrize(
    ("version", "speaks", "warned"),
    [
        ("1.0.0", "1.0.0", False),
        ("v1.2.0", "1.2.0", False),
        ("1.2", "1.2.0", False),
        ("1.1.0rc3", "1.0.0", True),
        ("1.1.0.post2", "1.1.0", True),
        ("1.2.1", "1.2.0", True),
        ("1.3.0rc5", "1.2.0", True),
        ("9.0", "1.2.0", True),
    ],
)
def test_version_finds_its_dialect(version: str, speaks: str, warned: bool) -> None:
    spoken = dialect(version)
    assert spoken.release == speaks
    assert (spoken.warning is not None) == warned
    if spoken.warning:
        assert version in spoken.warning
        assert speaks in spoken.warning
        assert ("newer than every" in spoken.warning) == (speaks == RELEASES[-1])


@pytest.mark.parametrize("version", ["0.17.0", "1.0.0rc2", "0.9"])
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
        ("1.0.0", tail_floor, n_floor),
        ("1.1.0", tail_ceil, n_ceil),
        ("1.2.0", tail_ceil, n_ceil),
    ):
        sizes = graph_sizes(dialect(release), MAVERICK, wide)
        assert tuple(size for size in sizes if size > 128) == tail
        assert len(sizes) == n


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
