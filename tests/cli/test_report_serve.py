"""`advisor report DIR --serve`: a run's page on this machine, anew as trials end."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.command import SMALL_SPACE, advisor, started, the_run
from tests.standin.running import PATIENCE_S

pytestmark = pytest.mark.system

TUNE = ("tune", "--study", "llama3.1-8b-h100", "--workload", "1k1k_c64", *SMALL_SPACE, "--max-launches", "4")


def told(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}version", timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_a_run_is_shown_and_shown_again_when_a_trial_has_ended(tmp_path: Path) -> None:
    assert advisor(*TUNE, cwd=tmp_path).returncode == 0
    run = the_run(tmp_path / "results")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    process = started("report", str(run), "--serve", "--port", "0", cwd=tmp_path)
    assert process.stderr is not None
    try:
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        url = found[0]
        with urllib.request.urlopen(f"{url}report.html", timeout=PATIENCE_S) as answer:
            assert answer.read() == (run / "report.html").read_bytes()
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        first = told(url)["version"]
        os.utime(run / "summary.json")
        deadline = time.monotonic() + PATIENCE_S
        while told(url)["version"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    said = advisor("report", str(tmp_path), "--serve", "--port", "0", cwd=tmp_path)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
