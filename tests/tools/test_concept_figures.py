"""The committed pictures show what the twin and the memory law compute today."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from advisor.app.forecast import Forecaster
from tools.concept_figures import FOLDER, batching, forecaster, memory
from tools.drawing import Scale


@pytest.fixture(scope="module")
def known() -> Forecaster:
    return forecaster()


def numbers(svg: str) -> list[float]:
    """All of them but the style's."""
    return [float(each) for each in re.findall(r"-?\d+\.?\d*", re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL))]


@pytest.mark.parametrize(("name", "draw"), [("batching", batching), ("memory", memory)])
def test_picture_is_as_committed(known: Forecaster, name: str, draw: Callable[[Forecaster], str]) -> None:
    committed = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert numbers(draw(known)) == pytest.approx(numbers(committed), abs=0.11)


@pytest.mark.parametrize("name", ["batching", "memory", "search"])
def test_picture_speaks_and_follows_the_colour_scheme(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text
    assert "prefers-color-scheme:dark" in text
    used = {kind for each in root.iter() for kind in (each.get("class") or "").split()}
    assert {kind for kind in used if f".{kind}" not in text} == set()


def test_scale_keeps_its_ends() -> None:
    scale = Scale(0.0, 10.0, 350.0, 80.0)
    assert (scale(0.0), scale(5.0), scale(10.0)) == (350.0, 215.0, 80.0)
