"""`advisor tune --live` in a real browser: the page grows with the study, keeps its reader's place and ends with it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from advisor.app.live import live_page
from tests.end_to_end.command import SMALL_SPACE, advisor, started, the_run
from tests.standin.running import PATIENCE_S
from tools.chromium import CHROMIUM, chromium

pytestmark = pytest.mark.system

TUNE = ("tune", "--study", "llama3.1-8b-h100", "--workload", "1k1k_c64", *SMALL_SPACE, "--max-launches", "5")
GRAVE = ("serious", "critical")
FOLDED = (
    "<!DOCTYPE html><title>{title}</title><details><summary>more</summary>text</details>"
    "<select><option>a<option>b</select><div style='height:9000px'>"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with chromium() as opened:
        yield opened


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_new_version_keeps_its_readers_place(browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    said: list[str] = []
    title = ["first"]
    with live_page(0, lambda: FOLDED.format(title=title[0]), has_trials=True, say=said.append) as live:
        live.tell("Trial 1 begins.")
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(said[0].removeprefix("Live page: "))
        report = page.frame_locator("#report")
        report.locator("summary").click()
        report.locator("select").select_option("b")
        page.frames[1].evaluate("window.scrollTo(0, 1234)")
        title[0] = "second"
        live.refresh()
        until(lambda: page.title() == "second" and len(page.frames) == 2)
        assert page.locator("#status").inner_text().endswith("provisional. Trial 1 begins.")
        place = "[document.querySelector('details').open, document.querySelector('select').value, window.scrollY]"
        assert page.frames[1].evaluate(place) == [True, "b", 1234]
        serious = [
            each for each in axe.Axe().run(page, context="header").response["violations"] if each["impact"] in GRAVE
        ]
        assert serious == []
        page.locator("#follow").uncheck()
        title[0] = "third"
        live.refresh()
        page.locator("#update").click()
        until(lambda: page.title() == "third")
        assert [error for error in errors if "favicon" not in error] == []
    until(lambda: "Nobody answers" in page.locator("#status").inner_text())
    assert page.title() == "third"
    page.close()


def test_a_page_that_cannot_be_made_does_not_end_the_study() -> None:
    said: list[str] = []

    def broken() -> str:
        raise KeyError("metrics")

    with live_page(0, broken, has_trials=False, say=said.append) as live:
        live.refresh()
        url = said[0].removeprefix("Live page: ")
        with urllib.request.urlopen(f"{url}version", timeout=PATIENCE_S) as answer:
            assert "could not be made" in json.load(answer)["status"]
        with urllib.request.urlopen(f"{url}report.html", timeout=PATIENCE_S) as answer:
            assert b"when the first trial has ended" in answer.read()


def test_a_study_shows_itself_and_ends_with_the_written_page(tmp_path: Path, browser: Any) -> None:
    study = started(*TUNE, "--live", "--port", "0", cwd=tmp_path)
    assert study.stderr is not None
    lines = iter(study.stderr.readline, "")
    url = next(found[1] for line in lines if (found := re.match(r"Live page: (\S+)", line)))
    page = browser.new_page()
    page.goto(url)
    until(lambda: "has ended" in page.locator("#status").inner_text())
    until(lambda: page.title().startswith("SIMULATED"))
    study.communicate(timeout=PATIENCE_S)
    assert study.returncode == 0
    written = (the_run(tmp_path / "results") / "report.html").read_text(encoding="utf-8")
    assert page.title() in written
    until(lambda: len(page.evaluate("document.querySelector('#report').contentDocument.body.innerText")) > 1000)
    page.close()


def test_a_taken_port_is_said_and_the_study_runs(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = advisor(*TUNE, "--live", "--port", str(other.getsockname()[1]), cwd=tmp_path)
    assert said.returncode == 0
    assert "choose another with --port" in said.stderr
    assert (the_run(tmp_path / "results") / "report.html").exists()


def test_ctrl_c_ends_the_page_with_the_study(tmp_path: Path) -> None:
    study = started(*TUNE[:-1], "40", "--live", "--port", "0", cwd=tmp_path)
    assert study.stderr is not None
    for line in iter(study.stderr.readline, ""):
        if line.startswith("Live page"):
            break
    study.send_signal(signal.SIGINT)
    try:
        study.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        study.kill()
        raise
    assert study.returncode == 130
