"""Which deployments are kin, and that the distance between them is one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.strict import changed
from advisor.search.kinship import MOST_STUDIES, distance, is_kin, standing

OURS = Deployment(model="m", quantization="fp8", gpu="h100_sxm", gpus=2, tp=2)


@pytest.mark.parametrize(
    "other",
    [{"gpu": "b200_sxm"}, {"engine_version": "1.1.0"}, {"tp": 4, "gpus": 4}, {"attention_dp": True}, {"ep": 2}],
)
def test_what_differs_is_apart_both_ways_and_more_differences_are_further(other: dict[str, Any]) -> None:
    theirs = changed(OURS, **other)
    assert is_kin(theirs, OURS)
    assert distance(theirs, OURS) == distance(OURS, theirs) > 0
    assert distance(changed(theirs, kv_cache_dtype="bf16"), OURS) > distance(theirs, OURS)
    assert math.isclose(distance(theirs, OURS), math.hypot(*standing(theirs, OURS, 0)[:-MOST_STUDIES]))


def test_what_changes_no_speed_is_no_distance_and_other_weights_are_no_kin() -> None:
    assert distance(changed(OURS, max_seq_len=4096), OURS) == 0
    assert not is_kin(changed(OURS, model="n"), OURS)
    assert not is_kin(changed(OURS, quantization="bf16"), OURS)
