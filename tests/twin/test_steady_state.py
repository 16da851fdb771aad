"""The closed form against the scheduler it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from advisor.twin.graphs import captured_sizes
from advisor.twin.scheduler import SchedulerSettings, simulate
from advisor.twin.steady_state import SteadyLoad, SteadySettings, steady_state
from advisor.twin.step_times import StepTimes

GRID = np.array(
    [
        (batch, tokens, graphs, kv, chunked)
        for batch, tokens, graphs, kv, chunked in itertools.product(
            (16, 128, 512), (1024, 3072, 8192), (0, 128), (60_000, 2_000_000), (0, 1)
        )
    ]
)


@pytest.mark.parametrize(("gpu", "attention_dp"), [("b200_sxm", False), ("h100_sxm", False), ("b200_sxm", True)])
@pytest.mark.parametrize(("isl", "osl"), [(1024, 1024), (2048, 256)])
def test_closed_loop_ranks_like_the_scheduler(
    maverick_times: Callable[[str, bool], StepTimes], gpu: str, attention_dp: bool, isl: int, osl: int
) -> None:
    times, n_ranks, concurrency = maverick_times(gpu, attention_dp), 8 if attention_dp else 1, 256
    n_requests = 3 * concurrency
    estimate = steady_state(
        times,
        SteadySettings(GRID[:, 0], GRID[:, 1], GRID[:, 2], GRID[:, 3], GRID[:, 4] > 0, n_ranks=n_ranks),
        SteadyLoad(isl, osl, concurrency, n_requests=n_requests),
    )
    simulated, guessed = [], []
    for i, (batch, tokens, graphs, kv, chunked) in enumerate(GRID.tolist()):
        if tokens < isl and not chunked:
            assert np.isnan(estimate.output_tok_per_s[i])
            continue
        sizes = captured_sizes(graphs, padding=True, rule="ceil", max_batch_size=batch, max_num_tokens=tokens)
        settings = SchedulerSettings(batch, tokens, kv, sizes, chunked_prefill=bool(chunked), n_ranks=n_ranks)
        run = simulate(times, settings, [isl] * n_requests, [osl] * n_requests, concurrency=concurrency)
        tpot = float(((run.done_ms - run.first_token_ms) / (run.n_output - 1)).mean())
        simulated.append((run.output_tok_per_s, float((run.first_token_ms - run.arrival_ms).mean()), tpot))
        guessed.append((estimate.output_tok_per_s[i], estimate.ttft_ms[i], estimate.tpot_ms[i]))
    ours, theirs = np.array(guessed), np.array(simulated)
    assert np.median(np.abs(ours / theirs - 1.0), axis=0) == pytest.approx(0.0, abs=0.08)
    assert np.abs(ours[:, 0] / theirs[:, 0] - 1.0).max() < 0.25
    # Differences below half a percent are ties: which of them ranks first says nothing.
    rounded = [np.round(np.log(values[:, 0]) / 0.005) for values in (ours, theirs)]
    assert spearmanr(*rounded).statistic > 0.95


def test_open_loop_serves_the_rate_until_it_saturates(maverick_times: Callable[[str, bool], StepTimes]) -> None:
    times = maverick_times("h100_sxm", False)
    settings = SteadySettings(256, 8192, 256, 2_000_000)
    low, high = (
        steady_state(times, settings, SteadyLoad(1024, 512, None, rate, n_requests=2000)) for rate in (2.0, 400.0)
    )
    assert float(low.output_tok_per_s) == pytest.approx(2.0 * 512, rel=0.02)
    assert float(high.output_tok_per_s) < 0.5 * 400.0 * 512
    assert float(high.ttft_ms) > 20 * float(low.ttft_ms)
    assert float(high.running) == 256
