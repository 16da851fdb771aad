"""What would make an infeasible study feasible: the smallest change of each kind, and only one that helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Metrics
from advisor.domain.objective import parse_slo
from advisor.domain.strict import changed
from advisor.search.relaxation import (
    Relaxation,
    Room,
    gpus_for_slo,
    help_text,
    loosened,
    memory_relaxations,
    rounded_up,
)
from advisor.store import catalog
from tests.app.scripted import metrics

MODEL = "meta-llama/Llama-3.3-70B-Instruct"
FACTS = catalog.model_facts(MODEL)  # 64 attention heads
ONE = Deployment(model=MODEL, quantization="bf16", gpu="h200_sxm", gpus=1, tp=1)
H200, B200 = catalog.gpu_facts("h200_sxm"), catalog.gpu_facts("b200_sxm")
BYTES = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5}


def rooms(deployment: Deployment, weights_gib: float = 131.0, free_gib: float = 100.0) -> list[Room]:
    """Weights are split over ranks, a GPU has `free_gib` for them."""
    taken = weights_gib * BYTES[deployment.quantization] / 2 / deployment.tp
    return [Room(margin_gib=free_gib - taken, kv_tokens=int(1000 * max(0.0, free_gib - taken)))]


def test_the_next_size_that_divides_and_the_first_smaller_weights_are_named() -> None:
    found = memory_relaxations(ONE, FACTS, H200, rooms, too_hopeful_gib=0.0, needed_tokens=1)
    assert [(each.kind, each.change, each.more_gpus) for each in found] == [
        ("gpus", "--tp 2", 1),
        ("quantization", "--quant fp8", 0),
    ]
    assert help_text(found) == "By the memory law it fits with --tp 2 (1 more GPU) or --quant fp8 (another checkpoint)."


@given(st.floats(1, 2000), st.floats(0, 50))
def test_every_size_below_the_one_named_would_not_have_helped(weights_gib: float, hopeful_gib: float) -> None:
    """The launch lacked more than the law said: what helps must make up for that too."""

    def law(deployment: Deployment) -> list[Room]:
        return rooms(deployment, weights_gib)

    found = memory_relaxations(ONE, FACTS, H200, law, hopeful_gib, 1)
    fits = [tp for tp in (2, 4, 8, 16, 32, 64) if law(changed(ONE, tp=tp, gpus=tp))[0].margin_gib >= hopeful_gib]
    wider = [each for each in found if each.kind == "gpus"]
    assert [each.change for each in wider] == [f"--tp {tp}" for tp in fits[:1]]


def test_one_configuration_that_has_both_margin_and_tokens_is_enough() -> None:
    def law(deployment: Deployment) -> list[Room]:
        both = [Room(1.0, 5000)] if deployment.tp >= 4 else []
        return [Room(9.0, 10), Room(-9.0, 9000), *both]

    found = memory_relaxations(ONE, FACTS, H200, law, 0.5, 4000)
    assert [each.change for each in found] == ["--tp 4"]


def test_kernels_that_the_gpu_does_not_have_are_not_offered() -> None:
    def law(deployment: Deployment) -> list[Room]:
        return rooms(deployment, weights_gib=250.0)

    hopper = memory_relaxations(ONE, FACTS, H200, law, 0.0, 1)
    blackwell = memory_relaxations(ONE, FACTS, B200, law, 0.0, 1)
    assert [each.change for each in hopper] == ["--tp 4"]
    assert [each.change for each in blackwell] == ["--tp 4", "--quant nvfp4"]


def test_a_kv_pool_too_small_asks_for_one_that_is_large_enough() -> None:
    def law(deployment: Deployment) -> list[Room]:
        return [Room(margin_gib=5.0, kv_tokens=1000 * deployment.tp)]

    found = memory_relaxations(ONE, FACTS, H200, law, too_hopeful_gib=0.0, needed_tokens=3500)
    assert [each.change for each in found] == ["--tp 4"]


def test_what_the_law_knows_nothing_of_is_passed_over_and_nothing_that_helps_is_said() -> None:
    def law(deployment: Deployment) -> list[Room]:
        raise BadInput("no data")

    assert memory_relaxations(ONE, FACTS, H200, law, 0.0, 1) == ()
    assert "neither more GPUs" in help_text(())


@pytest.mark.parametrize(
    ("gpus", "tp", "ep", "wanted", "expected"),
    [(8, 8, 8, 16, 16), (8, 8, 4, 16, 4), (8, 8, 4, 2, 2), (1, 1, 1, 2, 1), (2, 2, 2, 1, 1)],
)
def test_experts_follow_the_ranks_only_where_they_were_on_all_of_several(
    gpus: int, tp: int, ep: int, wanted: int, expected: int
) -> None:
    deployment = Deployment(model="m", quantization="fp8", gpu="b200_sxm", gpus=gpus, tp=tp, ep=ep)
    assert deployment.ep_at(wanted) == expected


# --- limits ---


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_loosened_limits_are_kept_and_barely_so(ttft_ms: float, limit_ms: float) -> None:
    slo = parse_slo(f"ttft:p95<{limit_ms:.6f}ms,e2e:p99<1000000000ms")
    found = loosened(slo, metrics(1000.0, ttft_ms))
    assert found.met(metrics(1000.0, ttft_ms))
    before, after = slo.limits[0].limit_ms, found.limits[0].limit_ms
    assert after == before or (before < ttft_ms and after <= ttft_ms * 1.0101)
    assert found.limits[1] == slo.limits[1]


@given(st.floats(1e-3, 1e9))
def test_rounding_goes_up_to_three_digits(value: float) -> None:
    up = rounded_up(value)
    assert value <= up <= value * 1.0101
    assert float(f"{up:.3g}") == pytest.approx(up, rel=1e-9)


# --- more GPUs for a limit ---


@given(st.floats(100.0, 1e4), st.floats(0.1, 10.0))
def test_more_gpus_are_judged_by_the_ratio_of_predictions_alone(ttft_ms: float, level: float) -> None:
    """A twin whose level is off by any factor names the same size."""

    def predict(deployment: Deployment) -> Metrics:
        return metrics(1000.0, level * ttft_ms / deployment.tp)

    slo = parse_slo("ttft:p95<100ms")
    found = gpus_for_slo(ONE, FACTS, slo, metrics(1000.0, ttft_ms), predict)
    needed = [tp for tp in (2, 4, 8, 16, 32, 64) if ttft_ms / tp <= 100.0 * (1 - 1e-12)]
    if abs(ttft_ms / 100.0 - round(ttft_ms / 100.0)) > 1e-6:
        assert [each.change for each in found] == [f"--tp {tp}" for tp in needed[:1]]


def test_more_gpus_that_break_another_limit_do_not_help_and_silence_is_no_promise() -> None:
    def predict(deployment: Deployment) -> Metrics | None:
        return metrics(1000.0, 400.0) if deployment.tp < 4 else None

    came_to = metrics(1000.0, 400.0)
    assert gpus_for_slo(ONE, FACTS, parse_slo("ttft:p95<100ms"), came_to, predict) == ()
    assert gpus_for_slo(ONE, FACTS, parse_slo("ttft:p95<100ms"), came_to, lambda deployment: None) == ()


def test_a_looser_limit_and_more_gpus_are_two_ways() -> None:
    ways = (Relaxation(kind="slo", change="--slo x"), Relaxation(kind="gpus", change="--tp 4", more_gpus=2))
    assert help_text(ways[:1]) == "It would do with --slo x."
    assert help_text(ways).endswith("The twin expects --tp 4 (2 more GPUs) to keep the limits as they are.")
