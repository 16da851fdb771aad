"""Nothing feasible: the nearest configuration, and the limit that blocks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.measurement import EffectiveSettings
from advisor.domain.objective import parse_slo
from advisor.domain.outcome import Crashed, OutOfMemory, Unhealthy
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.misses import nearest_memory_miss, nearest_slo_miss
from tests.search.test_standings import NAME, trial


def oom(number: int, short_gib: float) -> TrialRecord:
    outcome = OutOfMemory(phase="kv_allocate", component="KV cache", short_gib=short_gib)
    return changed(trial(number + 1, 1.0, number=number, outcome=outcome), workloads=())


def small_pool(number: int, kv_tokens: int) -> TrialRecord:
    effective = EffectiveSettings(
        max_batch_size=1, max_num_tokens=1, max_seq_len=kv_tokens, kv_tokens=kv_tokens, cuda_graph_sizes=()
    )
    record = trial(number + 1, 1.0, number=number, outcome=Unhealthy(reason="too small"))
    return changed(record, workloads=(), effective=effective)


@given(st.lists(st.floats(101.0, 1e5), min_size=1, max_size=6))
def test_the_nearest_breaks_its_limit_least_and_would_keep_the_one_proposed(latencies_ms: list[float]) -> None:
    records = [trial(n + 1, 1000.0, ttft_ms=ms, number=n) for n, ms in enumerate(latencies_ms)]
    miss = nearest_slo_miss(records, NAME, parse_slo("ttft:p95<100ms"))
    assert miss is not None
    (broken,) = miss.broken
    assert broken.value_ms == pytest.approx(min(latencies_ms))
    assert (broken.name, broken.limit_ms, miss.blocks, miss.source) == ("ttft:p95", 100.0, "slo", "simulated")
    (relaxed,) = miss.relaxations
    proposed = parse_slo(relaxed.change.removeprefix('--slo "').removesuffix('"'))
    again = nearest_slo_miss(records, NAME, proposed)
    assert again is None or miss.trials != again.trials, "with this limit it is feasible"


def test_the_worst_limit_comes_first_and_all_broken_ones_are_loosened() -> None:
    record = trial(1, 1000.0, ttft_ms=300.0)
    miss = nearest_slo_miss([record], NAME, parse_slo("ttft:p95<200ms,e2e:p99<100ms,ttft:p50<1s"))
    assert miss is not None
    assert [limit.name for limit in miss.broken] == ["e2e:p99", "ttft:p95"]
    assert miss.relaxations[0].change == '--slo "ttft:p95<300ms,e2e:p99<300ms,ttft:p50<1000ms"'


def test_repeats_are_averaged_before_they_are_held_against_the_limit() -> None:
    records = [trial(1, 1000.0, ttft_ms=ms, number=n) for n, ms in enumerate((90.0, 130.0))]
    miss = nearest_slo_miss(records, NAME, parse_slo("ttft:p95<100ms"))
    assert miss is not None
    assert miss.broken[0].value_ms == pytest.approx(110.0)
    assert miss.trials == (0, 1)


def test_of_launches_that_died_of_memory_the_one_that_lacked_least_is_nearest() -> None:
    records = [oom(0, 3.0), small_pool(1, 500), oom(2, 0.5)]
    miss = nearest_memory_miss(records, needed_tokens=2048)
    assert miss is not None
    assert miss.memory is not None
    assert (miss.trials, miss.blocks, miss.memory.short_gib) == ((2,), "memory", 0.5)
    assert (miss.memory.phase, miss.memory.component) == ("kv_allocate", "KV cache")


def test_else_the_largest_kv_pool_is() -> None:
    miss = nearest_memory_miss([small_pool(0, 500), small_pool(1, 900)], needed_tokens=2048)
    assert miss is not None
    assert miss.memory is not None
    assert (miss.trials, miss.blocks, miss.memory.kv_tokens, miss.memory.short_gib) == ((1,), "kv_cache", 900, 0.0)


def test_crashes_are_no_miss_of_a_limit() -> None:
    crash = changed(trial(1, 1.0, outcome=Crashed(phase="load", reason="segmentation fault")), workloads=())
    assert nearest_memory_miss([crash], needed_tokens=2048) is None
    assert nearest_slo_miss([crash], NAME, parse_slo("ttft:p95<100ms")) is None
