"""Starts of the stand-in, phase by phase: its log's arithmetic, and every way in which memory runs out.

In this process, which is its own worker; the programs are in test_program.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from advisor.app.doctoring import diagnose_lines
from advisor.domain.outcome import Phase
from advisor.domain.units import from_gib, gib
from advisor.memory.law import MemoryBudget, memory_budget
from advisor.memory.terms import MemoryLoad, MemorySettings
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.worlds import draw_world
from tests.standin.command_line import parse
from tests.standin.context import Context
from tests.standin.dial import Dial, Faults
from tests.standin.equipment import MODEL
from tests.standin.fake_gpus import FakeGpus
from tests.standin.log import Log
from tests.standin.memory import STAGES, Law, LoadMemory, OutOfMemory, RankMemory
from tests.standin.releases import RELEASES
from tests.standin.settings import Settings, understand
from tests.standin.startup import Started, StartFailed, Startup

EVERY = pytest.mark.parametrize("release", RELEASES)
PLACES: dict[str, tuple[Phase, str]] = {
    "model": ("load", "model weights"),
    "sampler": ("load", "Sampler"),
    "init_kv": ("kv_estimate", "Initial KV"),
    "spec": ("kv_estimate", "Speculative decoding resources"),
    "drafter": ("kv_estimate", "Drafter"),
    "init_extra": ("kv_estimate", "Additional executor resources (temporary"),
    "model_extra": ("kv_estimate", "Model resources created during usage"),
    "kv_cache": ("kv_allocate", "KV cache"),
    "executor_extra": ("warm_up", "Additional executor resources"),
}
"""Phase and component as advisor's doctor is to name them."""


class Paper(Log):
    """A log that is kept."""

    def __init__(self, n_ranks: int = 1) -> None:
        super().__init__("info", n_ranks)
        self.text = ""

    def bytes(self, data: bytes) -> None:
        self.text += data.decode()

    def numbers(self, pattern: str) -> list[tuple[float, ...]]:
        """The groups of every match."""
        return [tuple(map(float, match.groups())) for match in re.finditer(pattern, self.text)]


class Bench:
    """One start on fake GPUs, held by this process."""

    def __init__(
        self, folder: Path, release: str = "1.1.0", *options: str, faults: Mapping[int, Any] | None = None
    ) -> None:
        self.gpus = FakeGpus.build(folder, n_gpus=4)
        for index in range(4):
            self.gpus.release(index)  # what an earlier start of this process held
        self.settings: Settings = understand(RELEASES[release], parse(release, [MODEL, *options]), {})
        deployment = self.settings.deployment("h100_sxm")
        self.twin = Twin(catalog.model_facts(MODEL), catalog.step_tables, constants=draw_world(1))
        self.law = Law(self.twin.memory_terms(deployment), self.settings, self.twin.constants)
        self.ranks = [RankMemory(self.gpus, rank, rank, os.getpid()) for rank in range(self.settings.n_ranks)]
        self.log = Paper(self.settings.n_ranks)
        self.context = Context(self.settings, Dial(), Faults(faults or {}), self.log)

    def start(self) -> Started:
        """All phases, without their time."""
        paused = lambda phase, share: None  # noqa: E731
        return Startup(self.context, self.law, self.ranks, paused, 131_072).run()

    def law_says(self, load: MemoryLoad | None = None) -> MemoryBudget:
        """The whole law at once, on the GPU that is there."""
        s = self.settings
        return memory_budget(
            replace(self.law.terms, capacity_gib=self.ranks[0].total_gib),
            MemorySettings(
                max_batch_size=s.max_batch_size,
                max_num_tokens=s.max_num_tokens,
                kv_fraction=s.kv_fraction,
                n_graphs=len(s.graph_sizes),
                largest_graph=max(s.graph_sizes, default=0),
                tokens_per_block=s.tokens_per_block,
            ),
            self.law.constants,
            load,
        )


@EVERY
def test_the_budget_of_the_log_adds_up(release: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, release, "--max_batch_size", "256", "--max_seq_len", "4096")
    started = bench.start()
    log = bench.log
    ((weights,),) = log.numbers(r"weights \(inside torch\) in memory usage profiling: ([\d.]+) GiB")
    ((activations,),) = log.numbers(r"dynamically allocated during inference .*profiling: ([\d.]+) GiB")
    ((outside,),) = log.numbers(r"used outside torch \(e.g., .*profiling: ([\d.]+) GiB")
    ((peak, available, fraction, kv_bytes, total, temporary),) = log.numbers(
        r"non-torch\): ([\d.]+) GiB, available .*: ([\d.]+) GiB, fraction is set ([\d.]+), kv size is (\d+)\. "
        r"device total memory ([\d.]+) GiB, , tmp kv_mem ([\d.]+) GiB"
    )
    assert peak == pytest.approx(weights + activations + outside, abs=0.02)
    assert available == pytest.approx((total - peak + temporary) * fraction, abs=0.02)
    asked = [int(tokens) for _, tokens in log.numbers(r"are set \(to ([\d.]+) and (\d+), respectively")]
    assert asked[-1] == pytest.approx(from_gib(available) / kv_bytes, abs=from_gib(0.005) / kv_bytes + 1)
    pools = log.numbers(r"Allocated ([\d.]+) GiB for max tokens in paged KV cache \((\d+)\)")
    assert len(pools) == 2, "a temporary pool, then the final one"
    size, tokens = pools[-1]
    assert tokens == -(-asked[-1] // 32) * 32 == started.kv_tokens
    assert size == pytest.approx(gib(tokens * kv_bytes), abs=0.005)
    assert log.text.count("max_seq_len=4096, max_num_requests=256, max_num_tokens=8192, max_batch_size=256") == 2
    sizes = [int(size) for (size,) in log.numbers(r"warmup for batch size=(\d+)")]
    assert sizes == [*reversed(bench.settings.graph_sizes)] * 2, "captured twice, the largest first"
    assert float(bench.law_says().kv_tokens) == pytest.approx(started.kv_tokens, abs=64)


@EVERY
@pytest.mark.parametrize("stage", PLACES)
def test_out_of_memory_in_every_stage_is_told_as_the_release_does(release: str, stage: str, tmp_path: Path) -> None:
    fault = {"kind": "oom", "stage": stage, "short_gib": 1.25}
    bench = Bench(tmp_path, release, "--max_batch_size", "64", faults={0: fault})
    with pytest.raises(StartFailed, match=f"out of memory: {stage}"):
        bench.start()
    found = diagnose_lines(bench.log.text.splitlines())
    phase, component = PLACES[stage]
    assert (found.verdict, found.phase) == ("oom", phase)
    assert found.component
    assert component in found.component
    assert found.short_gib == pytest.approx(1.25, abs=0.011)
    report = bench.log.text.partition("before/after creation (GiB):")[2].partition("\n\nPlease refer to")[0]
    listed = report.split()
    rows = bench.log.numbers(r"(?m)^[^\n\[]+: ([\d.]+) / ([\d.]+)$")[: list(STAGES).index(stage)]
    assert report.count(" / ") == list(STAGES).index(stage) == len(rows), "what was created before"
    assert all(after <= before for before, after in rows)
    if rows:
        assert listed[0] == ("Model:" if RELEASES[release].friendly_names else "model:")
    assert bench.log.text.rstrip().endswith("RuntimeError: Executor worker returned error")


drawn = st.fixed_dictionaries(
    {
        "--max_batch_size": st.sampled_from([1, 64, 2048]),
        "--max_num_tokens": st.sampled_from([256, 8192, 131_072, 1_000_000]),
        "--kv_cache_free_gpu_memory_fraction": st.sampled_from([0.001, 0.5, 0.9, 0.98, 0.995]),
    }
)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=drawn, rows=st.integers(1, 2048))
def test_a_launch_ends_as_the_memory_law_says(options: dict[str, Any], rows: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1.1.0", *(str(word) for pair in options.items() for word in pair))
    law = bench.law_says(MemoryLoad(requests=rows, request_tokens=1))
    margins = law.margin_gib[:-1]
    started = None
    try:
        started = bench.start()
    except StartFailed:
        failing = int((margins < 0).argmax()) if (margins < 0).any() else 3  # a pool of less than two blocks
        found = diagnose_lines(bench.log.text.splitlines())
        assert found.phase == ("load", "kv_estimate", "kv_estimate", "kv_allocate", "warm_up")[failing]
        if found.verdict == "oom":
            assert found.short_gib == pytest.approx(-float(margins[failing]), abs=0.02)
        else:
            assert (found.verdict, failing) == ("insufficient_kv", 3)
        return
    assert float(margins.min()) > -0.02
    under_load = LoadMemory(bench.law, bench.ranks, each_its_own=False)
    missing = -float(law.margin_gib[-1])
    assert short_gib(under_load, min(rows, bench.settings.max_batch_size)) == pytest.approx(max(0.0, missing), abs=0.02)
    assert started.kv_tokens == pytest.approx(float(law.kv_tokens), abs=96)


def short_gib(memory: LoadMemory, rows: int) -> float:
    """GiB that serving so many rows lacks."""
    try:
        memory.check(0, rows)
    except OutOfMemory as error:
        return error.tried_gib - error.free_gib
    return 0.0


def test_another_process_on_the_gpu_shrinks_the_pool_and_can_end_a_start(tmp_path: Path) -> None:
    alone = Bench(tmp_path / "alone").start()
    shared = Bench(tmp_path / "shared")
    shared.gpus.hold(0, int(from_gib(20.0)), pid=os.getppid())
    less = shared.start()
    bytes_per_token = shared.law.terms.kv_bytes_per_token
    assert gib((alone.kv_tokens - less.kv_tokens) * bytes_per_token) == pytest.approx(20.0 * 0.9, rel=0.02)
    crowded = Bench(tmp_path / "crowded")
    crowded.gpus.hold(0, int(from_gib(70.0)), pid=os.getppid())
    with pytest.raises(StartFailed, match="out of memory: model"):
        crowded.start()


def test_the_smallest_pool_of_all_ranks_is_everybodys(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1.1.0", "--tp_size", "2")
    bench.gpus.hold(1, int(from_gib(30.0)), pid=os.getppid())
    bench.start()
    pools = bench.log.numbers(r"Allocated ([\d.]+) GiB for max tokens in paged KV cache \((\d+)\)")
    assert pools[-1] == pools[-2]
    assert "[TRT-LLM] [RANK 1] [I] Peak memory during memory usage profiling" in bench.log.text


def test_a_rank_that_does_not_lead_fails_without_being_heard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1.1.0", "--tp_size", "2")
    bench.gpus.hold(1, int(from_gib(72.0)), pid=os.getppid())
    with pytest.raises(StartFailed):
        bench.start()
    assert "[RANK 1] [E] Failed to initialize executor on rank 1" in bench.log.text
    assert bench.log.text.rstrip().endswith("RuntimeError: Executor worker died during initialization")
    assert diagnose_lines(bench.log.text.splitlines()).verdict == "oom"


def test_a_small_pool_cuts_max_seq_len_silently_and_takes_graphs_away(tmp_path: Path) -> None:
    fault = {0: {"kind": "small_kv", "tokens": 1000}}
    bench = Bench(tmp_path, "1.1.0", "--max_seq_len", "4096", "--max_batch_size", "64", faults=fault)
    started = bench.start()
    assert (started.kv_tokens, started.max_seq_len, started.graph_sizes) == (1024, 1024, ())
    assert "Attention window size 4096 exceeds upper bound 1024 for available blocks" in bench.log.text
    assert "max_seq_len=1024" in bench.log.text
    later = Bench(tmp_path, "1.3.0rc", "--max_seq_len", "4096", "--max_batch_size", "64", faults=fault).start()
    assert later.graph_sizes == (*range(1, 33),)


@pytest.mark.parametrize("fraction", ["1.0", "0.000001"])
def test_a_pool_that_cannot_be(fraction: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1.2.0", "--free_gpu_memory_fraction", fraction)
    with pytest.raises(StartFailed):
        bench.start()
    expected = "must be smaller than 1.0" if fraction == "1.0" else "Impossible to fit in any sequence in kvCache"
    assert expected in bench.log.text
    found = diagnose_lines(bench.log.text.splitlines())
    assert found.verdict == ("insufficient_kv" if fraction != "1.0" else found.verdict)


def test_a_quiet_log_level_keeps_the_figures_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log("error")
    log.info("figures")
    log.cpp("more figures")
    log.error("trouble")
    assert capfd.readouterr().out.endswith("[TRT-LLM] [E] trouble\n")
