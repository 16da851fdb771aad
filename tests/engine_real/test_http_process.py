"""The turns of the HTTP loop that a request waits for, counted on a real server: those that the twin says."""

from __future__ import annotations

import re
import subprocess

import pytest

from advisor.twin.constants import KNOWN_ERROR, NOMINAL
from tests.engine_real.rig import ENGINE, HERE, MODEL

pytestmark = pytest.mark.engine
TOOL = HERE.parents[1] / "tools" / "http_process.py"


def test_a_request_takes_about_the_turns_that_were_fitted_on_gpus() -> None:
    """Of another release than the fitted one, within one standard deviation."""
    said = subprocess.run(
        [ENGINE / "venv" / "bin" / "python", TOOL, "turns", MODEL],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    to_engine, to_client = (float(turns) for turns in re.findall(r": ([0-9.]+) turns", said))
    assert to_engine == pytest.approx(NOMINAL.http_request_turns, rel=KNOWN_ERROR["http_request_turns"])
    assert 0.5 < to_client < 3.0
