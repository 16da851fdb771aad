"""The stand-in schedules as the twin does: in virtual time, one is the oracle of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.scheduler import SchedulerSettings, simulate
from advisor.twin.worlds import draw_world
from tests.standin.equipment import MODEL
from tests.standin.scheduler import BlockCache, Request, Scheduler

DEPLOYMENT = Deployment(model=MODEL, quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)
TIMES = Twin(catalog.model_facts(MODEL), catalog.step_tables, constants=draw_world(1)).times(DEPLOYMENT)


def request(prompt: list[int], n_output: int) -> Request:
    return Request(prompt, n_output, lambda n_done, last: None, lambda message: None)


def scheduler(limits: SchedulerSettings, *, reuse: bool = False) -> Scheduler:
    return Scheduler(TIMES, limits, reuse=reuse, check_rows=lambda rank, rows: None)


def served_ms(limits: SchedulerSettings, isl: int, osl: int, concurrency: int, n_requests: int) -> float:
    """Twin time of a closed loop."""
    engine, sent, now = scheduler(limits), 0, 0.0
    while engine.n_finished < n_requests:
        while sent < min(n_requests, engine.n_finished + concurrency):
            engine.submit(request([7] * isl, osl))
            sent += 1
        step = engine.step()
        assert step is not None
        now += step.duration_ms
    return now


limits = st.builds(
    SchedulerSettings,
    max_batch_size=st.integers(1, 32),
    max_num_tokens=st.sampled_from([512, 1024, 4096]),
    kv_tokens=st.sampled_from([1024, 4096, 100_000]),
    graph_sizes=st.sampled_from([(), (1, 2, 4, 8), (1, 2, 4, 8, 16, 24, 32)]),
    graph_padding=st.booleans(),
    chunked_prefill=st.booleans(),
    overlap=st.booleans(),
    n_ranks=st.sampled_from([1, 2]),
)


@settings(max_examples=40)
@given(limits, st.integers(1, 500), st.integers(1, 40), st.integers(1, 40))
def test_a_closed_loop_takes_as_long_as_in_the_twin(s: SchedulerSettings, isl: int, osl: int, concurrency: int) -> None:
    n_requests = 12
    run = simulate(
        TIMES, s, np.full(n_requests, isl), np.full(n_requests, osl), concurrency=min(concurrency, n_requests)
    )
    twin_ms = run.duration_ms - TIMES.constants.ttft_fixed_ms
    assert served_ms(s, isl, osl, min(concurrency, n_requests), n_requests) == pytest.approx(twin_ms, rel=1e-6)


def test_a_repeated_prompt_is_found_in_the_cache_and_takes_less_time() -> None:
    s = SchedulerSettings(max_batch_size=8, max_num_tokens=8192, kv_tokens=10_240)
    engine = scheduler(s, reuse=True)
    first, again, other = request([*range(4000)], 1), request([*range(4000)], 1), request([5, *range(4000)], 1)
    ms = []
    for each in (first, again, other):
        engine.submit(each)
        step = engine.step()
        assert step is not None
        ms.append(step.duration_ms)
    assert (first.cached_tokens, again.cached_tokens, other.cached_tokens) == (0, 3999, 0)
    assert ms[1] < ms[0] / 2
    assert ms[2] == pytest.approx(ms[0], rel=0.01)
    assert (engine.caches[0].reused, engine.caches[0].missed) == (125, 125 + 126)


def test_only_so_many_blocks_exist() -> None:
    cache = BlockCache(n_blocks=10, tokens_per_block=32, reuse=True)
    big, small = request([1] * 200, 60), request([2] * 32, 32)
    assert cache.admit(big)
    assert cache.reserved == 9
    assert not cache.admit(small)
    cache.store(big)
    cache.release(big)
    assert cache.admit(small)
    assert cache.reserved == 2


def test_a_prompt_that_never_fits_waits_and_does_no_harm() -> None:
    engine = scheduler(SchedulerSettings(max_batch_size=4, max_num_tokens=64, kv_tokens=4096))
    engine.submit(request([1] * 100, 1))
    assert engine.step() is None


def test_the_first_requests_can_be_slow() -> None:
    limits = SchedulerSettings(max_batch_size=4, max_num_tokens=64, kv_tokens=4096)
    usual, cold = scheduler(limits), scheduler(limits)
    cold.slowdown, cold.slowdown_left = 1.2, 1
    pace = []
    for _ in range(2):
        ms = []
        for engine in (usual, cold):
            engine.submit(request([1] * 32, 1))
            step = engine.step()
            assert step is not None
            ms.append(step.duration_ms)
        pace.append(ms[1] / ms[0])
    assert pace == pytest.approx([1.2, 1.0])


def test_a_cancelled_request_gives_its_blocks_back() -> None:
    engine = scheduler(SchedulerSettings(max_batch_size=4, max_num_tokens=64, kv_tokens=4096))
    here, queued = request([1] * 60, 50), request([1] * 60, 50)
    engine.submit(here)
    engine.submit(queued)
    assert engine.step()
    engine.cancel(here)
    engine.cancel(queued)
    assert engine.step() is None
    assert engine.caches[0].reserved == 0
