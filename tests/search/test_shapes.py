"""Distances between workloads are a metric in octaves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.search.shapes import Shape, octaves, parse_shape

sizes = st.integers(1, 1_000_000)
shapes = st.builds(Shape, isl=sizes, osl=sizes, concurrency=sizes)


@given(shapes, shapes, shapes)
def test_octaves_are_a_distance(one: Shape, two: Shape, three: Shape) -> None:
    assert octaves(one, one) == 0.0
    assert octaves(one, two) == pytest.approx(octaves(two, one))
    assert octaves(one, three) <= octaves(one, two) + octaves(two, three) + 1e-9


@given(shapes, st.integers(0, 10))
def test_each_doubling_is_one_octave(shape: Shape, n: int) -> None:
    doubled = Shape(isl=shape.isl << n, osl=shape.osl << n, concurrency=shape.concurrency)
    assert octaves(doubled, shape) == pytest.approx(n * math.sqrt(2))


@given(shapes, shapes)
def test_what_is_not_asked_does_not_count(one: Shape, two: Shape) -> None:
    anyhow = Shape(isl=two.isl, osl=two.osl)
    assert octaves(one, anyhow) <= octaves(one, two) + 1e-9
    assert octaves(anyhow, one) == pytest.approx(math.hypot(octaves(one, anyhow), 2.0)), "not stated costs two octaves"


def test_a_shape_is_read_in_tokens() -> None:
    assert parse_shape("3000/700") == Shape(isl=3000, osl=700)
    assert parse_shape("4k / 1k", 64) == Shape(isl=4096, osl=1024, concurrency=64)


@pytest.mark.parametrize("text", ["", "3000", "3000x700", "3000/", "/700", "0/1", "-3/7", "3/7/9", "4k1k"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"3000/700|token count"):
        parse_shape(text)
