"""Which of file and command line wins: one test per cell of the published table of precedence."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from advisor.domain.errors import BadInput
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.precedence import SIZE_LIMITS, settled, typed_flags
from tests.engines.trtllm.builders import EVERY_RELEASE, EXPLICIT_FLAG_WINS

OLD = ("0.20.0", "0.21.0", "1.0.0rc1", "1.0.0")
NEW = ("1.1.0", "1.2.0", "1.3.0rc", "1.3.0rc24", "main")
FRACTION = "kv_cache_free_gpu_memory_fraction"


def value(release: str, name: str, text: str, *argv: str) -> Any:
    spoken = dialect(release)
    return settled(spoken, name, flatten(yaml.safe_load(text) or {}), typed_flags(spoken, argv)).value


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_plain_key_in_both(release: str) -> None:
    wins = 4 if release in EXPLICIT_FLAG_WINS else 2
    assert value(release, "tp", "tensor_parallel_size: 2", "--tp_size", "4") == wins
    assert value(release, "tp", "tensor_parallel_size: 2") == 2
    assert value(release, "tp", "", "--tp_size=4") == 4
    assert value(release, "tp", "") is None


@pytest.mark.parametrize("name", SIZE_LIMITS)
@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_size_limit_at_the_top_level(release: str, name: str) -> None:
    wins = 4096 if release in (*OLD, *EXPLICIT_FLAG_WINS) else 2048
    assert value(release, name, f"{name}: 2048", f"--{name}", "4096") == wins
    assert value(release, name, "", f"--{name}", "4096") == 4096


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_fraction_beside_a_kv_cache_config_that_does_not_name_it(release: str) -> None:
    merges = release in NEW[1:]
    argv = ("--kv_cache_free_gpu_memory_fraction", "0.6")
    assert value(release, FRACTION, "kv_cache_config: {enable_block_reuse: false}", *argv) == (0.6 if merges else None)
    assert value(release, FRACTION, "kv_cache_config: {}", *argv) == 0.6
    assert value(release, FRACTION, "", *argv) == 0.6


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_fraction_in_both(release: str) -> None:
    text = "kv_cache_config: {free_gpu_memory_fraction: 0.7}"
    wins = 0.6 if release in EXPLICIT_FLAG_WINS else 0.7
    assert value(release, FRACTION, text, "--kv_cache_free_gpu_memory_fraction", "0.6") == wins


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_short_fraction_flag_is_heard_where_it_exists(release: str) -> None:
    heard = 0.6 if release in NEW[1:] else None
    assert value(release, FRACTION, "", "--free_gpu_memory_fraction", "0.6") == heard


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_build_config_beside_flags(release: str) -> None:
    """Obeyed up to 1.1.0, where it also resets what it leaves out; dropped later."""
    text, argv = "build_config: {max_batch_size: 64}", ("--max_batch_size", "256", "--max_num_tokens", "4096")
    obeyed = release in (*OLD, "1.1.0")
    assert value(release, "max_batch_size", text, *argv) == (64 if obeyed else 256)
    assert value(release, "max_num_tokens", text, *argv) == (None if obeyed else 4096)


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_build_config_beside_a_size_limit_at_the_top_level(release: str) -> None:
    text = "{build_config: {max_batch_size: 64}, max_batch_size: 128}"
    assert value(release, "max_batch_size", text) == (64 if release in OLD else 128)


@pytest.mark.parametrize("release", OLD)
def test_what_is_lost_is_said(release: str) -> None:
    spoken = dialect(release)
    found = settled(
        spoken, "max_num_tokens", {"build_config.max_batch_size": 64}, typed_flags(spoken, ["--max_num_tokens", "4096"])
    )
    assert found.note is not None
    assert "--max_num_tokens has no effect" in found.note


@pytest.mark.parametrize("release", NEW[1:])
def test_kv_dtype_flag_exists_in_the_newest_only(release: str) -> None:
    wins = "fp8" if release in EXPLICIT_FLAG_WINS else "auto"
    assert value(release, "kv_cache_dtype", "kv_cache_config: {dtype: auto}", "--kv_cache_dtype", "fp8") == wins


@pytest.mark.parametrize("argv", [["--max_batch_size", "many"], ["--max_batch_size"]])
def test_flag_without_a_number_is_refused(argv: list[str]) -> None:
    with pytest.raises(BadInput, match="--max_batch_size"):
        typed_flags(dialect("1.2.0"), argv)
