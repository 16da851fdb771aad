"""Workload names read back as what they name, and impossible ones are refused with the way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.domain.strict import parse
from advisor.domain.workload import MOST_WORKLOADS, Matrix, Workload, crossed, parse_lengths, parse_workload

tokens = st.integers(1, 200_000)
load = st.one_of(
    st.integers(1, 10_000).map(lambda n: {"concurrency": n}),
    st.integers(1, 4_000).map(lambda n: {"request_rate_per_s": n / 8}),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    isl, osl = draw(tokens), draw(tokens)
    low = {"isl_min": draw(st.integers(1, isl)), "osl_min": draw(st.integers(1, osl))} if draw(st.booleans()) else {}
    return Workload(isl=isl, osl=osl, n_requests=draw(st.none() | st.integers(1, 10_000)), **low, **draw(load))


@given(workloads())
def test_a_name_reads_back_as_the_workload_it_names(workload: Workload) -> None:
    back = parse_workload(workload.name)
    assert back.name == workload.name
    assert (back.isl, back.osl) == (workload.isl, workload.osl)
    assert (back.isl_min or back.isl, back.osl_min or back.osl) == (
        workload.isl_min or workload.isl,
        workload.osl_min or workload.osl,
    )
    assert (back.concurrency, back.request_rate_per_s) == (workload.concurrency, workload.request_rate_per_s)
    assert back.n_requests == workload.n_requests


@given(workloads())
def test_a_name_is_a_plain_folder_name(workload: Workload) -> None:
    assert set(workload.name) <= set("0123456789abcdefghijklmnopqrstuvwxyz_-.")


@pytest.mark.parametrize(
    ("name", "isl", "osl", "concurrency", "rate"),
    [
        ("1k1k", 1024, 1024, 1024, None),
        ("4k1k_c256", 4096, 1024, 256, None),
        ("3000-700_c64", 3000, 700, 64, None),
        ("8k-700", 8192, 700, 1024, None),
        ("1k1k_r12.5", 1024, 1024, None, 12.5),
    ],
)
def test_short_names(name: str, isl: int, osl: int, concurrency: int | None, rate: float | None) -> None:
    workload = parse_workload(name)
    assert (workload.isl, workload.osl, workload.concurrency, workload.request_rate_per_s) == (
        isl,
        osl,
        concurrency,
        rate,
    )


@pytest.mark.parametrize(
    "text", ["", "4k", "4k1k_x", "k1k", "4k1k_c", "4k1k_c0", "-1-5", "4k1k_c256_r2", "4k1k_c8_n0", "1e3-5"]
)
def test_what_is_no_name_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match=r"workload name|above zero"):
        parse_workload(text)


def test_requests_follow_the_guide_and_the_load() -> None:
    assert parse_workload("4k1k").requests() == 8 * 1024
    assert parse_workload("4k1k_c10").requests(waves=3) == 30
    assert parse_workload("4k1k_r10").requests() == 600
    assert Workload(isl=1, osl=1, n_requests=7).requests() == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"isl": 10, "osl": 1, "isl_min": 11}, "longer than the longest"),
        ({"isl": 10, "osl": 1, "shared_prefix_tokens": 10}, "shared prefix"),
        ({"isl": 10, "osl": 1, "concurrency": 1, "request_rate_per_s": 1.0}, "not both"),
        ({"isl": 0, "osl": 1}, "isl"),
        ({"isl": 10, "osl": 1, "concurency": 3}, "Did you mean 'concurrency'"),
    ],
)
def test_impossible_workloads(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(Workload, fields, "test")


def test_ranges() -> None:
    assert parse_lengths("3000:4k", "ISL") == (3000, 4096)
    assert parse_lengths("700", "OSL") == (None, 700)
    with pytest.raises(BadInput, match="backwards"):
        parse_lengths("4k:3000", "ISL")


@given(
    st.lists(tokens, min_size=1, max_size=3, unique=True),
    st.lists(tokens, min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 10_000), max_size=2, unique=True),
)
def test_a_matrix_is_every_combination_once(isls: list[int], osls: list[int], loads: list[int]) -> None:
    found = Matrix(isl=tuple(isls), osl=tuple(osls), concurrency=tuple(loads)).workloads
    expected = {(isl, osl, load) for isl in isls for osl in osls for load in loads or [1024]}
    assert {(each.isl, each.osl, each.concurrency) for each in found} == expected
    assert len(found) == len({each.name for each in found}) == len(expected)


def test_ranges_and_thousands_stand_beside_plain_numbers() -> None:
    found = crossed(["3000:4096", "1k"], ["700"], request_rate_per_s=2.5)
    assert [each.name for each in found] == ["3000to4096-700_r2.5", "1024-700_r2.5"]


def test_a_matrix_that_no_launch_could_measure_is_refused_before_it_is_built() -> None:
    with pytest.raises(BadInput, match=rf"10000 ISL x 10000 OSL .* at most {MOST_WORKLOADS}"):
        crossed(["1"] * 10_000, ["1"] * 10_000)
