"""The pinned constraints cover what the project asks for, on every Python that it supports."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.packaging.environment import ROOT

PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def constraints(python: str) -> dict[str, str]:
    """Pinned version by name for one Python."""
    text = (ROOT / "constraints" / f"py{python.replace('.', '')}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_requirement_is_pinned_within_its_bounds(python: str) -> None:
    pinned = constraints(python)
    for requirement in map(Requirement, requires("trtllm-advisor") or []):
        environments = [
            {"python_version": python, "extra": extra} for extra in ("", "dev", "images", "dashboard", "aic")
        ]
        if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(Version(version)), (requirement.name, version)


def test_there_is_one_file_a_python() -> None:
    assert {path.stem for path in (ROOT / "constraints").glob("*.txt")} == {
        f"py{python.replace('.', '')}" for python in PYTHONS
    }
