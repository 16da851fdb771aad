"""Every log of the test data is understood, whole and as it looks after containers, launchers and a full disk."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from advisor.app.doctoring import diagnose_lines
from advisor.memory.known import Known, yaml_text
from advisor.store.yaml_files import load_yaml
from tests.memory.log_cases import FOLDERS, JOURNEYS, TWO_AT_ONCE, LogCase, cases

ALL = [case for folder in FOLDERS for case in cases(folder)]
LEAST_RIGHT, LEAST_RIGHT_OVERALL = 0.95, 0.99
COLOUR = re.compile(r"\x1b\[[\d;]*m")
DRAWS = 2


def words(text: str) -> set[str]:
    return {word for word in "".join(char if char.isalnum() else " " for char in text.lower()).split() if len(word) > 2}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.path.name)
def test_verdict_phase_and_amount(case: LogCase) -> None:
    found = diagnose_lines(case.lines)
    assert (found.verdict, found.phase) == (case.kind, case.stage or found.phase)
    if case.short_gib is None:
        assert found.short_gib is None
    else:
        assert found.short_gib == pytest.approx(case.short_gib, abs=0.05)
    if case.component and not case.judged:
        assert words(case.component) & words(found.component or ""), (case.component, found.component)
    for each in found.evidence:
        assert each.text.removeprefix("...").removesuffix("...") in COLOUR.sub("", case.lines[each.line - 1])


@pytest.mark.parametrize("case", cases("failure_logs"), ids=lambda case: case.path.name)
def test_remedy(case: LogCase) -> None:
    """What the source says helped is among the remedies; where nobody said, there is one all the same."""
    offered = diagnose_lines(case.lines).remedies
    if case.kind == "benign" and case.expected_knob.startswith("none"):
        assert offered == ()
    elif case.judged:
        assert offered
    else:
        said = words(" ".join(f"{remedy.setting} {remedy.to} {remedy.why}" for remedy in offered))
        assert words(case.expected_knob.replace("_", " ")) & said, (case.expected_knob, said)


@pytest.mark.parametrize("case", [case for case in ALL if case.kind == "benign"], ids=lambda case: case.path.name)
def test_no_false_alarm_wherever_a_healthy_log_ends(case: LogCase) -> None:
    lines = case.lines
    for end in range(1, len(lines) + 1, max(1, len(lines) // 25)):
        assert diagnose_lines(lines[:end]).verdict in ("benign", "unknown")


def test_right_after_every_journey(record_property: Callable[[str, object], None]) -> None:
    """Truncated after the cause, interleaved between ranks, prefixed, coloured, with Windows line ends."""
    rng = random.Random(20260115)
    drawn, right = Counter[str](), Counter[str]()
    for case in ALL:
        lines = case.lines
        for name, journey in JOURNEYS.items():
            for _ in range(1 if len(lines) > 200 else DRAWS):
                travelled = journey(rng, case, lines)
                drawn[name] += 1
                right[name] += case.is_right(diagnose_lines(travelled))
    rates = {name: right[name] / drawn[name] for name in JOURNEYS}
    record_property("right_of_all_journeys", f"{right.total()} of {drawn.total()}")
    assert {name: rate for name, rate in rates.items() if rate < LEAST_RIGHT} == {}
    assert right.total() / drawn.total() >= LEAST_RIGHT_OVERALL


def test_right_after_two_journeys() -> None:
    rng = random.Random(7)
    outcomes = []
    for case in cases("failure_logs"):
        first, second = rng.choice(TWO_AT_ONCE), rng.choice([name for name in JOURNEYS if name not in TWO_AT_ONCE])
        travelled = JOURNEYS[second](rng, case, JOURNEYS[first](rng, case, case.lines))
        outcomes.append(case.is_right(diagnose_lines(travelled)))
    assert sum(outcomes) / len(outcomes) >= LEAST_RIGHT


def remedy_of(file: str, known: Known, setting: str) -> tuple[object, object, float | None]:
    (case,) = [case for case in ALL if case.path.name.startswith(file)]
    remedies = {remedy.setting: remedy for remedy in diagnose_lines(case.lines, known).remedies}
    return remedies[setting].from_, remedies[setting].to, remedies[setting].frees_gib


FRACTION = "kv_cache_free_gpu_memory_fraction"


def test_known_settings_make_remedies_exact() -> None:
    # The source of case 006 says that 0.85 failed and 0.8 loaded.
    assert remedy_of("006", Known(settings={"fraction": 0.85}), FRACTION)[:2] == (0.85, 0.8)
    assert remedy_of("007", Known(settings={"fraction": 0.9}), FRACTION)[:2] == (0.9, 0.8)
    before, after, frees = remedy_of("004", Known(settings={"tokens": 32768}), "max_num_tokens")
    assert (before, after, frees) == (32768, 16384, None)
    assert remedy_of("022", Known(), "max_seq_len")[:2] == (131072, 86720)


def test_engine_too_large_for_the_gpu_is_split_by_its_size() -> None:
    # 64.79 GiB asked for in one piece: two ranks of 40 GiB hold it, and so does one of 80.
    assert remedy_of("012", Known(capacity_gib=40.0), "tensor_parallel_size")[1] == 2
    assert remedy_of("012", Known(capacity_gib=22.0), "tensor_parallel_size")[1] == 4


@pytest.mark.parametrize(
    "known", [Known(), Known(settings={"fraction": 0.9, "tokens": 8192, "batch": 256, "graphs": 256})]
)
def test_every_patch_is_yaml_and_every_change_is_one(known: Known) -> None:
    for case in ALL:
        for remedy in diagnose_lines(case.lines, known).remedies:
            assert remedy.to is None or remedy.to != remedy.from_
            assert remedy.why
            if remedy.yaml_patch:
                assert load_yaml(remedy.yaml_patch, remedy.setting)


def test_a_patch_nests_like_the_path() -> None:
    patch = load_yaml(yaml_text({"kv_cache_config.free_gpu_memory_fraction": 0.8}), "patch")
    assert patch == {"kv_cache_config": {"free_gpu_memory_fraction": 0.8}}


def test_less_pool_frees_what_is_missing() -> None:
    """The fraction is of the memory free when the pool was sized: 19.2 GiB here, and 3 GiB are missing."""
    lines = [
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 60.80 GiB, available KV cache "
        "memory when calculating max tokens: 17.28 GiB, fraction is set 0.9, kv size is 73728. device total memory "
        "80.00 GiB, , tmp kv_mem 0.00 GiB",
        "[TRT-LLM] [I] Estimated max memory in KV cache : 17.28 GiB",
        "[MemUsageChange] Allocated 17.28 GiB for max tokens in paged KV cache (251648).",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of "
        "80.00 GiB of which 1.00 GiB is free.",
    ]
    found = diagnose_lines(lines)
    assert (found.verdict, found.phase, found.short_gib) == ("oom", "warm_up", 3.0)
    best = found.remedies[0]
    assert best.setting == FRACTION
    assert best.frees_gib is not None
    assert isinstance(best.to, float)
    assert 3.0 <= best.frees_gib <= 4.5
    assert (0.9 - best.to) * 19.2 == pytest.approx(best.frees_gib, abs=0.02)


def test_the_cause_is_the_root_and_not_the_last_line() -> None:
    peers = [
        "[TRT-LLM] [RANK 1] [E] Hang detected on rank 1 in PyExecutor.",
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:268, unhandled system error",
        "mpirun noticed that process rank 1 with PID 0 on node n0 exited on signal 6 (Aborted).",
    ]
    root = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
    )
    for place in range(len(peers) + 1):
        lines = ["INFO:     Application startup complete.", *peers[:place], root, *peers[place:]]
        assert diagnose_lines(lines).verdict == "oom"
    assert diagnose_lines(["INFO:     Application startup complete.", *peers]).verdict == "nccl"


def test_a_server_that_was_stopped_is_healthy() -> None:
    lines = [
        "INFO:     Application startup complete.",
        "INFO:     Shutting down",
        "(APIServer pid=1) ERROR 11-23 14:34:04 [async_llm.py:704] AsyncLLM output_handler failed.",
        "mpirun noticed that process rank 0 with PID 9 on node n0 exited on signal 9 (Killed).",
    ]
    assert diagnose_lines(lines).verdict == "benign"
    assert diagnose_lines([lines[0], *lines[2:]]).verdict != "benign"


def test_a_log_that_only_ends_is_unknown_and_says_what_to_look_at() -> None:
    found = diagnose_lines(["[TRT-LLM] [I] Using LLM with PyTorch backend", "Loading weights:  10%|# | 1/10"])
    assert (found.verdict, found.phase) == ("unknown", "load")
    assert "dmesg" in (found.next_probe or "")
