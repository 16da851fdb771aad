"""Version order against the reference implementation of PEP 440."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from advisor.domain.errors import BadInput
from advisor.engines.versions import version_key

numbers = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
suffixes = st.tuples(
    st.sampled_from(["", "a1", "b2", "rc0", "rc3", "rc10"]),
    st.sampled_from(["", ".post1", ".post2"]),
    st.sampled_from(["", ".dev0", ".dev20250101"]),
).map("".join)
versions = st.builds(lambda number, suffix: number + suffix, numbers, suffixes)


@given(versions, versions)
def test_order_is_that_of_pep_440(left: str, right: str) -> None:
    assert (version_key(left) < version_key(right)) == (Version(left) < Version(right))
    assert (version_key(left) == version_key(right)) == (Version(left) == Version(right))


@pytest.mark.parametrize("text", ["", "latest", "1.x", "1.0.0-final", "1..0", "1.0.0rc"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="not a version"):
        version_key(text)
