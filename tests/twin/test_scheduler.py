"""The scheduler: hand arithmetic on straight-line step times, laws, and the reference prototype's figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.errors import BadInput
from advisor.twin.constants import TwinConstants
from advisor.twin.graphs import captured_sizes
from advisor.twin.scheduler import Progress, SchedulerSettings, simulate
from advisor.twin.simulation import Simulation
from advisor.twin.step_times import StepTimes
from tests.twin.conftest import QUIET

MakeTimes = Callable[..., StepTimes]
MaverickTimes = Callable[[str, bool], StepTimes]
ROOMY = SchedulerSettings(max_batch_size=64, max_num_tokens=8192, kv_tokens=10**7)


def ttft_ms(run: Simulation) -> list[float]:
    return [float(x) for x in run.first_token_ms - run.arrival_ms]


def tpot_ms(run: Simulation) -> float:
    many = run.n_output > 1
    return float(((run.done_ms - run.first_token_ms)[many] / (run.n_output[many] - 1)).mean())


# ------------------------------------------------------------------------------------------------ by hand


def test_one_request_sees_its_prefill_then_decode_steps(make_times: MakeTimes) -> None:
    run = simulate(make_times(decode_ms=4.0, per_token_ms=0.01), ROOMY, [1000], [11])
    assert ttft_ms(run) == pytest.approx([10.0])
    assert tpot_ms(run) == pytest.approx(4.0)
    assert run.duration_ms == pytest.approx(10.0 + 10 * 4.0)
    assert run.n_steps == 11


def test_decode_attention_grows_with_the_kv_length(make_times: MakeTimes) -> None:
    run = simulate(make_times(decode_ms=1.0, per_kv_token_ms=0.001), ROOMY, [1000], [4])
    # KV holds prompt and first token in the first decode step, one token more in each next.
    assert float(run.done_ms[0] - run.first_token_ms[0]) == pytest.approx(3 * 1.0 + 0.001 * (1001 + 1002 + 1003))


def test_two_prompts_share_a_step_and_a_third_waits_for_budget(make_times: MakeTimes) -> None:
    settings_ = replace(ROOMY, max_num_tokens=2000)
    run = simulate(make_times(per_token_ms=0.01), settings_, [1000, 1000, 998], [5, 5, 5])
    # Step 2 holds the third prompt beside two decodes: 998 + 2 tokens.
    assert ttft_ms(run) == pytest.approx([20.0, 20.0, 20.0 + 10.0])


def test_a_whole_prompt_that_no_longer_fits_waits_until_decodes_drain(make_times: MakeTimes) -> None:
    settings_ = replace(ROOMY, max_num_tokens=1000)
    run = simulate(make_times(decode_ms=4.0, per_token_ms=0.01), settings_, [1000, 1000], [6, 6])
    assert ttft_ms(run) == pytest.approx([10.0, 10.0 + 5 * 4.0 + 10.0])
    assert run.peak_running == 1
    assert run.tokens_share == pytest.approx(30.0 / 60.0)


def test_a_chunked_prompt_is_cut_at_whole_blocks(make_times: MakeTimes) -> None:
    settings_ = replace(ROOMY, max_num_tokens=100, chunked_prefill=True)
    run = simulate(make_times(per_token_ms=0.01), settings_, [250], [1])
    # 96 + 96 + 58 tokens.
    assert run.n_steps == 3
    assert ttft_ms(run) == pytest.approx([2.5])


def test_kv_blocks_are_reserved_for_the_whole_request(make_times: MakeTimes) -> None:
    # 65 + 10 tokens take three blocks of 32; a pool of five blocks holds one such request.
    run = simulate(make_times(), replace(ROOMY, kv_tokens=160), [65] * 3, [10] * 3)
    assert run.peak_running == 1
    assert run.kv_share > 0.5
    assert simulate(make_times(), replace(ROOMY, kv_tokens=192), [65] * 3, [10] * 3).peak_running == 2


def test_padding_costs_the_captured_size_and_no_padding_the_eager_floor(make_times: MakeTimes) -> None:
    times = make_times(
        TwinConstants(host_base_ms=0.0, host_per_seq_ms=0.0, stream_per_chunk_ms=0.0, ttft_fixed_ms=0.0),
        decode_ms=1.0,
        per_row_ms=0.1,
    )
    n, floor = 5, 0.2 * 10

    def step(sizes: tuple[int, ...], padding: bool) -> float:
        settings_ = replace(ROOMY, graph_sizes=sizes, graph_padding=padding)
        return tpot_ms(simulate(times, settings_, [10] * n, [9] * n))

    assert step((4, 8), True) == pytest.approx(1.0 + 0.1 * 8)
    assert step((4, 5), False) == pytest.approx(1.0 + 0.1 * 5)
    assert step((4, 8), False) == pytest.approx(max(1.0 + 0.1 * 5, floor))
    assert step((), True) == pytest.approx(max(1.0 + 0.1 * 5, floor))


@pytest.mark.parametrize(
    ("own_http_process", "graph_sizes", "prompt_ms", "decode_ms"),
    [(True, (), 5.0, 5.0), (True, (4, 16), 1.0, 1.0), (False, (), 2.0, 2.0), (False, (4, 16), 2.0, 1.0)],
)
def test_a_step_takes_its_launches_unless_a_graph_holds_it_and_those_of_vllm_hold_prompts_too(
    make_times: MakeTimes, own_http_process: bool, graph_sizes: tuple[int, ...], prompt_ms: float, decode_ms: float
) -> None:
    http = ("http_per_request_ms", "http_per_token_ms", "http_per_chunk_ms", "http_per_step_ms", "prompt_step_ms")
    free = replace(QUIET, **dict.fromkeys(http, 0.0), eager_ms_per_layer=0.2, vllm_eager_ms_per_layer=0.5)
    times = make_times(free, n_layers=10, own_http_process=own_http_process, decode_ms=1.0, per_token_ms=0.1)
    settings_ = replace(ROOMY, own_http_process=own_http_process, graph_sizes=graph_sizes)
    run = simulate(times, settings_, [10], [9])
    assert ttft_ms(run)[0] == pytest.approx(prompt_ms)
    assert tpot_ms(run) == pytest.approx(decode_ms)


def test_overlap_hides_host_time_behind_the_gpu(make_times: MakeTimes) -> None:
    constants = TwinConstants(
        host_base_ms=3.0, host_per_seq_ms=0.5, stream_per_chunk_ms=0.4, eager_ms_per_layer=0.0, ttft_fixed_ms=7.0
    )
    times = make_times(constants, decode_ms=2.0, per_token_ms=0.1)
    host = 3.0 + 0.5 + 0.4 / 2
    for overlap, expected in ((True, max(2.0, host)), (False, 2.0 + host)):
        run = simulate(times, replace(ROOMY, overlap=overlap, stream_interval=2), [100], [11])
        assert tpot_ms(run) == pytest.approx(expected)
        assert ttft_ms(run)[0] == pytest.approx((10.0 if overlap else 13.0) + 7.0)
        assert run.host_share > 0.2


def test_attention_dp_ranks_wait_for_the_slowest_and_share_experts(make_times: MakeTimes) -> None:
    times = make_times(decode_ms=1.0, per_token_ms=0.01, moe_per_token_ms=0.02)
    run = simulate(times, replace(ROOMY, n_ranks=2), [1000, 500], [1, 1])
    # One prompt per rank: dense part of 1,000 tokens, experts of the mean 750.
    assert ttft_ms(run) == pytest.approx([25.0, 25.0])


def test_attention_dp_balancing_holds_a_lone_prompt_until_the_timeout(make_times: MakeTimes) -> None:
    times = make_times(decode_ms=2.0, per_token_ms=0.01)
    isl, osl = [100, 100, 1000], [200, 200, 5]
    for iterations in (0, 20):
        settings_ = replace(ROOMY, n_ranks=2, adp_balance_timeout_iters=iterations)
        run = simulate(times, settings_, isl, osl, arrival_ms=[0.0, 0.0, 10.0])
        assert ttft_ms(run)[2] == pytest.approx(10.0 + 2.0 * iterations, abs=2.5)


def test_a_shared_prefix_is_prefilled_once(make_times: MakeTimes) -> None:
    run = simulate(make_times(per_token_ms=0.01), ROOMY, [1000, 1000], [1, 1], concurrency=1, cached_tokens=600)
    assert ttft_ms(run) == pytest.approx([10.0, 4.0])


def test_open_loop_requests_start_when_they_are_sent(make_times: MakeTimes) -> None:
    run = simulate(make_times(decode_ms=1.0), ROOMY, [100] * 3, [3] * 3, arrival_ms=[0.0, 500.0, 1000.0])
    assert run.arrival_ms.tolist() == [0.0, 500.0, 1000.0]
    assert ttft_ms(run) == pytest.approx([1.0] * 3)


def test_impossible_requests_are_refused_with_the_way_out(make_times: MakeTimes) -> None:
    with pytest.raises(BadInput, match="chunked prefill"):
        simulate(make_times(), replace(ROOMY, max_num_tokens=99), [100], [1])
    with pytest.raises(BadInput, match="never fits the KV cache"):
        simulate(make_times(), replace(ROOMY, kv_tokens=96), [90], [8])


def test_stop_sees_partial_results_and_ends_the_run(make_times: MakeTimes) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return int(np.isfinite(progress.done_ms).sum()) >= 30

    run = simulate(make_times(), ROOMY, [64] * 100, [16] * 100, concurrency=10, stop=stop)
    assert run.stopped
    assert 30 <= run.n_finished < 100
    assert int(np.isfinite(run.done_ms).sum()) == run.n_finished
    assert int(run.n_output.sum()) == 16 * run.n_finished
    for there, here in (
        ("arrival_ms", run.arrival_ms),
        ("first_token_ms", run.first_token_ms),
        ("done_ms", run.done_ms),
    ):
        assert np.array_equal(getattr(seen[-1], there), here, equal_nan=True), "on the clock of the result"
    assert [p.now_ms for p in seen] == sorted(p.now_ms for p in seen)


# ------------------------------------------------------------------------------------------------ laws

CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "n": st.integers(1, 40),
        "n_ranks": st.sampled_from([1, 1, 3]),
        "max_batch_size": st.sampled_from([1, 3, 16, 64]),
        "max_num_tokens": st.sampled_from([600, 1000, 4000]),
        "kv_tokens": st.sampled_from([1024, 3008, 10**6]),
        "chunked": st.booleans(),
        "overlap": st.booleans(),
        "graph_max": st.sampled_from([0, 8, 64]),
        "balance": st.sampled_from([0, 5]),
        "load": st.sampled_from(["closed", "open", "both"]),
        "host_ms": st.sampled_from([0.0, 3.0]),
    }
)


def played(make_times: MakeTimes, case: dict[str, int], scale: float = 1.0, jump: bool = True) -> Simulation:
    rng = np.random.default_rng(case["seed"])
    isl, osl = rng.integers(1, 600, case["n"]), rng.integers(1, 300, case["n"])
    batch, tokens = case["max_batch_size"], case["max_num_tokens"]
    constants = TwinConstants(
        host_base_ms=case["host_ms"] * scale,
        host_per_seq_ms=0.0,
        stream_per_chunk_ms=0.0,
        eager_ms_per_layer=0.1 * scale,
        ttft_fixed_ms=0.0,
    )
    coefficients = {"decode_ms": 2.0, "per_row_ms": 0.05, "per_kv_token_ms": 2e-5, "per_token_ms": 0.01}
    times = make_times(constants, **{name: scale * value for name, value in coefficients.items()})
    settings_ = SchedulerSettings(
        max_batch_size=batch,
        max_num_tokens=tokens,
        kv_tokens=case["kv_tokens"],
        graph_sizes=captured_sizes(
            case["graph_max"], padding=True, rule="ceil", max_batch_size=batch, max_num_tokens=tokens
        ),
        chunked_prefill=bool(case["chunked"]),
        overlap=bool(case["overlap"]),
        n_ranks=case["n_ranks"],
        adp_balance_timeout_iters=case["balance"] if case["n_ranks"] > 1 else 0,
    )
    arrivals = scale * np.cumsum(rng.exponential(20.0, case["n"]))
    return simulate(
        times,
        settings_,
        isl,
        osl,
        concurrency=None if str(case["load"]) == "open" else int(rng.integers(1, 30)),
        arrival_ms=None if str(case["load"]) == "closed" else arrivals,
        jump=jump,
    )


@given(CASES)
@settings(max_examples=60)
def test_jumping_agrees_with_every_single_step(make_times: MakeTimes, case: dict[str, int]) -> None:
    jumped, walked = played(make_times, case), played(make_times, case, jump=False)
    assert jumped.n_iterations <= walked.n_iterations == walked.n_steps
    assert jumped.output_tok_per_s == pytest.approx(walked.output_tok_per_s, rel=1e-3)
    assert float(np.mean(ttft_ms(jumped))) == pytest.approx(float(np.mean(ttft_ms(walked))), rel=1e-3)
    if (walked.n_output > 1).any():
        assert tpot_ms(jumped) == pytest.approx(tpot_ms(walked), rel=1e-3)


@given(CASES)
@settings(max_examples=60)
def test_every_request_gets_its_tokens_in_order_within_every_limit(make_times: MakeTimes, case: dict[str, int]) -> None:
    run = played(make_times, case)
    rng = np.random.default_rng(case["seed"])
    isl, osl = rng.integers(1, 600, case["n"]), rng.integers(1, 300, case["n"])
    assert run.n_output.tolist() == osl.tolist()
    assert (run.arrival_ms < run.first_token_ms).all()
    assert ((run.done_ms > run.first_token_ms) == (osl > 1)).all()
    assert run.peak_running <= case["max_batch_size"] * case["n_ranks"]
    # At every first token, what is running has its whole reservation inside the pool.
    need = -(-(isl + osl) // 32) * 32
    for now in run.first_token_ms:
        running = (run.first_token_ms <= now) & (run.done_ms > now)
        assert need[running].sum() <= case["kv_tokens"] * case["n_ranks"]
    assert run.duration_ms == pytest.approx(float(run.done_ms.max()))


@given(CASES, st.floats(0.3, 5.0))
@settings(max_examples=30)
def test_scaling_every_time_scales_every_latency(make_times: MakeTimes, case: dict[str, int], scale: float) -> None:
    plain, scaled = played(make_times, case, jump=False), played(make_times, case, scale, jump=False)
    assert scaled.n_steps == plain.n_steps
    assert scaled.done_ms == pytest.approx(scale * plain.done_ms, rel=1e-9)
    assert scaled.first_token_ms == pytest.approx(scale * plain.first_token_ms, rel=1e-9)


@given(CASES)
@settings(max_examples=30)
def test_shares_are_fractions_of_the_time(make_times: MakeTimes, case: dict[str, int]) -> None:
    run = played(make_times, case)
    shares = [run.prefill_share, run.kv_share, run.batch_share, run.tokens_share, run.host_share]
    assert all(-1e-9 <= share <= 1.0 + 1e-9 for share in shares)
    assert run.kv_share + run.batch_share + run.tokens_share <= 1.0 + 1e-9
    assert 0.0 <= run.mean_running <= run.peak_running


# ------------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize(
    ("gpu", "isl", "osl", "changes", "tok_per_s"),
    [
        ("b200_sxm", 1024, 2048, {}, 49_253),
        ("b200_sxm", 4096, 1024, {}, 20_753),
        ("h200_sxm", 4096, 1024, {}, 14_167),
        ("h100_sxm", 1024, 2048, {}, 18_599),
        ("b200_sxm", 1024, 2048, {"max_batch_size": 256}, 22_670),
        ("b200_sxm", 4096, 1024, {"max_num_tokens": 4096}, 259),
        ("b200_sxm", 4096, 1024, {"max_num_tokens": 4224}, 9_439),
        ("b200_sxm", 4096, 1024, {"max_num_tokens": 32768}, 25_283),
        ("h100_sxm", 4096, 1024, {"max_num_tokens": 2048, "chunked_prefill": True}, 8_578),
        ("b200_sxm", 4096, 1024, {"chunked_prefill": True}, 22_394),
        ("h100_sxm", 1024, 2048, {"graph_max": 128}, 20_309),
        ("b200_sxm", 4096, 1024, {"kv_fraction": 0.3}, 18_893),
        ("b200_sxm", 1024, 2048, {"overlap": False}, 28_331),
        ("b200_sxm", 4096, 1024, {"n_ranks": 8, "max_batch_size": 256}, 32_619),
        ("h200_sxm", 1024, 2048, {"n_ranks": 8, "max_batch_size": 256}, 37_008),
    ],
)
def test_maverick_meets_the_reference_prototype(
    maverick_times: MaverickTimes, gpu: str, isl: int, osl: int, changes: dict[str, float], tok_per_s: int
) -> None:
    """Output tok/s at concurrency 1,024, three waves; denser grids move the prototype's figures by up to 1 %."""
    changes = dict(changes)
    n_ranks = int(changes.get("n_ranks", 1))
    times = maverick_times(gpu, n_ranks > 1)
    memory, tokens = times.tables.memory, int(changes.get("max_num_tokens", 8192))
    free_gib = memory.capacity_gib - memory.weights_gib - tokens * memory.activations_gib_per_token - 3.5 - 392 / 1024
    kv_tokens = int(changes.pop("kv_fraction", 0.9) * 0.985 * free_gib * 1024**3 / memory.kv_bytes_per_token)
    batch = int(changes.get("max_batch_size", 1024))
    sizes = captured_sizes(
        int(changes.pop("graph_max", 1024)), padding=True, rule="ceil", max_batch_size=batch, max_num_tokens=tokens
    )
    base = SchedulerSettings(max_batch_size=1024, max_num_tokens=8192, kv_tokens=kv_tokens, graph_sizes=sizes)
    run = simulate(times, replace(base, **changes), [isl] * 3072, [osl] * 3072, concurrency=1024)  # type: ignore[arg-type]
    assert run.output_tok_per_s == pytest.approx(tok_per_s, rel=0.01)
