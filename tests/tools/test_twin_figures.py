"""The twin against the measured studies that ship with the sources: no worse than docs/h100-study.md shows."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.store import catalog
from advisor.store.run_card import RunCard, read_card
from tools.study_records import benchmarked, read_trials
from tools.twin_figures import (
    Variant,
    errors,
    kernel_wave,
    learnt,
    measured_waves,
    nominal,
    not_known,
    predicted_by_hand,
    read_by_hand,
    variant,
    waves,
)

EVIDENCE = Path(__file__).parents[2] / "studies" / "evidence"
H100, ONE_LEASE = EVIDENCE / "h100-vllm-0.24.0" / "study", EVIDENCE / "h200-vllm-0.24.0" / "one-lease"
THREE_MACHINES, FIFTH_LEASE = ONE_LEASE.parent / "three-machines", ONE_LEASE.parent / "fifth-lease"
STUDIES = {
    "h100": (H100, H100.parent / "study-2"),
    "h200": (
        ONE_LEASE.parent / "study",
        ONE_LEASE.parent / "further",
        ONE_LEASE / "study",
        ONE_LEASE / "further",
        ONE_LEASE / "ours-0",
        THREE_MACHINES / "study",
        THREE_MACHINES / "further",
    ),
    "h200, after the twin": tuple(FIFTH_LEASE / run for run in ("study", "further", "again-0", "again-1")),
}

SHARES_TOLD = (
    *STUDIES["h200, after the twin"],
    ONE_LEASE / "study",
    THREE_MACHINES / "study",
    H100.parent / "study-2",
)


@pytest.fixture(scope="module")
def card() -> RunCard:
    return read_card(H100)


@pytest.fixture(scope="module")
def records() -> list[TrialRecord]:
    return read_trials(H100)


@pytest.fixture(scope="module")
def own() -> Variant:
    """The twin with the kernel times of vLLM."""
    return nominal(H100)[1]


def test_the_two_variants_go_by_the_tables_they_are_named_after() -> None:
    assert [each.name for each in nominal(H100)] == ["TensorRT-LLM 1.3.0rc20", "vLLM 0.24.0"]


@pytest.mark.parametrize(
    ("gpu", "place", "n", "median", "rms"),
    [
        ("h100", 0, 13, [0.053, 0.06, 0.053], [0.059, 0.062, 0.067]),
        ("h100", 1, 14, [0.032, 0.053, 0.06], [0.088, 0.212, 0.1]),
        ("h200", 0, 47, [0.033, 0.055, 0.047], [0.044, 0.135, 0.08]),
        ("h200", 1, 13, [0.071, 0.055, 0.054], [0.068, 0.074, 0.105]),
        ("h200, after the twin", 0, 26, [0.041, 0.073, 0.059], [0.07, 0.096, 0.147]),
        ("h200, after the twin", 1, 6, [0.092, 0.136, 0.121], [0.111, 0.118, 0.119]),
    ],
)
def test_uncalibrated_errors_of_throughput_ttft_and_tpot(
    gpu: str, place: int, n: int, median: list[float], rms: list[float]
) -> None:
    found = []
    for study in STUDIES[gpu]:
        run, twin = read_card(study), nominal(study)[1].twin
        for workload in run.workloads[place : place + 1]:
            trials = benchmarked(read_trials(study), workload)
            found += [errors(twin, run, trial, workload) for trial in trials]
    assert len(found) == n
    assert (np.median(np.abs(found), axis=0) <= median).all()
    assert (np.sqrt(np.mean(np.square(found), axis=0)) <= rms).all()


@pytest.mark.parametrize(
    ("study", "later", "n"),
    [
        (H100, H100, 8),
        (ONE_LEASE / "study", ONE_LEASE / "study", 6),
        (ONE_LEASE / "study", ONE_LEASE / "further", 17),
        (THREE_MACHINES / "study", THREE_MACHINES / "further", 12),
        (FIFTH_LEASE / "study", FIFTH_LEASE / "further", 17),
    ],
)
def test_calibrated_on_three_launches_an_unseen_configuration_is_within_ten_percent(
    study: Path, later: Path, n: int
) -> None:
    """Of the same study, and of another run in the same hour."""
    run, trials = read_card(later), read_trials(later)
    unseen = not_known(trials) if later == study else trials
    twin = variant(run, catalog.step_tables, learnt(study, catalog.step_tables)).twin
    found = [errors(twin, run, trial, workload)[0] for trial in unseen for workload in run.workloads]
    assert len(found) == n
    assert np.abs(found).max() < 0.1


def test_the_twins_http_process_is_as_busy_as_the_thread_was() -> None:
    """CPU time of the thread that serves HTTP over the benchmark: no constant was fitted to it."""
    apart = []
    for study in SHARES_TOLD:
        run, twin = read_card(study), nominal(study)[1].twin
        for trial in read_trials(study):
            for workload in run.workloads:
                outcome = trial.workload(workload.name)
                if outcome is not None and outcome.metrics and outcome.server and trial.config.max_batch_size >= 192:
                    n, seed = outcome.metrics.n_requests, outcome.seed
                    played = twin.simulate(run.deployment, trial.config, workload, n_requests=n, seed=seed)
                    assert played.http_share is not None
                    apart.append(played.http_share - outcome.server.http_cpu_share)
    assert len(apart) == 47
    assert abs(np.mean(apart)) < 0.02
    assert np.median(np.abs(apart)) < 0.04
    assert np.abs(apart).max() < 0.17


def test_prompts_take_two_to_thirteen_percent_longer_than_the_kernel_times_say(
    card: RunCard, records: list[TrialRecord], own: Variant
) -> None:
    for workload in card.workloads:
        for trial in records:
            said = kernel_wave(own.twin, card.deployment, trial.config, workload).prompt_us
            seen = [wave.prompt_us for wave in measured_waves(H100, trial, workload)]
            assert not seen or 1.0 < statistics.median(seen) / said < 1.13


def test_where_nothing_but_kernels_counts_decode_steps_are_those_of_the_tables(
    card: RunCard, records: list[TrialRecord], own: Variant
) -> None:
    """64 requests are too few for the HTTP process to be the limit; a launch's best wave is the least disturbed."""
    workload = card.workloads[1]
    ratios = []
    for trial in records:
        steps = [wave.step_ms for wave in measured_waves(H100, trial, workload)]
        if steps:
            ratios.append(min(steps) / kernel_wave(own.twin, card.deployment, trial.config, workload).step_ms)
    assert min(ratios) > 0.99
    assert statistics.median(ratios) < 1.09


def test_unstreamed_figures_of_another_machine_are_within_nine_percent(card: RunCard, own: Variant) -> None:
    rows = [row for row in read_by_hand(H100) if row["streamed"] == "no"]
    assert len(rows) == 3
    for row in rows:
        assert predicted_by_hand(own.twin, card, row) == pytest.approx(float(row["output_tok_per_s"]), rel=0.091)


def test_waves_are_told_from_their_samples() -> None:
    """Two waves of four prompts that take 10 ms each after a first step of two, and five decode steps of 20 ms."""
    workload = Workload(isl=1000, osl=6, concurrency=4)
    sent, first, done = (
        np.concatenate([each, each + 140]) for each in np.array([[0] * 4, [20, 20, 30, 40], [140] * 4])
    )
    found = list(waves(sent, first, done, workload))
    assert [wave.prompt_us for wave in found] == pytest.approx([10.0, 10.0])
    assert [wave.step_ms for wave in found] == pytest.approx([20.0, 20.0])
    sent[7] = 179  # when the second wave had had tokens already
    assert len(list(waves(sent, first, done, workload))) == 1
