"""YAML text with comments: it reads back as the document, whatever stands in it."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.engines.trtllm.yaml_text import yaml_text
from advisor.store.yaml_files import load_yaml

text = st.text(max_size=12) | st.sampled_from(
    ["a: b # c", "yes", "1.5", "null", "- x", "\n# y", "é", "{}", "2024-01-01"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(text, values, max_size=5)


@given(document=documents, comment=text, head=st.lists(text, max_size=2))
def test_it_reads_back_as_the_document(document: dict[str, Any], comment: str, head: list[str]) -> None:
    comments = dict.fromkeys(document, comment)
    assert yaml.safe_load(yaml_text(document, comments, head)) == document


def test_comments_stand_beside_their_key_and_the_file_is_plain() -> None:
    written = yaml_text({"a": {"b": 1, "c": [1, 2]}, "d": {}}, {"a.b": "why", "d": "two\nlines"}, ["top"])
    assert written == "# top\n\na:\n  b: 1       # why\n  c: [1, 2]\nd: {}        # two lines\n"
    assert load_yaml(written, "it") == {"a": {"b": 1, "c": [1, 2]}, "d": {}}
