"""The referee's command line: the guide's example, and the lengths its random data set really draws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.strict import changed
from advisor.domain.workload import Workload, parse_workload
from advisor.engines.trtllm.benchmark import benchmark_argv, random_lengths
from tests.engines.trtllm.builders import MAVERICK


def flags(workload: Workload) -> dict[str, str]:
    argv = benchmark_argv(changed(MAVERICK, trust_remote_code=False), workload, host="127.0.0.1", port=8000)
    words = list(argv[3:])
    found = {}
    while words:
        flag = words.pop(0)
        assert flag.startswith("--")
        found[flag] = "" if not words or words[0].startswith("--") else words.pop(0)
    return found


def test_the_guides_benchmark() -> None:
    found = flags(Workload(isl=1024, osl=2048, concurrency=1024))
    expected = {
        "--dataset-name": "random",
        "--random-ids": "",
        "--random-input-len": "1024",
        "--random-output-len": "2048",
        "--ignore-eos": "",
        "--num-prompts": "8192",
        "--max-concurrency": "1024",
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--backend": "openai",
    }
    assert expected.items() <= found.items()
    assert "--random-range-ratio" not in found
    assert "--request-rate" not in found


def test_request_rate_takes_the_place_of_concurrency() -> None:
    found = flags(parse_workload("1k1k_r12.5"))
    assert found["--request-rate"] == "12.5"
    assert "--max-concurrency" not in found


@given(
    isl=st.integers(2, 40000),
    isl_share=st.floats(0, 1),
    osl=st.integers(1, 9000),
    osl_share=st.floats(0, 1),
    prefix=st.floats(0, 0.9),
)
def test_drawn_lengths_are_the_workloads_or_it_says_so(
    isl: int, isl_share: float, osl: int, osl_share: float, prefix: float
) -> None:
    isl_min, osl_min = max(1, round(isl * isl_share)), max(1, round(osl * osl_share))
    workload = Workload(
        isl=isl, osl=osl, isl_min=isl_min, osl_min=osl_min, shared_prefix_tokens=int(prefix * (isl_min - 1))
    )
    drawn = random_lengths(workload)
    # upstream: [int(length * (1 - ratio)), int(length * (1 + ratio))], the prefix on top
    low = drawn.prefix_len + int(drawn.input_len * (1 - drawn.range_ratio))
    high = drawn.prefix_len + int(drawn.input_len * (1 + drawn.range_ratio))
    out_low, out_high = (int(drawn.output_len * (1 + sign * drawn.range_ratio)) for sign in (-1, 1))
    assert high <= isl
    assert out_high <= osl
    assert 0 <= drawn.range_ratio < 1
    if drawn.comment is None:
        assert max(abs(low - isl_min), abs(high - isl), abs(out_low - osl_min), abs(out_high - osl)) <= 1
    else:
        assert (low + high) // 2 == pytest.approx((isl + isl_min) / 2, abs=1)


@pytest.mark.parametrize(
    ("name", "exact"),
    [("4k1k", True), ("3276to4914-819to1229_c8", True), ("100to200-50_c8", False)],
)
def test_one_ratio_serves_both_lengths_or_none(name: str, exact: bool) -> None:
    assert (random_lengths(parse_workload(name)).comment is None) == exact
