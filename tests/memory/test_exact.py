"""Remedies by the memory law: the least change that is enough, its true gain and price, in the release's spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from advisor.app.doctoring import diagnose_lines
from advisor.cli.app import app
from advisor.domain.measurement import ProfiledMemory
from advisor.memory.constants import MemoryConstants
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.exact import exact, ready_patch
from advisor.memory.known import Known, yaml_text
from advisor.memory.pricing import Pricing, Setting, terms_of
from advisor.memory.remedies import MARGIN, Remedy, Symptom, remedies
from advisor.memory.terms import MemoryTerms
from advisor.store.yaml_files import load_yaml
from tests.engines.trtllm.start_log import READY, Start, start_log

NOMINAL = MemoryConstants()
NOW: dict[Setting, float] = {"fraction": 0.9, "tokens": 8192, "batch": 256, "graphs": 128}
NAMES: dict[str, Setting] = {
    "kv_cache_free_gpu_memory_fraction": "fraction",
    "max_num_tokens": "tokens",
    "max_batch_size": "batch",
    "cuda_graph_max_batch_size": "graphs",
}
PROFILED = ProfiledMemory(
    weights=28.0,
    activations=4.0,
    outside_torch=5.0,
    temporary_kv=1.0,
    peak=37.0,
    total=80.0,
    fraction=0.9,
    kv_bytes_per_token=131_072.0,
    available_kv=39.6,
)


def ladder(largest: int, batch: int, tokens: int) -> list[int]:
    return [size for size in (1, 2, 4, *range(8, 129, 8)) if size <= min(largest, batch, tokens)]


def terms(profiled: ProfiledMemory = PROFILED) -> MemoryTerms:
    found = terms_of(profiled, NOW, ladder, NOMINAL)
    assert found is not None
    return found


def pricing(vocab_size: int = 0) -> Pricing:
    own = terms()
    return Pricing(MemoryTerms(**{**own.__dict__, "vocab_size": vocab_size}), NOMINAL, NOW, ladder)


def oom(missing_gib: float | None, stage: str = "warm_up", component: str = "Additional executor resources") -> Symptom:
    tried = None if missing_gib is None else missing_gib + 0.5
    return Symptom("oom", stage, component=component, tried_gib=tried, free_gib=0.5)  # type: ignore[arg-type]


def treated(symptom: Symptom, known: Known) -> tuple[Remedy, ...]:
    return exact(remedies(symptom, known), symptom, known)


def test_law_of_a_profiled_server_is_its_budget_line() -> None:
    """(80 - 37 + 1) x 0.9 = 39.6 GiB, of which the allocator keeps its share."""
    budget = pricing().budget()
    assert float(budget.kv_pool_gib) == pytest.approx(39.6)
    assert float(budget.activations_gib) == pytest.approx(4.0)
    assert float(pricing().budget({"tokens": 4096}).activations_gib) == pytest.approx(2.0)


@pytest.mark.parametrize("unsaid", ["weights", "activations", "peak", "kv_bytes_per_token", "total"])
def test_no_law_without_figures(unsaid: str) -> None:
    partly = ProfiledMemory(**{**PROFILED.model_dump(), unsaid: None, "outside_torch": None})
    assert terms_of(partly, NOW, ladder, NOMINAL) is None
    predicted = terms()
    completed = terms_of(partly, NOW, ladder, NOMINAL, predicted, capacity_gib=80.0)
    assert completed is not None
    assert completed.capacity_gib == 80.0


def test_fraction_frees_its_share_of_what_was_free() -> None:
    (remedy,) = [
        each for each in treated(oom(3.0), Known(settings=NOW, pricing=pricing())) if "fraction" in each.setting
    ]
    assert isinstance(remedy.to, float)
    assert remedy.frees_gib is not None
    assert remedy.frees_gib == pytest.approx((0.9 - remedy.to) * 44.0, abs=0.01)
    assert 3.0 * MARGIN <= remedy.frees_gib <= 3.0 * MARGIN + 0.44
    assert remedy.kv_tokens_change == pytest.approx(-(0.9 - remedy.to) * 44.0 * 8192 * 0.985, abs=64)


@given(st.floats(0.01, 20.0), st.sampled_from(["warm_up", "serve", "kv_estimate"]))
def test_enough_is_enough_and_no_nearer_step_is(missing_gib: float, phase: str) -> None:
    component = {"serve": "activations", "warm_up": "executor_extra", "kv_estimate": "model_extra"}[phase]
    stage = {"kv_estimate": 2, "warm_up": 4, "serve": 5}[phase]
    law = pricing(vocab_size=128_256)
    found = treated(oom(missing_gib, phase, component), Known(settings=NOW, pricing=law))
    for remedy in found:
        if remedy.setting not in NAMES:
            continue
        setting = NAMES[remedy.setting]
        assert isinstance(remedy.to, (int, float))
        gain = law.frees_gib(stage, {setting: remedy.to})
        assert remedy.frees_gib == pytest.approx(gain, abs=0.006)
        assert remedy.covers == (gain >= MARGIN * missing_gib)
        nearer = {"fraction": remedy.to + 0.01, "tokens": remedy.to * 1.5, "batch": remedy.to * 1.5}.get(setting)
        if remedy.covers and nearer and (setting != "fraction" or nearer <= 0.85):
            assert law.frees_gib(stage, {setting: nearer}) < MARGIN * missing_gib or setting == "batch"
    covers = [remedy.covers for remedy in found if remedy.covers is not None]
    assert covers == sorted(covers, reverse=True)


def test_after_the_pool_activations_give_back_little() -> None:
    """The pool takes nine tenths of what they free, so 2 GiB of activations are far from 2 GiB."""
    gain = pricing().frees_gib(4, {"tokens": 4096})
    assert gain < 0.5 * 2.0
    assert pricing().frees_gib(2, {"tokens": 4096}) > 2.0 - 0.01


def test_changes_together_cover_what_none_does_alone() -> None:
    known = Known(settings=NOW, pricing=pricing())
    symptom = oom(2.0, "kv_estimate", "model_extra")
    found = treated(symptom, known)
    assert not any(remedy.covers for remedy in found if remedy.setting == "cuda_graph_max_batch_size")
    hard = oom(3.6, "kv_estimate", "model_extra")
    patch, flags = ready_patch(treated(hard, known), hard, known)
    assert flags == ()
    assert patch is not None
    assert load_yaml(patch, "patch")["max_num_tokens"] <= 2048


def test_a_pool_too_small_grows_to_one_sequence() -> None:
    law = pricing()
    wanted = law.kv_tokens() + 9000.0
    symptom = Symptom("insufficient_kv", "kv_allocate", component="KV cache")
    found = treated(symptom, Known(settings={**NOW, "seq": wanted}, pricing=law))
    enough = {remedy.setting: remedy for remedy in found if remedy.covers}
    for name, remedy in enough.items():
        assert isinstance(remedy.to, (int, float))
        assert law.kv_tokens({NAMES[name]: remedy.to}) >= wanted
        assert remedy.kv_tokens_change is not None
        assert remedy.kv_tokens_change >= 9000
    assert enough["kv_cache_free_gpu_memory_fraction"].to == 0.93
    assert "max_num_tokens" in enough


def test_a_law_that_contradicts_the_log_has_no_say() -> None:
    symptom = Symptom("insufficient_kv", "kv_allocate", component="KV cache")
    known = Known(settings={**NOW, "seq": 4096.0}, pricing=pricing())
    assert all(remedy.covers is None for remedy in treated(symptom, known))


def test_throughput_decides_between_remedies_that_are_enough() -> None:
    def twin(changes: object) -> float:
        return 0.7 if changes == {"fraction": 0.85} else 0.99

    symptom = oom(0.4)
    by_table = treated(symptom, Known(settings=NOW, pricing=pricing()))
    by_twin = treated(symptom, Known(settings=NOW, pricing=pricing(), throughput=twin))
    assert by_table[0].setting == "kv_cache_free_gpu_memory_fraction"
    assert by_twin[0].setting == "max_num_tokens"
    assert by_twin[0].throughput_change == pytest.approx(-0.01)


# --- through the door ----------------------------------------------------------------------------------------------


def torch_oom(tried_gib: float, free_gib: float) -> str:
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried_gib:.2f} GiB. GPU 0 has a total "
        f"capacity of 79.11 GiB of which {free_gib:.2f} GiB is free."
    )


FAILED = [
    *start_log(Start(final_sizes=(64,)), "1.2.0"),
    torch_oom(1.5, 0.25),
]


def diagnosed(lines: list[str], tmp_path: Path, *argv: str) -> Diagnosis:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    result = CliRunner().invoke(app, ["doctor", str(log), "--output", "json", *argv])
    assert result.exit_code == 0, result.output
    return Diagnosis.model_validate_json(result.stdout)


def test_a_log_with_figures_needs_nothing_else() -> None:
    found = diagnose_lines(FAILED)
    assert (found.phase, found.tried_gib, found.free_gib, found.short_gib) == ("warm_up", 1.5, 0.25, 1.25)
    best = found.remedies[0]
    free_gib = Start().budget / Start().fraction
    assert best.setting == "kv_cache_free_gpu_memory_fraction"
    assert isinstance(best.to, float)
    assert best.frees_gib == pytest.approx((0.9 - best.to) * free_gib, abs=0.02)
    assert best.covers
    assert {price.setting for price in found.prices} == set(NAMES) - {"max_batch_size"}
    (fraction,) = [price for price in found.prices if "fraction" in price.setting]
    assert fraction.gib == pytest.approx(0.01 * free_gib, abs=0.001)


@pytest.mark.parametrize(
    ("release", "yaml", "flags"),
    [
        ("0.21.0", None, ("--max_num_tokens 4096",)),
        ("1.0.0", None, ("--max_num_tokens 4096",)),
        ("1.2.0", {"max_num_tokens": 4096}, ()),
    ],
)
def test_patch_is_spelled_as_the_release_wants_it(
    tmp_path: Path, release: str, yaml: dict[str, object] | None, flags: tuple[str, ...]
) -> None:
    """Up to 1.0 the size limits of the file are ignored: they stand on the command line."""
    lines = [
        f"[TensorRT-LLM] TensorRT-LLM version: {release}",
        "[TRT-LLM] [I] Using LLM with PyTorch backend",
        "[TRT-LLM] [I] max_seq_len=8224, max_num_requests=64, max_num_tokens=8192, max_batch_size=64",
        "RuntimeError: Executor creation failed due to insufficient GPU memory.",
        "The following component could not be created: Model resources created during usage",
        torch_oom(4.0, 3.0),
    ]
    found = diagnosed(lines, tmp_path)
    assert found.remedies[0].setting == "max_num_tokens"
    assert (load_yaml(found.yaml_patch, "patch") if found.yaml_patch else None) == yaml
    assert found.flags == flags


def test_graphs_are_switched_off_in_the_words_of_the_release(tmp_path: Path) -> None:
    lines = ["[TensorRT-LLM] TensorRT-LLM version: 0.21.0", *_capture_failure()]
    assert load_yaml(str(diagnosed(lines, tmp_path).yaml_patch), "patch") == {"use_cuda_graph": False}
    newer = ["[TensorRT-LLM] TensorRT-LLM version: 1.2.0", *_capture_failure()]
    assert load_yaml(str(diagnosed(newer, tmp_path).yaml_patch), "patch") == {"cuda_graph_config": None}


def _capture_failure() -> list[str]:
    return [
        "[TRT-LLM] [I] Run generation only CUDA graph warmup for batch size=4",
        "CUDA error: operation not permitted when stream is capturing",
    ]


def test_model_and_workload_price_what_the_log_does_not_tell(tmp_path: Path) -> None:
    """An OOM in the first pass: nothing was profiled yet, so the terms are those of the deployment."""
    lines = start_log(Start(), "1.2.0")
    half = next(number for number, line in enumerate(lines) if "Memory used after loading" in line)
    failed = [
        *lines[:half],
        "The following component could not be created: Model resources created during usage",
        "Executor creation failed due to insufficient GPU memory.",
        torch_oom(0.75, 0.5),
    ]
    assert diagnosed(failed, tmp_path).prices == ()
    asked = ("--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "h100_sxm", "--workload", "1k1k_c16")
    found = diagnosed(failed, tmp_path, *asked)
    best = found.remedies[0]
    assert (found.phase, best.setting, best.covers) == ("kv_estimate", "max_num_tokens", True)
    assert best.throughput_change is not None
    assert best.kv_tokens_change is not None
    assert best.kv_tokens_change > 0
    assert len(found.prices) == 4
    text = CliRunner().invoke(app, ["doctor", str(tmp_path / "log"), *asked]).stdout
    assert "estimated by the twin" in text
    assert "enough alone" in text
    assert "What a step is worth" in text


def test_healthy_logs_need_no_patch(tmp_path: Path) -> None:
    found = diagnosed([*start_log(Start(max_seq_len=8192)), *READY], tmp_path)
    assert (found.verdict, found.yaml_patch, found.flags) == ("benign", None, ())


def test_wrong_model_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(FAILED))
    result = CliRunner().invoke(app, ["doctor", str(log), "--model", "nobody/knows", "--gpu", "h100_sxm"])
    assert result.exit_code == 2
    assert "nobody/knows" in result.stderr


@given(st.dictionaries(st.sampled_from(["a", "b.c", "b.d", "e.f.g", "e.h"]), st.sampled_from([None, True, 4, 0.85])))
def test_patches_are_the_nested_yaml_of_their_paths(entries: dict[str, bool | int | float | None]) -> None:
    document = load_yaml(yaml_text(entries), "patch") if entries else {}
    for path, value in entries.items():
        found: object = document
        for part in path.split("."):
            assert isinstance(found, dict)
            found = found[part]
        assert json.dumps(found) == json.dumps(value)


def test_patch_below_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="below a value"):
        yaml_text({"a": 1, "a.b": 2})
