"""The probe reads a start as every release words it: final pass against first, the tightest of many ranks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.measurement import EffectiveSettings, ProfiledMemory
from advisor.domain.outcome import Phase
from advisor.domain.strict import changed
from advisor.domain.units import gib
from advisor.engines.rule_book import RULES
from advisor.engines.surprises import surprises
from advisor.engines.trtllm.probe import Probe
from advisor.memory.law import available_kv_gib, kv_pool_tokens
from advisor.memory.phases import PhaseTracker
from tests.engines.trtllm.builders import GUIDE, MAVERICK
from tests.engines.trtllm.start_log import READY, RELEASES, WITHOUT_FRACTION, WITHOUT_TOTAL, Start, start_log
from tests.memory.log_cases import cases

START = Start()


def probed(lines: list[str]) -> Probe:
    probe = Probe()
    for event in RULES.events(enumerate(lines, start=1)):
        probe.take(event)
    return probe


def phases(lines: list[str]) -> list[tuple[Phase, bool]]:
    """Phases as a person watching sees them, with whether it was then the first pass."""
    tracker, reader = PhaseTracker(), RULES.reader()
    found = []
    for number, line in enumerate(lines, start=1):
        for event in reader.take(number, line):
            if (phase := tracker.take(event)) is not None:
                found.append((phase, tracker.first_pass))
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_memory_and_settings_of_every_release(release: str) -> None:
    probe = probed(start_log(START, release))
    said, total_said = release not in WITHOUT_FRACTION, release not in WITHOUT_TOTAL
    pool_gib = round(gib(START.pool_tokens * START.kv_bytes), 2)
    assert probe.profiled() == ProfiledMemory(
        weights=START.loaded,
        loaded_outside_torch=START.loaded_outside if total_said else None,
        activations=START.activations,
        outside_torch=START.outside,
        temporary_kv=round(START.temporary, 2) if total_said else None,
        peak=round(START.peak, 2),
        total=START.total if total_said else None,
        fraction=START.fraction,
        kv_bytes_per_token=START.kv_bytes if said else None,
        available_kv=round(START.budget, 2),
        kv_pool=pool_gib,
        kv_tokens=START.pool_tokens,
        torch_cap=START.torch_cap,
    )
    assert probe.effective() == EffectiveSettings(
        max_batch_size=64,
        max_num_tokens=8192,
        max_seq_len=32_768,
        kv_tokens=START.pool_tokens,
        cuda_graph_sizes=(1, 2, 4, 8, 16, 32, 64),
    )


@pytest.mark.parametrize("release", RELEASES)
def test_phases_never_go_back(release: str) -> None:
    expected = ["launch", "load", "kv_estimate", "kv_allocate", "warm_up", "serve"]
    found = phases([*start_log(START, release), *READY])
    assert [phase for phase, _ in found] == expected
    assert [phase for phase, first in found if first] == ["kv_estimate"]


def test_the_worked_example() -> None:
    """gpt-oss-120b on one GPU of 119.70 GiB, TensorRT-LLM 1.1.0rc3: budget, tokens and blocks as it computed them."""
    (case,) = [case for case in cases("failure_logs") if case.path.name.startswith("022")]
    found = probed(case.lines).profiled()
    assert None not in (found.total, found.peak, found.temporary_kv, found.fraction, found.available_kv)
    assert found.total and found.peak and found.temporary_kv and found.fraction and found.available_kv
    budget = available_kv_gib(found.total, found.peak, found.temporary_kv, found.fraction)
    assert budget == pytest.approx(found.available_kv, abs=0.01)
    assert found.kv_bytes_per_token == 36 * 8 * 64 * 2 * 2
    estimated_tokens = 86_711  # the line before the pool says so
    assert int(kv_pool_tokens(gib(estimated_tokens * found.kv_bytes_per_token), found.kv_bytes_per_token, 32)) == 86_720
    assert (found.kv_tokens, found.kv_pool) == (86_720, round(gib(86_720 * found.kv_bytes_per_token), 2))
    assert found.torch_cap == pytest.approx(71.62367630004883)


def test_first_pass_says_nothing_of_the_server() -> None:
    lines = start_log(replace(START, final_sizes=(64, 32)))
    half = next(number for number, line in enumerate(lines) if "Memory used after loading" in line)
    probe = probed(lines[:half])
    assert probe.first_pass
    assert (probe.profiled().kv_tokens, probe.effective()) == (None, None)
    whole = probed(lines).effective()
    assert whole is not None
    assert whole.cuda_graph_sizes == (32, 64)


RANKS = [START, replace(START, outside=9.4), replace(START, outside=4.5)]


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_the_tightest_rank_wins_however_ranks_interleave(seed: int) -> None:
    """Ranks agree on the least tokens before they allocate; between two collectives their lines mix."""
    rng = random.Random(seed)
    tokens = min(start.pool_tokens for start in RANKS)
    logs = [
        [line.replace(f"({start.pool_tokens})", f"({tokens})") for line in start_log(start, "1.2.0", rank)]
        for rank, start in enumerate(RANKS)
    ]
    mixed: list[str] = []
    for chapter in zip(*map(_chapters, logs), strict=True):
        queues = [list(lines) for lines in chapter]
        while any(queues):
            mixed.append(rng.choice([queue for queue in queues if queue]).pop(0))
    probe = probed(mixed)
    found = probe.profiled()
    assert (found.outside_torch, found.available_kv) == (9.4, round(RANKS[1].budget, 2))
    assert found.kv_tokens == tokens
    effective = probe.effective()
    assert effective is not None
    assert effective.cuda_graph_sizes == (1, 2, 4, 8, 16, 32, 64)


def _chapters(lines: list[str]) -> list[list[str]]:
    """Cut where every rank waits for the others: before profiling, after it, before the pool."""
    marks = ("Memory used after loading model weights (inside", "Memory dynamically allocated", "Estimated max memory")
    cuts = [next(i for i, line in enumerate(lines) if mark in line) for mark in marks]
    return [lines[a:b] for a, b in zip([0, *cuts], [*cuts, len(lines)], strict=True)]


def test_a_graph_counts_when_every_rank_has_it() -> None:
    short = replace(START, final_sizes=(64, 32))
    probe = probed([*start_log(START, "1.2.0", 0), *start_log(short, "1.2.0", 1)])
    effective = probe.effective()
    assert effective is not None
    assert effective.cuda_graph_sizes == (32, 64)


def test_warm_up_of_torch_compile_is_no_graph() -> None:
    old = ["Run warmup for batch size=64", "Run warmup for batch size=1, pure context phase"]
    probe = probed([*start_log(replace(START, final_sizes=()), "0.20.0"), *(f"[TRT-LLM] [I] {line}" for line in old)])
    effective = probe.effective()
    assert effective is not None
    assert effective.cuda_graph_sizes == (64,)


def test_second_kv_manager_states_its_pool_in_gib() -> None:
    lines = [
        line
        for line in start_log(START, "main")
        if "for max tokens in paged" not in line and "KV cache blocks" not in line
    ]
    cut = next(number for number, line in enumerate(lines) if "Estimated max memory" in line)
    quota = "[TRT-LLM] [I] KV cache manager v2 device quota set to {}GiB"
    found = probed([*lines[: cut + 1], quota.format(START.budget), *lines[cut + 1 :]]).profiled()
    assert found.kv_pool == pytest.approx(START.budget)
    assert found.kv_tokens == (START.pool_tokens - 32 if START.pool_tokens % 32 else found.kv_tokens)
    assert 0 <= START.pool_tokens - (found.kv_tokens or 0) <= 32


def test_c_plus_plus_backend_has_one_pass() -> None:
    lines = [
        "[TensorRT-LLM][INFO] TRTGptModel maxNumTokens: 8192",
        "[TensorRT-LLM][INFO] TRTGptModel maxBatchSize: 64",
        "[TensorRT-LLM][INFO] TRTGptModel maxSequenceLen: 4096",
        "[TensorRT-LLM][INFO] Loaded engine size: 15388 MiB",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 812.51 MiB for execution context memory.",
        "[TensorRT-LLM][INFO] Max KV cache pages per sequence: 128",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 40.00 GiB for max tokens in paged KV cache (327680).",
    ]
    assert [phase for phase, _ in phases([*lines, *READY])] == ["load", "kv_allocate", "warm_up", "serve"]
    probe = probed(lines)
    assert not probe.first_pass
    assert probe.effective() == EffectiveSettings(
        max_batch_size=64, max_num_tokens=8192, max_seq_len=4096, kv_tokens=327_680, cuda_graph_sizes=()
    )


AS_ASKED = EffectiveSettings(
    max_batch_size=1024, max_num_tokens=8192, max_seq_len=5120, kv_tokens=6_000_000, cuda_graph_sizes=(1, 512, 1024)
)


def surprised(effective: EffectiveSettings) -> tuple[str, ...]:
    return surprises(GUIDE, 5120, MAVERICK, effective, (1, 512, 1024))


def test_no_surprise_where_the_server_does_as_told() -> None:
    assert surprised(AS_ASKED) == ()
    assert surprised(changed(AS_ASKED, max_seq_len=131_072)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_batch_size": 64}, "max_batch_size is 64, not 1,024"),
        ({"max_num_tokens": 4096}, "max_num_tokens is 4,096, not 8,192"),
        ({"max_seq_len": 3040, "kv_tokens": 3040}, "cut from 5,120 to 3,040"),
        ({"kv_tokens": 512_000}, "100 requests of 5,120 tokens at once, not max_batch_size 1,024"),
        ({"cuda_graph_sizes": ()}, "No CUDA graph was captured, 3 sizes up to 1,024"),
        ({"cuda_graph_sizes": (512, 1024)}, "for 2 of 3 sizes; missing: 1"),
        ({"cuda_graph_sizes": (1, 512, 720, 1024)}, "also captured for sizes 720"),
    ],
)
def test_each_surprise_in_words(change: dict[str, object], words: str) -> None:
    (said,) = surprised(changed(AS_ASKED, **change))
    assert words in said
