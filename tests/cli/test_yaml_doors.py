"""Any file at all, at the four doors through which a person's YAML enters: refused in one line, or read as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advisor.cli.app import app

LOG = Path(__file__).parents[1] / "data" / "rendered_logs"
FINE = b"max_batch_size: 64\nkv_cache_config:\n  dtype: fp8\n"
SAME = {
    "plain": FINE,
    "windows": FINE.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + FINE,
    "one document with marks": b"%YAML 1.1\n---\n" + FINE + b"...\n",
    "json": b'{"max_batch_size": 64, "kv_cache_config": {"dtype": "fp8"}}',
}
REFUSED = {
    "anchor": (b"a: &x 1\nb: *x\n", "line 1, column 4: anchors and aliases are not allowed here: write the value out"),
    "merge key": (b"b:\n  <<: *x\n", "line 2, column 7: anchors and aliases"),
    "tag": (
        b'max_batch_size: !!int "3"\n',
        "line 1, column 17: the tag !!int is not allowed here: write the value with",
    ),
    "code": (
        b"a: !!python/object/apply:pathlib.Path.touch [ran]\n",
        "the tag !!python/object/apply:pathlib.Path.touch",
    ),
    "duplicate": (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' was already given in line 1"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2, column 1: expected a single document .*: keep one, or write each"),
    "list": (b"- a\n", "a mapping of keys to values is needed, found a list"),
    "empty": (b"", "found nothing"),
    "tabs": (b"a:\n\tb: 1\n", "line 2, column 1: .*use spaces, not tabs"),
    "latin": (b"a: 1\nb: caf\xe9\n", "line 2, column 7: not UTF-8 text; save it as UTF-8"),
    "utf-16": ("a: 1\n".encode("utf-16"), "line 1, column 1: not UTF-8 text"),
    "binary": (b"a: 1\nb: \x00\x01\n", "line 2, column 4: not YAML"),
    "deep": (b"a: " + b"[" * 1000, "nested too deeply"),
    "huge": (b"a: " + b"x" * 2_000_000, "larger than 1,048,576 bytes"),
    "number as key": (b"draft: {4: 2}\n", "line 1, column 9: a key is read as 4, not as text; put it in quotes"),
}


def doors(file: Path) -> dict[str, list[str]]:
    log = next(LOG.iterdir())
    return {
        "export": ["export", str(file), "--engine-version", "1.2.0"],
        "explain": ["explain", str(file), "--workload", "1k1k_c16"],
        "baseline": ["tune", "--workload", "1k1k_c16", "--dry-run", "--baseline", str(file)],
        "doctor": ["doctor", str(log), "--config", str(file)],
    }


@pytest.mark.parametrize("door", ["export", "explain", "baseline", "doctor"])
def test_what_cannot_be_meant_is_refused_in_one_line_with_its_place(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (content, words) in REFUSED.items():
        file = tmp_path / "mine.yml"
        file.write_bytes(content)
        result = CliRunner().invoke(app, doors(file)[door])
        said = " ".join(result.stderr.split())
        assert (result.exit_code, result.stdout) == (2, ""), name
        assert said.startswith("advisor: "), name
        assert re.search(words, said), (name, said)
        assert "mine.yml" in said, name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yml"], "nothing in a file is ever run"


@pytest.mark.parametrize("door", ["export", "explain", "baseline", "doctor"])
def test_how_the_file_was_saved_does_not_matter(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, answers = tmp_path / "mine.yml", set()
    for content in SAME.values():
        file.write_bytes(content)
        result = CliRunner().invoke(app, doors(file)[door])
        assert result.exit_code == 0, result.stderr
        answers.add(result.stdout)
    assert len(answers) == 1
