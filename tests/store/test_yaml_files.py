"""YAML from people, and files that are whole or not there."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.store.yaml_files import dump_yaml, load_yaml, make_folder, read_text, sweep, write_atomic

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=5))
def test_what_is_dumped_is_read_back_by_us_and_by_any_safe_loader(data: dict[str, object]) -> None:
    text = dump_yaml(data)
    assert load_yaml(text, "f.yaml") == data
    assert yaml.safe_load(text) == data
    assert list(load_yaml(text, "f.yaml")) == list(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", r"f\.yaml, line 3, column 1: the key 'a' was already given in line 1"),
        ("x:\n  - {b: 1, b: 2}", r"line 2, column 12: the key 'b' was already given"),
        (
            "a: &x [1]\nb: *x",
            r"line 1, column 4: anchors and aliases .* here: write the value out wherever",
        ),
        ("k: {x: 1}\na:\n  <<: *k\n", r"line 3, column 7: anchors and aliases .* in place of a merge key \(<<\)"),
        ("a: *x", r"line 1, column 4: anchors and aliases"),
        (
            "a: !!python/object/apply:os.system [ls]",
            r"line 1, column 4: the tag !!python/object/apply:os\.system is not allowed here: write the value",
        ),
        ("a: !secret x", r"the tag !secret is not allowed"),
        ("- 1\n- 2", "a mapping of keys to values is needed, found a list"),
        ("just text", "found a str"),
        ("", "found nothing"),
        ("# only a comment\n", "found nothing"),
        ("a: [1,", r"line 1, column 7"),
        ("a: b: c", r"line 1, column 5"),
        ("a: 1\n\tb: 2", r"line 2, column 1.*: use spaces, not tabs"),
        ("on: 1", "a key is read as True, not as text; put it in quotes"),
        ("8: 1", "a key is read as 8"),
        ("? [a]\n: 1", "a key is read as"),
        ("a: 1\n---\nb: 2", r"line 2, column 1: .*single document.*: keep one, or write each to a file of its own"),
        ("a: 1\r\nb: 2\r\na: 3\r\n", r"line 3, column 1: the key 'a' was already given in line 1"),
        ("a: 1\nb: \0", r"line 2, column 4: not YAML \(special characters"),
        ("a: " + "[" * 20_000, "nested too deeply"),
    ],
)
def test_what_is_refused_and_where(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_yaml(text, "f.yaml")


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(BadInput, match="anchors and aliases"):
        load_yaml("\n".join(["l0: &l0 [x]", *levels]), "f.yaml")


def test_types_that_json_lacks_stay_text() -> None:
    assert load_yaml("a: 2024-01-31\nb: =\n<<: {c: 1}", "f") == {"a": "2024-01-31", "b": "=", "<<": {"c": 1}}


def test_numpy_does_not_slip_into_a_file() -> None:
    import numpy as np

    with pytest.raises(yaml.representer.RepresenterError):
        dump_yaml({"a": np.float32(1.0)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file"),
        (b"a\nb\xff\xfe", r"f\.yaml, line 2, column 2: not UTF-8 text; save it as UTF-8"),
        (b"x" * 101, "larger than 100 bytes"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read_text(path, max_bytes=100)
    with pytest.raises(BadInput, match="Cannot read"):
        read_text(tmp_path)
    path.write_bytes(b"x" * 100)
    assert len(read_text(path, max_bytes=100)) == 100


def test_writing_replaces_whole_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    for content in ("one", b"two, longer"):
        write_atomic(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_atomic(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BadInput, match=r"Cannot write .*f\.txt"):
            write_atomic(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="A file stands where a folder is needed"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(BadInput, match="A file stands where a folder is needed"):
        write_atomic(tmp_path / "file" / "f.txt", "x")
    with pytest.raises(BadInput, match="A folder stands where a file is needed"):
        write_atomic(tmp_path / "folder", "x")
    with pytest.raises(BadInput, match="Cannot write"):
        write_atomic(tmp_path / "nowhere" / "f.txt", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_sweep_removes_only_what_writers_left(tmp_path: Path) -> None:
    below = make_folder(tmp_path / "trials" / "0001")
    for name in (".outcome.json.12-0.tmp", "outcome.json", "notes.tmp", ".hidden"):
        (below / name).write_text("x")
    sweep(tmp_path)
    assert sorted(p.name for p in below.iterdir()) == [".hidden", "notes.tmp", "outcome.json"]
