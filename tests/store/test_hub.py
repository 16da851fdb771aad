"""The hub's cache and access as huggingface_hub finds them; a token is noticed and never read out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from advisor.store.hub import cached_snapshot, hub_access, hub_cache, is_gated, is_hub_name
from tests.store.checkpoint_folders import in_cache

SECRET = "hf_DoNotShowThisToAnybody"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub"),
        ({"HF_HOME": "~/h"}, "~/h/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, "/old"),
        ({"HF_HUB_CACHE": "/c", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, "/c"),
        ({"HF_HUB_CACHE": "", "HF_HOME": ""}, "~/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(env: dict[str, str], expected: str) -> None:
    assert hub_cache({"HOME": "/home/me", **env}) == Path(expected.replace("~", "/home/me"))


def test_a_token_is_noticed_and_never_read_out(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert hub_access(home).token_from is None
    (tmp_path / "token").write_text("")
    assert hub_access(home).token_from is None
    (tmp_path / "token").write_text(SECRET)
    by_file, by_variable = hub_access(home), hub_access({**home, "HF_TOKEN": SECRET})
    assert (by_file.token_from, by_variable.token_from) == (str(tmp_path / "token"), "$HF_TOKEN")
    (tmp_path / "mine").write_text(SECRET)
    assert hub_access({"HF_TOKEN_PATH": str(tmp_path / "mine")}).token_from == str(tmp_path / "mine")
    assert SECRET not in f"{by_file!r}{by_variable!r}"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False), (None, False)])
def test_offline_mode(value: str | None, expected: bool) -> None:
    assert hub_access({} if value is None else {"HF_HUB_OFFLINE": value}).offline is expected


def test_the_main_revision_is_taken_before_the_newest(tmp_path: Path) -> None:
    assert cached_snapshot(tmp_path, "owner/model") is None
    main = in_cache(tmp_path, "owner/model")
    newer = main.parent / "fedcba9876543210"
    newer.mkdir()
    os.utime(main, (1, 1))
    assert cached_snapshot(tmp_path, "owner/model") == main
    (tmp_path / "models--owner--model/refs/main").write_text("../../../../etc")
    assert cached_snapshot(tmp_path, "owner/model") == newer
    (tmp_path / "models--owner--model/refs/main").unlink()
    assert cached_snapshot(tmp_path, "owner/model") == newer


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-3.1-8B", True),
        ("gpt2", True),
        ("a/b/c", False),
        ("../x", False),
        ("/abs", False),
        ("", False),
    ],
)
def test_names_on_the_hub(model: str, expected: bool) -> None:
    assert is_hub_name(model) is expected


def test_gated_where_it_is_known_without_asking() -> None:
    assert is_gated("meta-llama/Llama-3.1-8B-Instruct")
    assert not is_gated("nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8")
