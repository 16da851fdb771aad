"""`advisor report`: a page and pictures from a folder, and a way out where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from advisor.cli.app import app
from tools.chromium import CHROMIUM

EVIDENCE = Path(__file__).parents[2] / "studies" / "evidence" / "h100-vllm-0.24.0"


def run(*argv: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, argv)])


def test_writes_the_page_and_its_numbers_and_says_where(tmp_path: Path) -> None:
    answer = run(EVIDENCE / "study", "--out", tmp_path / "here")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        str(tmp_path / "here" / "report.html"),
        str(tmp_path / "here" / "charts.json"),
    ]
    assert "older advisor" in answer.stderr
    assert (tmp_path / "here" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nowhere", "There is no folder"),
        (".", "is no run folder"),
        ("file", "There is no folder"),
        ("n" * 5000, "Cannot read"),
    ],
)
def test_what_is_no_run_is_bad_input(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    answer = run(tmp_path / folder)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_where_nothing_can_be_written_another_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run(EVIDENCE / "oom-start", "--out", tmp_path / "file")
    assert answer.exit_code == 2
    assert "--out" in answer.stderr


@pytest.mark.xdist_group("chromium")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pictures_of_every_chart(tmp_path: Path) -> None:
    answer = run(EVIDENCE / "oom-start", "--format", "svg", "--out", tmp_path)
    assert answer.exit_code == 0, answer.output
    paths = [Path(line) for line in answer.stdout.splitlines()]
    assert {path.name for path in paths} >= {"memory.svg", "frontier.svg", "timeline.svg"}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "MEASURED" in text or "PREDICTED" in text


def test_a_chrome_that_does_not_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    answer = run(EVIDENCE / "oom-start", "--format", "png", "--out", tmp_path)
    assert answer.exit_code == 2
    assert "BROWSER_PATH" in answer.stderr
