"""The twin against a measured engine, number by number, with TensorRT-LLM's kernel times and with the engine's own.

In a closed loop of equal lengths vLLM's requests run in waves: all prompts, then all decodes. So the samples of a
launch hold, beside throughput, TTFT and TPOT, two numbers that are nearly those of the kernel tables: the time of a
prompt's token, and that of a decode step with every request in flight.

Run as `python -m tools.twin_figures FOLDER`; the predictions are those of this checkout.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.app.calibrate import calibrate, calibrated
from advisor.app.forecast import Forecaster
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import Metrics
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.store import catalog
from advisor.store.run_card import CARD, RunCard, read_card
from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.predict import TablesFor, Twin
from advisor.twin.step_tables import StepTables
from tools.study_records import CALIBRATION_TRIALS, benchmarked, read_trials, settings, table

Array = NDArray[np.float64]
ERRORS = ("tok/s", "TTFT", "TPOT")
BY_HAND = "by-hand.csv"
GPU = "gpu.csv.gz"
BUSY = 90  # % of a second in which a kernel ran
CAPPED_MHZ = 1700  # between the two groups of clocks that a GPU shows under this load


def trtllm_tables(deployment: Deployment) -> StepTables:
    """TensorRT-LLM's kernel times of a deployment, whatever engine it is of."""
    return catalog.step_tables(changed(deployment, engine=catalog.TRTLLM))


BOTH: tuple[TablesFor, ...] = (trtllm_tables, catalog.step_tables)


@dataclass(frozen=True)
class Variant:
    """The twin with one engine's kernel times, nominal or calibrated on the first launches of the study."""

    name: str
    twin: Twin


def learnt(folder: Path, tables_for: TablesFor) -> TwinConstants:
    """Constants fitted to the first launches of a run folder."""
    with tempfile.TemporaryDirectory() as first:
        shutil.copy(folder / CARD, first)
        for number in range(CALIBRATION_TRIALS):
            place = Path("trials") / f"{number:04d}"
            shutil.copytree(folder / place, Path(first) / place)
        return calibrated(calibrate([Path(first)], tables_for), read_card(folder).deployment)


def nominal(folder: Path) -> list[Variant]:
    """With TensorRT-LLM's tables and with the engine's own."""
    card = read_card(folder)
    return [variant(card, tables_for, NOMINAL) for tables_for in BOTH]


def calibrated_too(folder: Path) -> list[Variant]:
    """The same, each followed by itself calibrated."""
    card, found = read_card(folder), []
    for plain, tables_for in zip(nominal(folder), BOTH, strict=True):
        fitted = variant(card, tables_for, learnt(folder, tables_for))
        found += [plain, replace(fitted, name=f"{fitted.name}, calibrated")]
    return found


def variant(card: RunCard, tables_for: TablesFor, constants: TwinConstants) -> Variant:
    """The twin of a run, named after its tables."""
    twin = Forecaster(card.deployment, card.workloads, constants=constants, tables_for=tables_for).twin
    return Variant(str(tables_for(card.deployment).kernels), twin)


def errors(twin: Twin, card: RunCard, trial: TrialRecord, workload: Workload) -> Array:
    """Predicted over measured - 1 of output tok/s, mean TTFT and mean TPOT of one benchmark, shape (3,)."""
    outcome = trial.workload(workload.name)
    assert outcome is not None
    assert outcome.metrics is not None
    n, seed = outcome.metrics.n_requests, outcome.seed
    said = twin.predict(card.deployment, trial.config, workload, n_requests=n, seed=seed).metrics
    assert said is not None
    return figures(said) / figures(outcome.metrics) - 1


def figures(metrics: Metrics) -> Array:
    """Output tok/s, mean TTFT and mean TPOT."""
    assert metrics.tpot_ms is not None
    return np.array([metrics.output_tok_per_s, metrics.ttft_ms.mean, metrics.tpot_ms.mean])


def agreement(folder: Path, trials: Sequence[TrialRecord], compared: Sequence[Variant]) -> str:
    """Every launch: measured figures, and the errors of each variant in percent; their median sizes at the end."""
    card, rows = read_card(folder), []
    for workload in card.workloads:
        complete = benchmarked(trials, workload)
        found = np.array([[errors(each.twin, card, trial, workload) for each in compared] for trial in complete])
        for trial, of_trial in zip(complete, found, strict=True):
            outcome = trial.workload(workload.name)
            assert outcome is not None
            assert outcome.metrics is not None
            measured = [
                f"{value:,.{digits}f}" for value, digits in zip(figures(outcome.metrics), (0, 0, 1), strict=True)
            ]
            rows.append([settings(trial)[0], workload.name, *measured, *map(signed, of_trial)])
        sizes = np.median(np.abs(found), axis=0)
        rows.append(
            ["median", workload.name, "", "", "", *(" / ".join(f"{100 * x:.1f}" for x in each) for each in sizes)]
        )
    header = ["trial", "workload", "tok/s", "TTFT ms", "TPOT ms", *(each.name for each in compared)]
    return f"Errors in %: {' / '.join(ERRORS)}, predicted over measured - 1.\n\n" + table(header, rows)


def signed(errors_of_one: Array) -> str:
    """Errors in percent."""
    return " / ".join(f"{100 * error:+.0f}" for error in errors_of_one)


def unseen(folder: Path, trials: Sequence[TrialRecord], compared: Sequence[Variant]) -> str:
    """Errors of output tok/s of every later launch, of a variant before and after calibration on the first ones.

    Only launches whose configuration is none of the first ones' count: nothing about them was known.
    """
    card = read_card(folder)
    rows = [
        settings(trial)
        + [f"{errors(each.twin, card, trial, one)[0]:+.1%}" for one in card.workloads for each in compared]
        for trial in benchmarked(not_known(trials), *card.workloads)
    ]
    header = ["trial", "batch", "tokens", "graphs", "fraction", "stream"]
    return table(header + [word for each in card.workloads for word in (each.name, "calibrated")], rows)


def not_known(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Launches of configurations that are none of the first ones'."""
    known = {trial.config for trial in trials[:CALIBRATION_TRIALS]}
    return [trial for trial in trials[CALIBRATION_TRIALS:] if trial.config not in known]


@dataclass(frozen=True)
class Wave:
    """One wave of requests that were served together.

    Attributes:
        prompt_us: Time of one prompt token, from the end of the first step to that of the last.
        step_ms: A decode step with all of them in flight, from the last first token to the end of that answer.
    """

    prompt_us: float
    step_ms: float


def waves(sent_ms: Array, first_ms: Array, done_ms: Array, workload: Workload) -> Iterator[Wave]:
    """The waves of a closed loop: requests that were all there before the second step ended, and done before the next.

    Args:
        sent_ms: When each request was sent, shape (n,).
        first_ms: Its first token, shape (n,).
        done_ms: Its end, shape (n,).
        workload: Of equal lengths.
    """
    n, order = workload.concurrency or len(sent_ms), np.argsort(first_ms)
    sent, first, done = sent_ms[order], first_ms[order], done_ms[order]
    for start in range(0, len(first) - n + 1, n):
        wave = slice(start, start + n)
        begun, gaps = first[wave], np.diff(first[wave])
        in_first_step = int(np.argmax(gaps > gaps.max() / 2)) + 1
        next_begun = first[start + n] if start + n < len(first) else np.inf
        if sent[wave].max() <= begun[in_first_step] and done[wave].max() <= next_begun:
            prompt_us = 1e3 * (begun[-1] - begun[0]) / ((n - in_first_step) * workload.isl)
            yield Wave(float(prompt_us), float(done[wave][-1] - begun[-1]) / (workload.osl - 1))


def measured_waves(folder: Path, trial: TrialRecord, workload: Workload) -> list[Wave]:
    """Those of one benchmark on record."""
    with np.load(folder / "trials" / f"{trial.number:04d}" / f"samples-{workload.name}.npz") as samples:
        return list(waves(samples["sent_ms"], samples["first_token_ms"], samples["done_ms"], workload))


def kernel_wave(twin: Twin, deployment: Deployment, config: ServingConfig, workload: Workload) -> Wave:
    """The first wave as the kernel times alone have it: nothing passes an HTTP process."""
    http = ("http_per_chunk_ms", "http_per_token_ms", "http_per_request_ms", "http_per_step_ms")
    alone = replace(twin.constants, **dict.fromkeys((*http, "prompt_step_ms", "vllm_eager_ms_per_layer"), 0.0))
    run = replace(twin, constants=alone).simulate(deployment, config, workload, n_requests=workload.concurrency or 1)
    return next(waves(run.arrival_ms, run.first_token_ms, run.done_ms, workload))


def kernels(folder: Path, trials: Sequence[TrialRecord]) -> str:
    """Every launch: a prompt's token and a decode step, measured, and by the kernel times of both engines alone."""
    card, rows = read_card(folder), []
    both = nominal(folder)
    for workload in card.workloads:
        for trial in benchmarked(trials, workload):
            seen = measured_waves(folder, trial, workload)
            said = [kernel_wave(each.twin, card.deployment, trial.config, workload) for each in both]
            steps = sorted(wave.step_ms for wave in seen)
            rows.append(
                [
                    settings(trial)[0],
                    workload.name,
                    f"{statistics.median(wave.prompt_us for wave in seen):.1f}" if seen else "-",
                    *(f"{wave.prompt_us:.1f}" for wave in said),
                    ", ".join(f"{step:.1f}" for step in steps) or "-",
                    *(f"{wave.step_ms:.1f}" for wave in said),
                ]
            )
    names = [each.name for each in both]
    return table(["trial", "workload", "prompt token, us", *names, "decode steps, ms", *names], rows)


def by_hand(folder: Path) -> str:
    """Throughput found by hand on another machine, streamed and not, beside the twin's; an answer is one chunk then."""
    card, rows = read_card(folder), []
    both = nominal(folder)
    for row in read_by_hand(folder):
        said = [predicted_by_hand(each.twin, card, row) for each in both]
        measured = float(row["output_tok_per_s"])
        cells = [row[name] for name in ("server", "max_num_seqs", "max_num_batched_tokens", "stream_interval")]
        cells[3] = cells[3] if row["streamed"] == "yes" else "not streamed"
        rows.append([*cells, f"{measured:,.0f}", *(f"{value:,.0f} ({value / measured - 1:+.1%})" for value in said)])
    return table(["server", "batch", "tokens", "stream", "tok/s", *(each.name for each in both)], rows)


def read_by_hand(folder: Path) -> list[dict[str, str]]:
    """Rows of the file beside the study, none where there is none."""
    path = folder.parent / BY_HAND
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def predicted_by_hand(twin: Twin, card: RunCard, row: dict[str, str]) -> float:
    """Output tok/s of the first workload with a row's settings."""
    workload = card.workloads[0]
    config = ServingConfig(
        max_batch_size=int(row["max_num_seqs"]),
        max_num_tokens=int(row["max_num_batched_tokens"]),
        cuda_graph_max_batch_size=int(row["max_num_seqs"]),
        kv_cache_free_gpu_memory_fraction=float(row["gpu_memory_utilization"]),
        options={"stream_interval": int(row["stream_interval"]) if row["streamed"] == "yes" else workload.osl},
    )
    metrics = twin.predict(card.deployment, config, workload).metrics
    assert metrics is not None
    return metrics.output_tok_per_s


def clocks(folder: Path) -> str:
    """How fast the GPU's clock ran while it was busy: two groups, under the power cap and not."""
    with gzip.open(folder.parent / GPU, "rt") as file:
        samples = [
            {name: cell.split()[0] for name, cell in row.items() if cell}
            for row in csv.DictReader(file, skipinitialspace=True)
        ]
    busy = [row for row in samples if len(row) > 4 and float(row["utilization.gpu [%]"]) >= BUSY]
    rows = []
    for low, high in ((0, CAPPED_MHZ), (CAPPED_MHZ, 10_000)):
        group = [row for row in busy if low <= float(row["clocks.current.sm [MHz]"]) < high]
        at, power = (
            statistics.median(float(row[name]) for row in group)
            for name in ("clocks.current.sm [MHz]", "power.draw [W]")
        )
        rows.append([f"{len(group)} of {len(busy)}", f"{at:,.0f}", f"{power:.0f}"])
    return table(["samples", "clock, MHz (median)", "power, W (median)"], rows)


def tables(folder: Path, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """All of them; nothing is calibrated where no other configuration came after the first launches."""
    enough = bool(not_known(trials))
    compared = calibrated_too(folder) if enough else nominal(folder)
    yield agreement(folder, trials, compared)
    if enough:
        yield unseen(folder, trials, compared[2:])
    yield kernels(folder, trials)
    if read_by_hand(folder):
        yield by_hand(folder)
    yield clocks(folder)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<study>/<run>, or one under studies/evidence")
    folder = parser.parse_args().folder
    sys.stdout.write("\n".join(tables(folder, read_trials(folder))))


if __name__ == "__main__":
    main()
