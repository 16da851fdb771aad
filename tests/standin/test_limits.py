"""Which prompts a release refuses, and with what words; which outputs it cuts."""

from __future__ import annotations

import pytest

from tests.standin.command_line import parse
from tests.standin.limits import Room
from tests.standin.releases import RELEASES
from tests.standin.settings import understand

EVERY = pytest.mark.parametrize("release", RELEASES)


def room(release: str, n_prompt: int, *options: str, **document: object) -> Room:
    options = ("--max_num_tokens", "1000", *options)
    return Room(understand(RELEASES[release], parse(release, ["m", *options]), document), 2000, n_prompt)


@EVERY
def test_an_output_is_as_long_as_asked_or_as_there_is_room_for(release: str) -> None:
    assert room(release, 900).output_length(100) == 100
    assert room(release, 900).output_length(None) == 1100
    cut = room(release, 900)
    assert cut.output_length(1101) == 1100
    assert cut.notes[0][1].startswith("User-specified `max_tokens` (1101) is greater than deduced")


@EVERY
def test_a_prompt_above_the_token_budget(release: str) -> None:
    if not RELEASES[release].checks_prompt:
        assert room(release, 1001).output_length(1) == 1, "it will wait for ever"
        return
    with pytest.raises(ValueError, match=r"prompt length \(1001.0\), query length \(0\) should not exceed max_num_"):
        room(release, 1001).output_length(1)
    assert room(release, 1001, enable_chunked_prefill=True).output_length(1) == 1


@EVERY
def test_a_prompt_that_leaves_no_room(release: str) -> None:
    full = room(release, 2000, enable_chunked_prefill=True)
    with pytest.raises(ValueError, match=r"default_max_tokens|mMaxNewTokens > 0") as refused:
        full.output_length(1)
    if RELEASES[release].refuses_long_prompt:
        assert "(0) must be greater than 0" in str(refused.value)
        assert full.notes == []
    else:
        assert str(refused.value) == "[TensorRT-LLM][ERROR] Assertion failed: mMaxNewTokens > 0"
        assert [letter for letter, _ in full.notes] == ["W", "E"]
